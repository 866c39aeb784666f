import type {Digest} from '../oci/digest.ts';
import type {ByteRange} from '../oci/range.ts';
import type {Origin} from './metadata.ts';
import type {Spool} from './spool.ts';

export type {Origin};

/**
 * The store is missing: its disk is not mounted, or it is not the one that the metadata belong to. Nothing can be said
 * of any blob, least of all that it is lost. The message is for the operator.
 */
export class StoreMissing extends Error {
  override readonly name = 'StoreMissing';
}

/**
 * Whole, verified blobs, each named by its digest. What exists here is complete. Every method throws StoreMissing while
 * the store is missing, and works again as soon as it is back.
 */
export interface BlobStore {
  /** Resolves when the store is there; creates it where nothing has been stored yet. @throws StoreMissing */
  check(): Promise<void>;
  /**
   * As `check`, but quicker, where the store was there before: as far as the file system tells at once. Enough before
   * something is stored; nothing may be concluded from the absence of a blob. @throws StoreMissing
   */
  checkUnchanged(): Promise<void>;
  stat(digest: Digest): Promise<{size: number} | undefined>;
  /** Where the file of a stored blob is, for `BlobFiles`; undefined for a store without files. */
  pathOf(digest: Digest): string | undefined;
  /**
   * The bytes of a stored blob, or of a range within it. A chunk is valid until the next one is asked for: copy it to
   * keep it. The iteration throws when the blob is not here.
   */
  open(digest: Digest, range?: ByteRange): AsyncIterable<Uint8Array>;
  /** The same as the disk has them now, and not from memory: to see whether they are damaged. */
  inspect(digest: Digest): AsyncIterable<Uint8Array>;
  /** Makes a spool whose content was verified visible under its digest, durably, and uses the spool up. Idempotent. */
  publish(digest: Digest, spool: Spool): Promise<void>;
  /** Does nothing when the blob is not here. */
  delete(digest: Digest): Promise<void>;
  /**
   * Moves damaged bytes out of the store, for a person to look at: nothing serves or lists them any more. Readers at work
   * finish. Does nothing when the blob is not here.
   */
  setAside(digest: Digest, origin: Origin): Promise<void>;
  /**
   * Removes the copies (origin `upstream`) that were set aside before `before`, in milliseconds since the epoch. What was
   * pushed here is never removed.
   * @returns the number removed
   */
  expireSetAside(before: number): Promise<number>;
  /** What the damaged bytes that were set aside take up on the disk, in bytes. */
  bytesSetAside(): Promise<{[Of in Origin]: number}>;
  /**
   * Removes copies (origin `upstream`) that were set aside, oldest first, until so many bytes are free or none are left.
   * @returns the bytes that this made free
   */
  dropSetAside(bytes: number): Promise<number>;
  /** All stored blobs in the order of their digests, from the one after `after` on. */
  list(after?: Digest): AsyncIterable<ListedBlob>;
}

export interface ListedBlob {
  digest: Digest;
  /** Bytes. */
  size: number;
  /** When it was published, in milliseconds since the epoch by the clock of the disk. */
  storedAt: number;
}

/** Copies chunks that are valid one at a time into a buffer with room for them. @returns the part that they filled */
export async function collect(chunks: AsyncIterable<Uint8Array>, into: Buffer): Promise<Buffer> {
  let length = 0;
  for await (const chunk of chunks) {
    into.set(chunk, length);
    length += chunk.length;
  }
  return into.subarray(0, length);
}
