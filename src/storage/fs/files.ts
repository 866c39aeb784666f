import {mkdir, open, readdir, statfs} from 'node:fs/promises';
import {errorCode} from '../../error-code.ts';

/** What the file system gives; undefined where the file or folder does not exist. */
export async function unlessMissing<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer;
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return undefined;
    throw error;
  }
}

/** Makes a file's content, or a folder's entries, survive a power cut. */
export async function sync(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Creates a folder, unless it exists, in a parent that must exist. */
export async function makeFolder(path: string): Promise<void> {
  await mkdir(path).catch((error: unknown) => {
    if (errorCode(error) !== 'EEXIST') throw error;
  });
}

/** Runs `work`, and once more after `make` if a folder was missing. */
export async function withFolder<T>(work: () => Promise<T>, make: () => Promise<unknown>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (errorCode(error) !== 'ENOENT') throw error;
  }
  await make();
  return work();
}

/** The names in a folder in byte order; none when there is no such folder. */
export async function namesIn(path: string): Promise<string[]> {
  return ((await unlessMissing(readdir(path))) ?? []).sort();
}

/** Bytes of a folder's file system that this user may still write. @throws what the system says, e.g. ENOENT */
export async function freeSpace(folder: string): Promise<number> {
  const {bavail, bsize} = await statfs(folder);
  return bavail * bsize;
}
