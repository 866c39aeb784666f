import {mkdirSync} from 'node:fs';
import {join, resolve} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import {type LockFolder, Occupied} from '../folder-lock.ts';

/** SQLite, Result Codes. */
const SQLITE_BUSY = 5;

/** Keeps the locks referenced: a database that nothing refers to is closed when memory is collected. */
const held = new Set<DatabaseSync>();

/**
 * Locks `backref.lock` in the folder, which is created when it does not exist. Node has no call for it, but SQLite locks
 * the file of a transaction: the kernel keeps the lock, and ends it with the process. Nothing is ever written to the file, and
 * SQLite's journal is kept in memory.
 */
export const lockFolder: LockFolder = (folder) => {
  mkdirSync(folder, {recursive: true});
  const database = new DatabaseSync(join(folder, 'backref.lock'));
  try {
    database.exec('pragma journal_mode = memory; begin exclusive');
  } catch (error) {
    database.close();
    if (error instanceof Error && 'errcode' in error && error.errcode === SQLITE_BUSY) {
      throw new Occupied(resolve(folder));
    }
    throw error;
  }
  held.add(database);
  return {
    release() {
      if (held.delete(database)) database.close();
    },
  };
};
