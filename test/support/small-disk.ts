import {execFile} from 'node:child_process';
import {open, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {promisify} from 'node:util';
import type {ExecutionContext} from 'ava';
import {createFolder} from './folder.ts';

const run = promisify(execFile);
const SIZE = '24m';
const FILLING = Buffer.alloc(64 * 1024);

/** A disk of 24 MiB. */
export interface SmallDisk {
  readonly folder: string;
  /** Takes all the space that is left. */
  fill(): Promise<void>;
  /** Gives it back. */
  empty(): Promise<void>;
  /** Mounts it again, read-only or not. */
  remount(mode: 'ro' | 'rw'): Promise<void>;
}

/**
 * Mounts a small disk until the test ends.
 * @returns undefined, with a note in the test's log, where mounting is not permitted
 */
export async function createSmallDisk(t: ExecutionContext): Promise<SmallDisk | undefined> {
  const folder = await createFolder(t);
  try {
    await run('mount', ['-t', 'tmpfs', '-o', `size=${SIZE}`, 'tmpfs', folder]);
  } catch (error) {
    t.log(`not tested, since no disk can be mounted here: ${error instanceof Error ? error.message : error}`);
    return undefined;
  }
  t.teardown(() => run('umount', ['--lazy', folder]));
  const filling = join(folder, 'filling');
  return {
    folder,
    fill: () => fillFile(filling),
    empty: () => rm(filling),
    remount: async (mode) => void (await run('mount', ['-o', `remount,${mode}`, folder])),
  };
}

async function fillFile(path: string): Promise<void> {
  const file = await open(path, 'w');
  try {
    for (let chunk = FILLING; chunk.length > 0; ) {
      const written = await file.write(chunk).catch((error: NodeJS.ErrnoException) => {
        if (error.code !== 'ENOSPC') throw error;
        return undefined;
      });
      // The last bytes are taken one page at a time.
      if (!written) chunk = chunk.length > 4096 ? chunk.subarray(0, 4096) : chunk.subarray(0, 0);
    }
  } finally {
    await file.close();
  }
}
