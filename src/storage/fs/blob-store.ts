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
 *     quarantine/                     what the disk has damaged; never served
 *       upstream/                     copies, kept for a while
 *       local/                        what was pushed here, kept until the operator removes it
 *     tmp/                            copies under way from a spool on another disk
 */
import {randomUUID} from 'node:crypto';
import {copyFile, open, rename, rm, stat, utimes} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {errorCode} from '../../error-code.ts';
import {algorithmOf, type Digest, encodedOf, isDigest} from '../../oci/digest.ts';
import type {BlobStore, ListedBlob, Origin} from '../blob-store.ts';
import {makeFolder, namesIn, sync, unlessMissing, withFolder} from './files.ts';
import {createMarker, type Marker, type StoreLedger} from './marker.ts';
import {dropCopies, expireCopies, measureQuarantine, setAside} from './quarantine.ts';
import type {ReadPool} from './read-pool.ts';
import {readRange} from './read-range.ts';
import {createFileReading, type FileReading, type OpenFile, type SharedFiles} from './shared-files.ts';

export interface FsBlobStoreOptions {
  /** The store's folder, which belongs to one process. */
  path: string;
  /** What they record of the store shows whether the folder is the right one. */
  metadata: StoreLedger;
  /** What files are read with; default its own. */
  reading?: FileReading;
}

/** Blobs as files below `path`. A path is only ever made from a parsed digest. */
export function createFsBlobStore({path, metadata, reading}: FsBlobStoreOptions): BlobStore {
  const marker = createMarker({path, metadata, list: () => listBlobs(path)});
  const files = new StoreTree(path, marker, reading ?? createFileReading());

  return {
    check: () => marker.expect(),
    checkUnchanged: () => marker.expectUnchanged(),
    pathOf: (digest) => files.pathOf(digest),

    async stat(digest) {
      const found = await files.size(digest);
      if (found) return found;
      // The disk may have come back this very moment: an absence counts only between two sights of the marker.
      await marker.expect();
      const again = await files.size(digest);
      if (!again) await marker.expect();
      return again;
    },

    async *open(digest, range) {
      const file = await files.share(digest);
      try {
        yield* file.read(range?.start ?? 0, range ? range.end + 1 : file.size);
      } finally {
        await file.close();
      }
    },

    inspect: (digest) => files.inspect(digest),

    async publish(digest, spool) {
      await spool.flush();
      await marker.expectUnchanged();
      await files.put(spool.path, digest);
      // Nobody may rely on bytes that went into the folder below a disk which is not mounted.
      await marker.expectUnchanged();
      await spool.discard();
    },

    async delete(digest) {
      await marker.expect();
      await files.remove(digest);
    },

    async setAside(digest, origin) {
      await marker.expect();
      await files.setAside(digest, origin);
    },

    async expireSetAside(before) {
      await marker.expect();
      return expireCopies(path, before);
    },

    async bytesSetAside() {
      await marker.expect();
      return measureQuarantine(path);
    },

    async dropSetAside(bytes) {
      await marker.expect();
      return dropCopies(path, bytes);
    },

    async *list(after) {
      await marker.expect();
      yield* listBlobs(path, after);
      await marker.expect();
    },
  };
}

/** The files of the store's tree. */
class StoreTree {
  readonly #path: string;
  readonly #marker: Marker;
  readonly #pool: ReadPool;
  readonly #shared: SharedFiles;
  readonly #temporary: string;
  #swept: Promise<void> | undefined;
  /** Shards whose own entry is known to be on the disk. */
  readonly #durableShards = new Set<string>();

  constructor(path: string, marker: Marker, {pool, shared}: FileReading) {
    this.#path = path;
    this.#marker = marker;
    this.#pool = pool;
    this.#shared = shared;
    this.#temporary = join(path, 'tmp');
  }

