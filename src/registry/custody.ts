import type {Clock} from '../clock.ts';
import type {Digest} from '../oci/digest.ts';
import type {BlobStore} from '../storage/blob-store.ts';
import type {Change, Metadata} from '../storage/metadata.ts';
import type {Spool} from '../storage/spool.ts';
import {createTurns} from './turns.ts';

/** Blobs' bytes and their rows, changed together: what is being stored is not removed meanwhile. */
export interface Custody {
  /**
   * Makes the content of a verified spool a stored blob, durably, and commits its row together with `also`.
   * @throws what the disk or the metadata said; the spool is the caller's to discard then
   */
  keep(digest: Digest, spool: Spool, also?: readonly Change[]): Promise<void>;
  /**
   * Commits `changes` that rely on a blob's bytes, links to it above all, while nobody removes them.
   * @returns false, with nothing changed, when the bytes are not here
   */
  rely(digest: Digest, changes: readonly Change[]): Promise<boolean>;
  /** Removes a blob's bytes unless a repository is linked to it; tells whether it did. */
  remove(digest: Digest): Promise<boolean>;
}

export interface CustodyParts {
  store: BlobStore;
  metadata: Metadata;
  clock: Clock;
}

export function createCustody({store, metadata, clock}: CustodyParts): Custody {
  const turns = createTurns();
  return {
    keep: (digest, spool, also = []) =>
      turns.take(digest, async () => {
        await store.publish(digest, spool);
        // Only now all of it: what was appended last may have waited for the disk.
        const {size} = spool;
        await metadata.commit([{type: 'blob.put', digest, size, at: clock.now()}, ...also]);
      }),

    rely: (digest, changes) =>
      turns.take(digest, async () => {
        const record = await metadata.blob(digest);
        if (record?.state !== 'ready') return false;
        // A disk that lost them is given them anew by who has them.
        const isThere = (await store.stat(digest))?.size === record.size;
        return isThere && metadata.commit(changes);
      }),

    // Marked first: a process that dies in between leaves a row that says what was begun. What is marked before its
    // turn was left by one, and nobody has relied on its bytes since.
    remove: (digest) =>
      turns.take(digest, async () => {
        const begun = (await metadata.blob(digest))?.state === 'deleting';
        const marked =
          begun ||
          (await metadata.commit([{type: 'blob.deleting', digest}], [{type: 'blob.unlinked', digest}]));
        if (!marked) return false;
        await store.delete(digest);
        await metadata.commit([{type: 'blob.delete', digest}]);
        return true;
      }),
  };
}
