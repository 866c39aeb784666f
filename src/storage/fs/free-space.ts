import {statfs} from 'node:fs/promises';

/** Bytes of a folder's file system that this user may still write. @throws what the system says, e.g. ENOENT */
export async function freeSpace(folder: string): Promise<number> {
  const {bavail, bsize} = await statfs(folder);
  return bavail * bsize;
}