  async size(digest: Digest): Promise<{size: number} | undefined> {
    const path = this.pathOf(digest);
    const stats = await this.#orMissing(unlessMissing(stat(path)));
    // A person may have put another file in the place of a damaged one.
    if (stats) this.#shared.compare(path, stats);
    else this.#shared.forget(path);
    return stats && {size: stats.size};
  }

  /** The file for one of its readers, who share what they read. */
  share(digest: Digest): Promise<OpenFile> {
    return this.#orMissing(this.#shared.open(this.pathOf(digest)));
  }

  async *inspect(digest: Digest): AsyncGenerator<Uint8Array, void> {
    const file = await this.#orMissing(open(this.pathOf(digest)));
    try {
      yield* readRange(file, 0, (await file.stat()).size, this.#pool);
    } finally {
      await file.close();
    }
  }

  async remove(digest: Digest): Promise<void> {
    const path = this.pathOf(digest);
    await rm(path, {force: true});
    this.#shared.forget(path);
  }

  async setAside(digest: Digest, origin: Origin): Promise<void> {
    const path = this.pathOf(digest);
    await setAside(this.#path, path, digest, origin);
    this.#shared.forget(path);
  }

  /** Moves a file that is safe on its disk to a blob's path, durably. */
  async put(source: string, digest: Digest): Promise<void> {
    const path = this.pathOf(digest);
    await this.#orMissing(this.#move(source, path));
    this.#shared.forget(path);
  }

  pathOf(digest: Digest): string {
    const encoded = encodedOf(digest);
    return join(this.#path, algorithmOf(digest), encoded.slice(0, 2), encoded);
  }

  /** What the file system says, unless it fails because the whole disk is missing. @throws StoreMissing */
  async #orMissing<T>(answer: Promise<T>): Promise<T> {
    try {
      return await answer;
    } catch (error) {
      await this.#marker.expect();
      throw error;
    }
  }

  async #move(source: string, target: string): Promise<void> {
    const shard = dirname(target);
    const now = new Date();
    await utimes(source, now, now);
    await withFolder(
      () => this.#rename(source, target),
      async () => {
        // Never makes the store's own folder: on a disk that is not mounted that would hide what is missing.
        await makeFolder(dirname(shard));
        await makeFolder(shard);
      },
    );
    await sync(shard);
    if (this.#durableShards.has(shard)) return;
    await sync(dirname(shard));
    await sync(this.#path);
    this.#durableShards.add(shard);
  }

  /**
   * Renaming over an existing blob is harmless, since its readers keep the file that they opened, and it heals one that the
   * disk has damaged.
   */
  async #rename(source: string, target: string): Promise<void> {
    try {
      await rename(source, target);
    } catch (error) {
      if (errorCode(error) !== 'EXDEV') throw error;
      await this.#copy(source, target);
    }
  }

  async #copy(source: string, target: string): Promise<void> {
    // What an earlier process left half copied is removed before the first copy of this one.
    this.#swept ??= rm(this.#temporary, {recursive: true, force: true});
    await this.#swept;
    await makeFolder(this.#temporary);
    const copy = join(this.#temporary, randomUUID());
    try {
      await copyFile(source, copy);
      await sync(copy);
      await rename(copy, target);
    } finally {
      await rm(copy, {force: true});
    }
  }
}

async function* listBlobs(path: string, after?: Digest): AsyncGenerator<ListedBlob, void> {
  for (const algorithm of ['sha256', 'sha512']) {
    for (const shard of await namesIn(join(path, algorithm))) {
      const folder = join(path, algorithm, shard);
      // A whole shard lies before `after`: its names need not be read.
      if (after !== undefined && `${algorithm}:${shard}~` <= after) continue;
      for (const name of await namesIn(folder)) {
        const digest = `${algorithm}:${name}`;
        if (!isDigest(digest) || !name.startsWith(shard) || (after !== undefined && digest <= after))
          continue;
        const stats = await unlessMissing(stat(join(folder, name)));
        if (stats) yield {digest, size: stats.size, storedAt: stats.mtimeMs};
      }
    }
  }
}
