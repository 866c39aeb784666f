import type {Digest} from '../../oci/digest.ts';
import type {RepositoryName} from '../../oci/name.ts';
import type {Origin, RepositoryKey} from './repositories.ts';

export interface BlobRecord {
  digest: Digest;
  size: number;
  state: 'ready' | 'deleting';
  storedAt: number;
}

/** What is known of the blob store as a whole. */
export interface BlobStoreRecord {
  /** What its marker says; undefined until the store has been given one. */
  id: string | undefined;
  /** A blob was stored there and has not been removed. */
  hasBlobs: boolean;
}

/** A repository's permission for a blob; outlives the bytes. */
export interface BlobLink {
  digest: Digest;
  size: number;
  origin: Origin;
  linkedAt: number;
}

/** A repository's link to a blob that no manifest of the repository names. */
export interface UnreferencedBlob {
  repository: RepositoryKey;
  digest: Digest;
  /** Bytes. */
  size: number;
}

/** The total size of some of the blobs. */
export interface BlobBytes {
  bytes: number;
  /** The last one counted, behind which to go on; undefined when there were none. */
  last: Digest | undefined;
}

/** A position in the walk over the links of origin `upstream`; opaque to callers. */
export interface CopiedBlobCursor {
  readonly linkedAt: number;
  readonly digest: Digest;
  readonly repository: number;
}

/** A link of origin `upstream`, as the walk over them gives it. */
export interface CopiedBlobLink {
  repository: RepositoryKey;
  digest: Digest;
  linkedAt: number;
  /** The bytes are here, or are being deleted. */
  isStored: boolean;
  cursor: CopiedBlobCursor;
}

export type BlobChange =
  /** The bytes are whole and safe in the blob store. The commit changes nothing while the blob is being deleted. */
  | {type: 'blob.put'; digest: Digest; size: number; at: number}
  /** The bytes are no longer in the blob store; links stay. */
  | {type: 'blob.delete'; digest: Digest}
  /**
   * A link of origin `local` keeps the bytes, so with one the commit changes nothing while the blob is being deleted; a
   * link of origin `upstream` is a permission and outlives them.
   */
  | {type: 'blob.link'; repository: RepositoryKey; digest: Digest; size: number; origin: Origin; at: number}
  /** Removes the repository's permission for the blob. */
  | {type: 'blob.unlink'; repository: RepositoryKey; digest: Digest}
  /**
   * Removes a link of origin `upstream` to a blob that is not stored, if it is from before `linkedBefore`; if a manifest
   * that the repository is linked to names the blob, from before `namedBefore`.
   */
  | {
      type: 'blob.forget';
      repository: RepositoryKey;
      digest: Digest;
      linkedBefore: number;
      namedBefore: number;
    }
  /** The bytes are about to be removed from the blob store. */
  | {type: 'blob.deleting'; digest: Digest}
  /** The blob store has this marker from now on. */
  | {type: 'blob-store.put'; id: string};

export type BlobPrecondition =
  /** The repository is linked to the blob, whose bytes are here and not being deleted. */
  | {type: 'blob.held'; repository: RepositoryKey; digest: Digest}
  /** The repository's link is older than `before`, and no manifest that the repository is linked to names the blob. */
  | {type: 'blob.unreferenced'; repository: RepositoryKey; digest: Digest; before: number}
  /** No repository is linked to the blob. */
  | {type: 'blob.unlinked'; digest: Digest}
  /** No repository has a link of origin `local` to the blob. */
  | {type: 'blob.evictable'; digest: Digest}
  /** The same, and no stored manifest of whatever repository names the blob. */
  | {type: 'blob.unneeded'; digest: Digest};

export interface BlobReads {
  blob(digest: Digest): Promise<BlobRecord | undefined>;
  blobLink(repository: RepositoryKey, digest: Digest): Promise<BlobLink | undefined>;
  /** The blobs after `after`, in the order of their digests, at most `limit` of them. */
  blobs(after: Digest | undefined, limit: number): Promise<BlobRecord[]>;
  /** The total size of the blobs after `after`, in the order of their digests, at most `limit` of them. */
  blobBytes(after: Digest | undefined, limit: number): Promise<BlobBytes>;
  /** The total size of the blobs that the repository has links of origin `local` to. */
  localBlobBytes(repository: RepositoryKey): Promise<number>;
  /** Repositories of this registry that are linked to the blob, if its bytes are here; at most `limit` of them. */
  blobHolders(registry: string, digest: Digest, limit: number): Promise<RepositoryName[]>;
  /** Every link of origin `upstream`, oldest first, from the one after `after` on. */
  copiedBlobLinks(after: CopiedBlobCursor | undefined, limit: number): Promise<CopiedBlobLink[]>;
  blobStore(): Promise<BlobStoreRecord>;
  /** The size that a manifest linked to this repository names for a blob. */
  promisedSize(repository: RepositoryKey, blob: Digest): Promise<number | undefined>;
  /** Local links from before `before` to blobs that no manifest of the same repository names. */
  unreferencedBlobs(before: number, limit: number): Promise<UnreferencedBlob[]>;
  /** Blobs stored before `before` that no repository is linked to, and blobs whose deletion has begun. */
  uncollectedBlobs(before: number, limit: number): Promise<BlobRecord[]>;
}
