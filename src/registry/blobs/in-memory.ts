import {createLru} from '../../lru.ts';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {type BlobStore, collect} from '../../storage/blob-store.ts';
import {createSingleFlight} from '../keyed.ts';
import type {Memory} from '../memory.ts';
import type {BlobLifecycle} from './lifecycle.ts';

/** The stored blobs whose bytes are held in memory. */
export interface BlobsInMemory {
  held(digest: Digest): Buffer | undefined;
  /** Whether a blob is small enough to be held. @param size in bytes */
  mayHold(size: number): boolean;
  /**
   * Whether to hold the bytes of a stored blob in memory: a small blob at once, a larger one from the second call on, so
   * that blobs which are pulled once do not displace those which are pulled often.
   * @param size bytes
   */
  wants(digest: Digest, size: number): boolean;
  /**
   * Reads a blob, once for all who wait for it, and hashes it again before it stays in memory.
   * @param size bytes
   * @returns undefined when the disk has damaged it; then it has been set aside
   * @throws what the store says
   */
  load(digest: Digest, size: number): Promise<Buffer | undefined>;
}

export interface BlobsInMemoryParts {
  store: Pick<BlobStore, 'inspect'>;
  lifecycle: Pick<BlobLifecycle, 'check'>;
  memory: Pick<Memory, 'blob' | 'keepBlob' | 'maxBlobBytes'>;
}

/** Blobs of at most this many bytes are small: configs and the like. */
const SMALL_BYTES = 64 * 1024;
/** Larger ones are read from the store each time. They are sent in several writes, beside which another cost is small. */
const MAX_BYTES = 1024 * 1024;
/** How many blobs are known to have been asked for once. */
const MAX_SEEN = 10_000;

export function createBlobsInMemory({store, lifecycle, memory}: BlobsInMemoryParts): BlobsInMemory {
  const seen = createLru<Digest, true>(MAX_SEEN);
  const loads = createSingleFlight<Buffer | undefined>();

  async function load(digest: Digest, size: number): Promise<Buffer | undefined> {
    const bytes = await collect(store.inspect(digest), Buffer.allocUnsafeSlow(size));
    if (digestOf(bytes, algorithmOf(digest)) === digest) {
      memory.keepBlob(digest, bytes);
      return bytes;
    }
    await lifecycle.check(digest);
    return undefined;
  }

  const mayHold = (size: number): boolean =>
    size <= Math.max(SMALL_BYTES, Math.min(MAX_BYTES, memory.maxBlobBytes));

  return {
    held: (digest) => memory.blob(digest),
    mayHold,
    wants(digest, size) {
      if (size <= SMALL_BYTES) return true;
      if (!mayHold(size)) return false;
      const isSecond = seen.get(digest) !== undefined;
      seen.set(digest, true);
      return isSecond;
    },
    load: async (digest, size) => (await loads.run(digest, () => load(digest, size))).value,
  };
}
