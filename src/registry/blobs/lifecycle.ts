import type {Clock} from '../../clock.ts';
import {algorithmOf, type Digest, digestOfAll} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {type Change, DiskFull, type Metadata} from '../../storage/metadata.ts';
import type {Spool} from '../../storage/spool.ts';
import {createKeyedMutex, type KeyedMutex} from '../keyed.ts';

/** Changes blobs' bytes and their rows together: what is being stored is not removed meanwhile. */
export interface BlobLifecycle {
  /**
   * Makes the content of a verified spool a stored blob, durably, and commits its row together with `also`. It replaces
   * bytes that are already stored under the digest: those may have been damaged since they were verified.
   * @throws what the disk or the metadata threw. Then no bytes without a row stay in the store, and the caller discards
   * the spool
   */
  publish(digest: Digest, spool: Spool, also?: readonly Change[]): Promise<void>;
  /**
   * The size of a stored blob whose bytes are here. A copy whose bytes the disk has lost is forgotten, with what is left
   * of them, and fetched again. Row and bytes of a blob that was pushed here stay as they are: a push of the blob repairs
   * it, and so does restoring a backup.
   * @throws StoreMissing when the whole store is missing, so that nothing is known of any blob
   */
  stored(digest: Digest): Promise<number | undefined>;
  /**
   * Whether the stored bytes of a blob still have its digest. A damaged copy is forgotten and fetched again; a damaged
   * blob that was pushed here stays as it is until it is pushed again.
   */
  verify(digest: Digest): Promise<boolean>;
  /** Removes a blob's bytes unless a repository is linked to it. @returns whether it did */
  delete(digest: Digest): Promise<boolean>;
  /** Removes the bytes of a blob that has no row, as a process that died may have left them. @returns whether it did */
  deleteOrphan(digest: Digest): Promise<boolean>;
}

export interface BlobLifecycleParts {
  store: BlobStore;
  metadata: Metadata;
  clock: Clock;
}

export const createBlobLifecycle = (parts: BlobLifecycleParts): BlobLifecycle => new StoredBlobs(parts);

class StoredBlobs implements BlobLifecycle {
  readonly #store: BlobStore;
  readonly #metadata: Metadata;
  readonly #clock: Clock;
  readonly #mutex: KeyedMutex = createKeyedMutex();

  constructor({store, metadata, clock}: BlobLifecycleParts) {
    this.#store = store;
    this.#metadata = metadata;
    this.#clock = clock;
  }

  publish(digest: Digest, spool: Spool, also: readonly Change[] = []): Promise<void> {
    return this.#mutex.run(digest, async () => {
      // A process died while it deleted the blob. The commit refuses to store it before that is done.
      if (await this.#isMarked(digest)) await this.#removeMarked(digest);
      await this.#store.publish(digest, spool);
      // The size is complete only now: what was appended last may have waited for the disk.
      const put = {type: 'blob.put' as const, digest, size: spool.size, at: this.#clock.now()};
      try {
        if (!(await this.#metadata.commit([put, ...also])))
          throw new Error(`blob ${digest} is being deleted`);
      } catch (error) {
        await this.#removeUnrecorded(digest).catch(() => {});
        throw error;
      }
    });
  }

  async stored(digest: Digest): Promise<number | undefined> {
    const found = await this.#look(digest);
    if (found === 'absent') return undefined;
    if (found !== 'lost') return found.size;
    // Looked at again under the mutex: the blob may have been deleted or stored again meanwhile.
    return this.#mutex.run(digest, async () => {
      const now = await this.#look(digest);
      if (typeof now === 'object') return now.size;
      if (now === 'lost') await this.#removeCopy(digest);
      return undefined;
    });
  }

  verify(digest: Digest): Promise<boolean> {
    return this.#mutex.run(digest, async () => {
      if (typeof (await this.#look(digest)) !== 'object') return false;
      const actual = await digestOfAll(this.#store.open(digest), algorithmOf(digest));
      if (actual !== digest) await this.#removeCopy(digest);
      return actual === digest;
    });
  }

  /** Marks the row first, so that a process that dies in between leaves a row that says what was begun. */
  delete(digest: Digest): Promise<boolean> {
    return this.#mutex.run(digest, async () => {
      const marked =
        (await this.#isMarked(digest)) ||
        (await this.#metadata.commit([{type: 'blob.deleting', digest}], [{type: 'blob.unlinked', digest}]));
      if (marked) await this.#removeMarked(digest);
      return marked;
    });
  }

  deleteOrphan(digest: Digest): Promise<boolean> {
    return this.#mutex.run(digest, () => this.#removeUnrecorded(digest));
  }

  /** Compares the row with what the disk has. */
  async #look(digest: Digest): Promise<'absent' | 'lost' | {size: number}> {
    const record = await this.#metadata.blob(digest);
    if (record?.state !== 'ready') return 'absent';
    const {size} = record;
    return (await this.#store.stat(digest))?.size === size ? {size} : 'lost';
  }

  async #isMarked(digest: Digest): Promise<boolean> {
    return (await this.#metadata.blob(digest))?.state === 'deleting';
  }

  async #removeMarked(digest: Digest): Promise<void> {
    await this.#store.delete(digest);
    await this.#metadata.commit([{type: 'blob.delete', digest}]);
  }

  /**
   * Removes a copy of what an upstream has. When the disk is too full to remove the row, the bytes stay as well: the row
   * is right again once the blob is fetched again.
   */
  async #removeCopy(digest: Digest): Promise<void> {
    try {
      const forgotten = await this.#metadata.commit(
        [{type: 'blob.delete', digest}],
        [{type: 'blob.evictable', digest}],
      );
      if (forgotten) await this.#store.delete(digest);
    } catch (error) {
      if (!(error instanceof DiskFull)) throw error;
    }
  }

  /** Bytes without a row are never found, and would take up space that a full disk needs. */
  async #removeUnrecorded(digest: Digest): Promise<boolean> {
    if (await this.#metadata.blob(digest)) return false;
    await this.#store.delete(digest);
    return true;
  }
}
