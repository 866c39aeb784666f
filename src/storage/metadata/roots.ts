import type {Digest} from '../../oci/digest.ts';
import type {Reference, RepositoryName, Tag} from '../../oci/name.ts';
import type {Origin, RepositoryKey} from './repositories.ts';

/** A repository's link to a manifest, with what eviction knows of it. Times in milliseconds since the epoch. */
export interface LinkRow {
  /** The place in the walk: a number above 0 that grows along the way. */
  cursor: number;
  repository: RepositoryKey;
  digest: Digest;
  /** Of the manifest itself, in bytes. */
  size: number;
  origin: Origin;
  linkedAt: number;
  lastAccess: number;
  /** How often it was served, uses within one minute counted once. */
  uses: number;
  /** The cache's age when it was last used. */
  age: number;
  /** Of a list that was synthesized here; undefined for a link that lasts. */
  expiresAt: number | undefined;
}

/** That a stored manifest names something. */
export interface ReferenceRow {
  manifest: Digest;
  child: Digest;
  /** `blob` also for foreign ones. */
  kind: 'blob' | 'manifest';
}

/** A position in the walk over all references; opaque to callers. */
export interface ReferenceCursor {
  readonly manifest: number;
  readonly position: number;
}

export interface TagRow {
  repository: RepositoryKey;
  name: Tag;
  digest: Digest;
  origin: Origin;
}

/** A position in the walk over all tags; opaque to callers. */
export interface TagCursor {
  readonly repository: number;
  readonly name: Tag;
  readonly origin: Origin;
}

/** That a linked manifest has a subject. */
export interface EdgeRow {
  repository: RepositoryKey;
  subject: Digest;
  digest: Digest;
}

/** A position in the walk over the local links to blobs; opaque to callers. */
export interface BlobLinkCursor {
  readonly digest: Digest;
  readonly repository: number;
}

/** An image that an operator keeps from being evicted. */
export interface Pin {
  registry: string;
  name: RepositoryName;
  reference: Reference;
  /** Since when: milliseconds since the epoch. */
  at: number;
}

export type PinChange =
  /** An existing pin keeps its time. */
  {type: 'pin.put'; pin: Pin} | {type: 'pin.delete'; pin: Omit<Pin, 'at'>};

/** The cache's age rises to this; it never falls. */
export type CacheAgeChange = {type: 'cache-age.put'; age: number};

/**
 * What eviction reads, in pages that go on behind a cursor. Pages belong together only where they are read from one
 * snapshot.
 */
export interface RootReads {
  /** Every link to a manifest, oldest first. */
  links(after: number | undefined, limit: number): Promise<LinkRow[]>;
  /** Every reference of every stored manifest, those of one manifest together and in its order. */
  allReferences(
    after: ReferenceCursor | undefined,
    limit: number,
  ): Promise<(ReferenceRow & {cursor: ReferenceCursor})[]>;
  allTags(after: TagCursor | undefined, limit: number): Promise<(TagRow & {cursor: TagCursor})[]>;
  /** The links of origin `local` to blobs, in the order of the digests: one for each repository. */
  localBlobLinks(
    after: BlobLinkCursor | undefined,
    limit: number,
  ): Promise<{digest: Digest; cursor: BlobLinkCursor}[]>;
  /** The subject that a linked manifest names itself, if it does; that need not be linked. */
  ownSubjects(repository: RepositoryKey, digest: Digest): Promise<Digest[]>;
  /** In the order of their names. */
  pins(): Promise<Pin[]>;
  /** The value of what was evicted last for its value (GreedyDual's L); 0 at first. */
  cacheAge(): Promise<number>;
}
