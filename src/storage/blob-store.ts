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
  /**
   * The bytes of a stored blob, or of a range within it. A chunk is valid until the next one is asked for: who keeps
   * it copies it. The iteration throws when the blob is not here.
   */
  open(digest: Digest, range?: StoredRange): AsyncIterable<Uint8Array>;
  /** Makes a spool whose content was verified visible under its digest, durably, and uses the spool up. Idempotent. */
  publish(digest: Digest, spool: Spool): Promise<void>;
  /** Nothing happens when the blob is not here. */
  delete(digest: Digest): Promise<void>;
  /** All stored blobs in the order of their digests, from the one after `after` on. */
  list(after?: Digest): AsyncIterable<{digest: Digest; size: number}>;
}

/** Copies chunks that are valid one at a time into a buffer that has room for them; gives what they filled. */
export async function collect(chunks: AsyncIterable<Uint8Array>, into: Buffer): Promise<Buffer> {
  let length = 0;
  for await (const chunk of chunks) {
    into.set(chunk, length);
    length += chunk.length;
  }
  return into.subarray(0, length);
}
