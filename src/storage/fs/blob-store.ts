/*
 * The store's tree. A digest's path exists only once its content is whole, verified and safe on the disk.
 *
 *   <path>/
 *     backref-store                   the marker: which store this is
 *     sha256/
 *       ab/                           the first two digits of the encoded digest
 *         ab12…                       the content of sha256:ab12…
 *     sha512/
 *       cd/
 *         cd34…
 *     tmp/                            copies under way from a spool on another disk
 */
import {randomUUID} from 'node:crypto';
import {copyFile, mkdir, open, readdir, rename, rm, stat, utimes} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {errorCode} from '../../error-code.ts';
import {algorithmOf, type Digest, encodedOf, isDigest} from '../../oci/digest.ts';
import type {BlobStore, ListedBlob} from '../blob-store.ts';
import {createReadBuffers} from './buffers.ts';
import {sync} from './durable.ts';
import {createMarker, type StoreLedger} from './marker.ts';
import {unlessMissing} from './missing.ts';
import {readRange} from './read-range.ts';

export interface FsBlobStoreOptions {
  /** The store's folder, which belongs to one process. */
  path: string;
  /** Tells whether the folder is the store that it should be. */
  metadata: StoreLedger;
}

/** Blobs as files below `path`. A path is only ever made from a parsed digest. */
export function createFsBlobStore({path, metadata}: FsBlobStoreOptions): BlobStore {
  const temporary = join(path, 'tmp');
  const buffers = createReadBuffers();
  let swept: Promise<void> | undefined;
  /** Shards whose own entry is known to be on the disk. */
  const durableShards = new Set<string>();

  const marker = createMarker({path, metadata, list: () => listBlobs(path)});

  const pathOf = (digest: Digest): string => {
    const encoded = encodedOf(digest);
    return join(path, algorithmOf(digest), encoded.slice(0, 2), encoded);
  };

  /** What an earlier process left half copied goes before the first copy of this one. */
  const sweep = (): Promise<void> => {
    swept ??= rm(temporary, {recursive: true, force: true});
    return swept;
  };

  const copyInto = async (source: string, target: string): Promise<void> => {
    await sweep();
    await makeFolder(temporary);
    const copy = join(temporary, randomUUID());
    try {
      await copyFile(source, copy);
      await sync(copy);
      await rename(copy, target);
    } finally {
      await rm(copy, {force: true});
    }
  };

  /** What the file system gives. What it refuses may be for want of the whole disk. */
  async function present<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      await marker.expect();
      throw error;
    }
  }

  const sizeOf = async (digest: Digest): Promise<{size: number} | undefined> => {
    const stats = await present(unlessMissing(stat(pathOf(digest))));
    return stats && {size: stats.size};
  };

  /** Never makes the store's own folder: on a disk that is not mounted that would hide what is missing. */
  async function makeShard(shard: string): Promise<void> {
    await makeFolder(dirname(shard));
    await makeFolder(shard);
  }

  /** Moves a file that is safe on its disk to a blob's path, durably. */
  async function put(source: string, target: string): Promise<void> {
    const shard = dirname(target);
    await makeShard(shard);
    const now = new Date();
    await utimes(source, now, now);
    // Renaming over a blob that is already here is harmless, since its readers keep the file that they opened,
    // and it heals one that the disk has damaged.
    await rename(source, target).catch((error: unknown) => {
      if (errorCode(error) !== 'EXDEV') throw error;
      return copyInto(source, target);
    });
    await sync(shard);
    if (durableShards.has(shard)) return;
    await sync(dirname(shard));
    await sync(path);
    durableShards.add(shard);
  }

  return {
    check: () => marker.expect(),

    async stat(digest) {
      const found = await sizeOf(digest);
      if (found) return found;
      // The disk may have come back this very moment: an absence counts only between two sights of the marker.
      await marker.expect();
      const again = await sizeOf(digest);
      if (!again) await marker.expect();
      return again;
    },

    async *open(digest, range) {
      const file = await present(open(pathOf(digest)));
      try {
        const start = range?.start ?? 0;
        const end = range ? range.end + 1 : (await file.stat()).size;
        yield* readRange(file, start, end, buffers);
      } finally {
        await file.close();
      }
    },

    async publish(digest, spool) {
      await spool.flush();
      await marker.expect();
      await present(put(spool.path, pathOf(digest)));
      // Nobody may rely on bytes that went into the folder below a disk which is not mounted.
      await marker.expect();
      await spool.discard();
    },

    async delete(digest) {
      await marker.expect();
      await rm(pathOf(digest), {force: true});
    },

    async *list(after) {
      await marker.expect();
      yield* listBlobs(path, after);
      await marker.expect();
    },
  };
}

async function* listBlobs(path: string, after?: Digest): AsyncGenerator<ListedBlob, void> {
  for (const algorithm of ['sha256', 'sha512']) {
    for (const shard of await names(join(path, algorithm))) {
      const folder = join(path, algorithm, shard);
      // A whole shard lies before `after`: its names need not be read.
      if (after !== undefined && `${algorithm}:${shard}~` <= after) continue;
      for (const name of await names(folder)) {
        const digest = `${algorithm}:${name}`;
        if (!isDigest(digest) || !name.startsWith(shard) || (after !== undefined && digest <= after))
          continue;
        const stats = await unlessMissing(stat(join(folder, name)));
        if (stats) yield {digest, size: stats.size, storedAt: stats.mtimeMs};
      }
    }
  }
}

/** The names in a folder in byte order; none when there is no such folder. */
async function names(folder: string): Promise<string[]> {
  return ((await unlessMissing(readdir(folder))) ?? []).sort();
}

/** Makes a folder in one that is there, unless it is there itself. */
async function makeFolder(path: string): Promise<void> {
  await mkdir(path).catch((error: unknown) => {
    if (errorCode(error) !== 'EEXIST') throw error;
  });
}
