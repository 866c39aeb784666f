import type {Digest} from '../oci/digest.ts';
import type {Spool} from './spool.ts';

/** Bytes `start` to `end`, both inclusive. */
export interface StoredRange {
  start: number;
  end: number;
}

/** Whole, verified blobs, each named by its digest. What exists here is complete. */
export interface BlobStore {
  stat(digest: Digest): Promise<{size: number} | undefined>;
  /** The bytes of a stored blob, or of a range within it. The iteration throws when the blob is not here. */
  open(digest: Digest, range?: StoredRange): AsyncIterable<Uint8Array>;
  /** Makes a spool whose content was verified visible under its digest, durably, and uses the spool up. Idempotent. */
  publish(digest: Digest, spool: Spool): Promise<void>;
  /** Nothing happens when the blob is not here. */
  delete(digest: Digest): Promise<void>;
  /** All stored blobs in the order of their digests, from the one after `after` on. */
  list(after?: Digest): AsyncIterable<{digest: Digest; size: number}>;
}
