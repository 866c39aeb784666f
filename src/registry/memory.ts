import {LRUCache} from 'lru-cache';
import type {Digest} from '../oci/digest.ts';
import {fullReference, type ManifestRecord, type RepositoryKey} from '../storage/metadata.ts';
import type {Generations} from './generations.ts';

/** Keeps in memory what is requested most: manifests as a repository links them, and the bytes of blobs. */
export interface Memory {
  manifest(repository: RepositoryKey, digest: Digest): ManifestRecord | undefined;
  keepManifest(repository: RepositoryKey, record: ManifestRecord): void;
  /** Call it when the repository is no longer linked to the manifest. */
  forgetManifest(repository: RepositoryKey, digest: Digest): void;
  /** The size of the largest blob that should be kept, in bytes: one alone must not displace most others. */
  readonly maxBlobBytes: number;
  blob(digest: Digest): Buffer | undefined;
  keepBlob(digest: Digest, bytes: Buffer): void;
  /** Call it when the stored bytes are bad. */
  forgetBlob(digest: Digest): void;
}

/** What an entry costs beside its content. */
const OVERHEAD_BYTES = 512;

/** A blob takes at most this share of what blobs may take. */
const MAX_BLOB_SHARE = 1 / 8;

/** How what `cache.memory` allows is shared: a quarter for answers that are ready to be given again. In bytes. */
export function shareMemory(bytes: number): {content: number; prepared: number} {
  const prepared = Math.floor(bytes / 4);
  return {content: bytes - prepared, prepared};
}

/** Learns of what is forgotten. */
type Ended = Pick<Generations, 'endRepository' | 'endBlob'>;
const NOBODY: Ended = {endRepository() {}, endBlob() {}};

/**
 * @param maxBytes to hold; the least recently used entries go first. 0 holds nothing
 * @param generations of a repository whose manifest is forgotten, and of a blob that is, end
 */
export function createMemory(maxBytes: number, generations: Ended = NOBODY): Memory {
  // A third for manifests: they are small, and every pull needs one.
  const manifests = createShare<ManifestRecord>(Math.floor(maxBytes / 3), (record) => record.bytes.length);
  // Of a blob that is not in memory any more, the store is asked again.
  const ended = (_bytes: Buffer, digest: string): void => generations.endBlob(digest as Digest);
  const blobBytes = Math.floor((maxBytes * 2) / 3);
  const blobs = createShare<Buffer>(blobBytes, (bytes) => bytes.length, ended);
  return {
    maxBlobBytes: Math.floor(blobBytes * MAX_BLOB_SHARE),
    manifest: (repository, digest) => manifests?.get(fullReference(repository, digest)),
    keepManifest: (repository, record) =>
      void manifests?.set(fullReference(repository, record.digest), record),
    forgetManifest(repository, digest) {
      manifests?.delete(fullReference(repository, digest));
      generations.endRepository(repository);
    },
    blob: (digest) => blobs?.get(digest),
    keepBlob: (digest, bytes) => void blobs?.set(digest, bytes),
    forgetBlob(digest) {
      blobs?.delete(digest);
      // It may be given from its file as well.
      generations.endBlob(digest);
    },
  };
}

function createShare<V extends object>(
  maxSize: number,
  sizeOf: (value: V) => number,
  dispose: (value: V, key: string) => void = () => {},
): LRUCache<string, V> | undefined {
  if (maxSize < OVERHEAD_BYTES) return undefined;
  return new LRUCache<string, V>({
    maxSize,
    sizeCalculation: (value) => sizeOf(value) + OVERHEAD_BYTES,
    dispose,
  });
}
