import {LRUCache} from 'lru-cache';
import type {Digest} from '../oci/digest.ts';
import type {ManifestRecord, RepositoryKey} from '../storage/metadata.ts';

/** What is asked for most, in memory: manifests as a repository links them, and the bytes of small blobs. */
export interface Memory {
  manifest(repository: RepositoryKey, digest: Digest): ManifestRecord | undefined;
  keepManifest(repository: RepositoryKey, record: ManifestRecord): void;
  /** The repository is no longer linked to it. */
  forgetManifest(repository: RepositoryKey, digest: Digest): void;
  blob(digest: Digest): Buffer | undefined;
  keepBlob(digest: Digest, bytes: Buffer): void;
}

/** Bytes that an entry costs beside its content. */
const OVERHEAD = 512;

/** Takes the most bytes to hold; the least recently used go first. 0 holds nothing. */
export function createMemory(maxBytes: number): Memory {
  // A third for manifests: they are small, and every pull needs one.
  const manifests = createShare<ManifestRecord>(Math.floor(maxBytes / 3), (record) => record.bytes.length);
  const blobs = createShare<Buffer>(Math.floor((maxBytes * 2) / 3), (bytes) => bytes.length);
  const keyOf = (repository: RepositoryKey, digest: Digest) =>
    `${repository.registry}/${repository.name}@${digest}`;
  return {
    manifest: (repository, digest) => manifests?.get(keyOf(repository, digest)),
    keepManifest: (repository, record) => void manifests?.set(keyOf(repository, record.digest), record),
    forgetManifest: (repository, digest) => void manifests?.delete(keyOf(repository, digest)),
    blob: (digest) => blobs?.get(digest),
    keepBlob: (digest, bytes) => void blobs?.set(digest, bytes),
  };
}

function createShare<V extends object>(
  maxSize: number,
  sizeOf: (value: V) => number,
): LRUCache<string, V> | undefined {
  if (maxSize < OVERHEAD) return undefined;
  return new LRUCache<string, V>({maxSize, sizeCalculation: (value) => sizeOf(value) + OVERHEAD});
}
