import {readdir, rename, rm, stat, utimes} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {algorithmOf, type Digest, encodedOf} from '../../oci/digest.ts';
import type {Origin} from '../blob-store.ts';
import {makeFolder, sync, unlessMissing} from './files.ts';

/** Below the store's folder; `upstream` and `local` in it hold what was set aside of each origin. */
const NAME = 'quarantine';

const folderOf = (store: string, origin: Origin): string => join(store, NAME, origin);

/** Moves a blob's file, if it is there, to where nothing serves it. Its time becomes the time of the move. */
export async function setAside(store: string, file: string, digest: Digest, origin: Origin): Promise<void> {
  const now = new Date();
  if (!(await unlessMissing(stat(file)))) return;
  const folder = folderOf(store, origin);
  await makeFolder(dirname(folder));
  await makeFolder(folder);
  await utimes(file, now, now);
  await rename(file, join(folder, `${algorithmOf(digest)}-${encodedOf(digest)}.${now.getTime()}`));
  await sync(folder);
  await sync(dirname(file));
}

/** Removes the copies that were set aside before `before`. @returns their number */
export async function expireCopies(store: string, before: number): Promise<number> {
  const folder = folderOf(store, 'upstream');
  let removed = 0;
  for (const name of (await unlessMissing(readdir(folder))) ?? []) {
    const file = join(folder, name);
    const stats = await unlessMissing(stat(file));
    if (!stats || stats.mtimeMs >= before) continue;
    await rm(file, {force: true});
    removed += 1;
  }
  return removed;
}
