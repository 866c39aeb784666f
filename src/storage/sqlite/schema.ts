import {mkdirSync, statSync} from 'node:fs';
import {dirname} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import {MIGRATIONS} from './migrations.ts';

/** Marks a file as ours: "bref" in the header, beside `user_version`, the number of migrations it has had. */
const APPLICATION_ID = 0x62726566;

/** SQLite's result code for a file that is not a database (`SQLITE_NOTADB`). */
const NOT_A_DATABASE = 26;
/** How long to wait for another process's commit, in milliseconds. */
export const BUSY_TIMEOUT_MS = 5_000;

/** The schema of a database is an older one. */
export interface Migration {
  state: 'begins' | 'done';
  /** The number of migrations that it has had, and of those that there are. */
  from: number;
  to: number;
  /** Size of its file. */
  bytes: number;
}

/** Is told of a migration before it begins, and again when it is done. Between the two it takes all of this thread's time. */
export type ReportMigration = (migration: Migration) => void;

/**
 * Creates the database at `path` if there is none, and brings its schema up to date.
 * @param report is told when a database that is there has to be migrated
 * @throws Error when the file is not a database of backref, has a newer schema, or cannot be opened
 */
export function prepareDatabase(path: string, report: ReportMigration = () => {}): void {
  try {
    mkdirSync(dirname(path), {recursive: true});
    // Without foreign keys: a migration may drop a table that others refer to, and make it anew.
    using database = new DatabaseSync(path, {timeout: BUSY_TIMEOUT_MS, enableForeignKeyConstraints: false});
    const from = versionOf(database, path);
    const to = MIGRATIONS.length;
    if (from === to) return;
    const reportState = (state: Migration['state']) => {
      if (from > 0) report({state, from, to, bytes: statSync(path).size});
    };
    reportState('begins');
    // WAL: readers and the writer do not wait for each other. It is a property of the file.
    database.exec('pragma journal_mode = wal');
    sortingIn(dirname(path), database, () => migrate(database, path));
    reportState('done');
  } catch (error) {
    throw explain(error, path);
  }
}

function migrate(database: DatabaseSync, path: string): void {
  database.exec('begin immediate');
  // Another process may have opened the same new file: the second one finds it migrated.
  for (const migration of MIGRATIONS.slice(versionOf(database, path))) database.exec(migration);
  database.exec(`pragma user_version = ${MIGRATIONS.length}; pragma application_id = ${APPLICATION_ID}`);
  database.exec('commit');
}

/**
 * SQLite sorts the rows of a large index in files. The folder of the database has room for them and can be written, which a
 * container's `/tmp` need not be.
 */
function sortingIn(folder: string, database: DatabaseSync, work: () => void): void {
  const useFolder = (name: string) =>
    database.exec(`pragma temp_store_directory = '${name.replaceAll("'", "''")}'`);
  useFolder(folder);
  try {
    work();
  } finally {
    useFolder('');
  }
}

/** Whether opening the database at `path` would migrate it; false for one that cannot be read: opening it says why. */
export function isOutdated(path: string): boolean {
  try {
    using database = new DatabaseSync(path, {readOnly: true, timeout: BUSY_TIMEOUT_MS});
    return versionOf(database, path) < MIGRATIONS.length;
  } catch {
    return false;
  }
}

/**
 * For a database that can only be read.
 * @throws Error when the file is not a database of backref, or has another schema
 */
export function requireSchema(database: DatabaseSync, path: string): void {
  const version = versionOf(database, path);
  if (version === MIGRATIONS.length) return;
  throw new SchemaFault(
    `metadata: ${path} was written by an older backref (schema ${version}; this one has ${MIGRATIONS.length}), and its disk does not let it be changed. Make the disk writable, or free some space on it, and start again.`,
  );
}

class SchemaFault extends Error {}

/** The migrations that the file has had, when it is ours and we know all of them. */
function versionOf(database: DatabaseSync, path: string): number {
  const version = pragma(database, 'user_version');
  const empty = database.prepare('select 1 from sqlite_schema').get() === undefined;
  if (pragma(database, 'application_id') !== APPLICATION_ID && !(empty && version === 0)) {
    throw new SchemaFault(
      `metadata: ${path} is a database of another program. Set storage.metadata.path to a file of its own.`,
    );
  }
  if (version > MIGRATIONS.length) {
    throw new SchemaFault(
      `metadata: ${path} was written by a newer backref (schema ${version}; this one knows up to ${MIGRATIONS.length}). Run that version again, or set storage.metadata.path to another file.`,
    );
  }
  return version;
}

function pragma(database: DatabaseSync, name: 'user_version' | 'application_id'): number {
  return Number(database.prepare(`pragma ${name}`).get()?.[name]);
}

function explain(error: unknown, path: string): Error {
  if (error instanceof SchemaFault) return error;
  if (error instanceof Error && 'errcode' in error && error.errcode === NOT_A_DATABASE) {
    return new Error(
      `metadata: ${path} is not an SQLite database. Set storage.metadata.path to another file, or move this one away to begin with an empty one.`,
      {cause: error},
    );
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new Error(
    `metadata: ${path} cannot be opened: ${reason}. Its folder must be one that this process may write to; set storage.metadata.path.`,
    {cause: error},
  );
}
