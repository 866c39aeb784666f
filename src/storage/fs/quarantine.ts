import {rename, rm, stat, utimes} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {algorithmOf, type Digest, encodedOf} from '../../oci/digest.ts';
import type {Origin} from '../blob-store.ts';
import {diskBytes} from '../disk.ts';
import {makeFolder, namesIn, sync, unlessMissing} from './files.ts';

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

interface AsideFile {
  path: string;
  /** Bytes on the disk. */
  bytes: number;
  setAsideAt: number;
}

async function filesAside(store: string, origin: Origin): Promise<AsideFile[]> {
  const folder = folderOf(store, origin);
  const files: AsideFile[] = [];
  for (const name of await namesIn(folder)) {
    const path = join(folder, name);
    const stats = await unlessMissing(stat(path));
    if (stats) files.push({path, bytes: diskBytes(stats.size), setAsideAt: stats.mtimeMs});
  }
  return files;
}

/** Removes the copies that were set aside before `before`. @returns their number */
export async function expireCopies(store: string, before: number): Promise<number> {
  const expired = (await filesAside(store, 'upstream')).filter(({setAsideAt}) => setAsideAt < before);
  for (const {path} of expired) await rm(path, {force: true});
  return expired.length;
}

/** Removes copies, oldest first, until so many bytes are free. @returns the bytes that are free now */
export async function dropCopies(store: string, bytes: number): Promise<number> {
  const copies = await filesAside(store, 'upstream');
  let dropped = 0;
  for (const copy of copies.sort((a, b) => a.setAsideAt - b.setAsideAt)) {
    if (dropped >= bytes) break;
    await rm(copy.path, {force: true});
    dropped += copy.bytes;
  }
  return dropped;
}

/** What lies in the quarantine, in bytes on the disk. */
export async function measureQuarantine(store: string): Promise<{[Of in Origin]: number}> {
  const [upstream, local] = await Promise.all([bytesAside(store, 'upstream'), bytesAside(store, 'local')]);
  return {upstream, local};
}

const bytesAside = async (store: string, origin: Origin): Promise<number> =>
  (await filesAside(store, origin)).reduce((sum, {bytes}) => sum + bytes, 0);
