import type {Clock} from '../../clock.ts';
import {algorithmOf, type Digest, digestOfAll} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {type Change, DiskFull, type Metadata} from '../../storage/metadata.ts';
import type {Spool} from '../../storage/spool.ts';
import {createKeyedMutex} from '../keyed.ts';

/** Blobs' bytes and their rows, changed together: what is being stored is not removed meanwhile. */
export interface BlobLifecycle {
  /**
   * Makes the content of a verified spool a stored blob, durably, and commits its row together with `also`. It takes the
   * place of bytes that are here under the digest already: those may have been damaged since they were verified.
   * @throws what the disk or the metadata said, with nothing left in the store that no row tells of; the spool is the
   * caller's to discard then
   */
  publish(digest: Digest, spool: Spool, also?: readonly Change[]): Promise<void>;
  /**
   * The size of a stored blob whose bytes are here. A copy whose bytes the disk has lost is forgotten, with what is left
   * of them, and fetched again. Of a blob that was pushed here row and bytes stay as they are: a push that brings it
   * heals it, and so does a backup that is put back.
   * @throws StoreMissing when nothing can be said of any blob
   */
  stored(digest: Digest): Promise<number | undefined>;
  /**
   * Whether the stored bytes of a blob still have its digest. A copy whose bytes do not is forgotten and fetched again; what
   * was pushed here stays as it is, for whoever brings it anew.
   */
  verify(digest: Digest): Promise<boolean>;
  /** Removes a blob's bytes unless a repository is linked to it; tells whether it did. */
  delete(digest: Digest): Promise<boolean>;
  /** Removes the bytes of a blob that has no row, as a process leaves them that dies in between; tells whether it did. */
  deleteOrphan(digest: Digest): Promise<boolean>;
}

export interface BlobLifecycleParts {
  store: BlobStore;
  metadata: Metadata;
  clock: Clock;
}

export function createBlobLifecycle({store, metadata, clock}: BlobLifecycleParts): BlobLifecycle {
  const mutex = createKeyedMutex();

  /** What the row says, and what the disk has. */
  async function look(digest: Digest): Promise<'absent' | 'lost' | {size: number}> {
    const record = await metadata.blob(digest);
    if (record?.state !== 'ready') return 'absent';
    const {size} = record;
    return (await store.stat(digest))?.size === size ? {size} : 'lost';
  }

  /** Without room to remove the row, nothing is removed: the row is true again when its blob is brought. */
  async function forgetCopy(digest: Digest): Promise<boolean> {
    try {
      return await metadata.commit([{type: 'blob.delete', digest}], [{type: 'blob.evictable', digest}]);
    } catch (error) {
      if (error instanceof DiskFull) return false;
      throw error;
    }
  }

  /** Bytes without a row would be found by nobody, and stay: a disk without room for a row has none for them either. */
  async function removeUnrecorded(digest: Digest): Promise<boolean> {
    if (await metadata.blob(digest)) return false;
    await store.delete(digest);
    return true;
  }

  const isMarked = async (digest: Digest): Promise<boolean> =>
    (await metadata.blob(digest))?.state === 'deleting';

  async function removeMarked(digest: Digest): Promise<void> {
    await store.delete(digest);
    await metadata.commit([{type: 'blob.delete', digest}]);
  }

  return {
    publish: (digest, spool, also = []) =>
      mutex.run(digest, async () => {
        // A process died while it deleted the blob. The commit refuses to store it before that is done.
        if (await isMarked(digest)) await removeMarked(digest);
        await store.publish(digest, spool);
        // Only now all of it: what was appended last may have waited for the disk.
        const {size} = spool;
        try {
          const put = {type: 'blob.put' as const, digest, size, at: clock.now()};
          if (!(await metadata.commit([put, ...also]))) throw new Error(`blob ${digest} is being deleted`);
        } catch (error) {
          await removeUnrecorded(digest).catch(() => {});
          throw error;
        }
      }),

    async stored(digest) {
      const found = await look(digest);
      if (found === 'absent') return undefined;
      if (found !== 'lost') return found.size;
      // Looked at again in its turn: it may have been on its way out, or in anew, and is not removed then.
      return mutex.run(digest, async () => {
        const now = await look(digest);
        if (typeof now === 'object') return now.size;
        if (now === 'absent') return undefined;
        if (await forgetCopy(digest)) await store.delete(digest);
        return undefined;
      });
    },

    verify: (digest) =>
      mutex.run(digest, async () => {
        if (typeof (await look(digest)) !== 'object') return false;
        if ((await digestOfAll(store.open(digest), algorithmOf(digest))) === digest) return true;
        if (await forgetCopy(digest)) await store.delete(digest);
        return false;
      }),

    // Marked first: a process that dies in between leaves a row that says what was begun. What is marked before its
    // turn was left by one, and nobody has relied on its bytes since.
    delete: (digest) =>
      mutex.run(digest, async () => {
        const marked =
          (await isMarked(digest)) ||
          (await metadata.commit([{type: 'blob.deleting', digest}], [{type: 'blob.unlinked', digest}]));
        if (marked) await removeMarked(digest);
        return marked;
      }),

    deleteOrphan: (digest) => mutex.run(digest, () => removeUnrecorded(digest)),
  };
}
