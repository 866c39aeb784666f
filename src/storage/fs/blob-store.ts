/*
 * The store's tree. A digest's path exists only once its content is whole, verified and safe on the disk.
 *
 *   <path>/
 *     sha256/
 *       ab/                           the first two digits of the encoded digest
 *         ab12…                       the content of sha256:ab12…
 *     sha512/
 *       cd/
 *         cd34…
 *     tmp/                            copies under way from a spool on another disk
 */
import {randomUUID} from 'node:crypto';
import {copyFile, mkdir, open, readdir, rename, rm, stat} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {algorithmOf, type Digest, encodedOf, isDigest} from '../../oci/digest.ts';
import type {BlobStore} from '../blob-store.ts';
import {createReadBuffers} from './buffers.ts';
import {codeOf, unlessMissing} from './missing.ts';
import {readRange} from './read-range.ts';

/**
 * Blobs as files below `path`, which is made at the first publish and belongs to one process. A path is only ever
 * made from a parsed digest.
 */
export function createFsBlobStore({path}: {path: string}): BlobStore {
  const temporary = join(path, 'tmp');
  const buffers = createReadBuffers();
  let swept: Promise<void> | undefined;
  /** Shards whose own entry is known to be on the disk. */
  const durableShards = new Set<string>();

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
    await mkdir(temporary, {recursive: true});
    const copy = join(temporary, randomUUID());
    try {
      await copyFile(source, copy);
      await sync(copy);
      await rename(copy, target);
    } finally {
      await rm(copy, {force: true});
    }
  };

  return {
    async stat(digest) {
      const stats = await unlessMissing(stat(pathOf(digest)));
      return stats && {size: stats.size};
    },

    async *open(digest, range) {
      const file = await open(pathOf(digest));
      try {
        const start = range?.start ?? 0;
        const end = range ? range.end + 1 : (await file.stat()).size;
        yield* readRange(file, start, end, buffers);
      } finally {
        await file.close();
      }
    },

    async publish(digest, spool) {
      const target = pathOf(digest);
      const shard = dirname(target);
      await spool.flush();
      await mkdir(shard, {recursive: true});
      // Renaming over a blob that is already here is harmless, since its readers keep the file that they opened,
      // and it heals one that the disk has damaged.
      await rename(spool.path, target).catch((error: unknown) => {
        if (codeOf(error) !== 'EXDEV') throw error;
        return copyInto(spool.path, target);
      });
      await sync(shard);
      if (!durableShards.has(shard)) {
        await sync(dirname(shard));
        await sync(path);
        durableShards.add(shard);
      }
      await spool.discard();
    },

    async delete(digest) {
      await rm(pathOf(digest), {force: true});
    },

    async *list(after) {
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
            if (stats) yield {digest, size: stats.size};
          }
        }
      }
    },
  };
}

/** The names in a folder in byte order; none when there is no such folder. */
async function names(folder: string): Promise<string[]> {
  return ((await unlessMissing(readdir(folder))) ?? []).sort();
}

/** Makes a file's content, or a folder's entries, survive a power cut. */
async function sync(path: string): Promise<void> {
  const handle = await open(path);
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
