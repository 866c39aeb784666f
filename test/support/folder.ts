import {accessSync, constants, statfsSync} from 'node:fs';
import {mkdtemp, rm} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import type {Lifetime} from './shared.ts';

/** On Linux a disk in memory, on which tests wait for no write: what they show holds on any disk. */
const MEMORY_DISK = '/dev/shm';
/** Bytes that must be free there. Containers often have 64 MiB, which is too little. */
const ENOUGH_BYTES = 2 * 1024 ** 3;

/** Where tests keep their files: in memory if this machine has such a disk, and room on it. */
const place = (): string => {
  try {
    accessSync(MEMORY_DISK, constants.W_OK);
    const {bavail, bsize} = statfsSync(MEMORY_DISK);
    return bavail * bsize < ENOUGH_BYTES ? tmpdir() : MEMORY_DISK;
  } catch {
    return tmpdir();
  }
};

/** An empty folder that is removed when the test has ended. */
export async function createFolder(t: Lifetime, parent = place()): Promise<string> {
  const folder = await mkdtemp(join(parent, 'backref-'));
  // A program that has just been killed may still be writing.
  t.teardown(() => rm(folder, {recursive: true, force: true, maxRetries: 10}));
  return folder;
}
