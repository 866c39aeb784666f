import type {Digest} from '../oci/digest.ts';
import type {RepositoryName, Tag} from '../oci/name.ts';

/** `upstream`: a copy, may be evicted. `local`: pushed here, never evicted. */
export type Origin = 'upstream' | 'local';

/** A repository as all layers name it: the configured registry and the name inside it. */
export interface RepositoryKey {
  registry: string;
  name: RepositoryName;
}

/** A manifest as one repository holds it: the link's media type with the shared bytes. Times in ms since the epoch. */
export interface ManifestRecord {
  digest: Digest;
  mediaType: string;
  bytes: Buffer;
  origin: Origin;
  linkedAt: number;
}

export interface TagRecord {
  name: Tag;
  digest: Digest;
  origin: Origin;
  /** When the upstream was last asked successfully. */
  checkedAt: number;
  /** When the upstream first said that the tag is gone; undefined while it exists there. */
  goneAt: number | undefined;
}

export interface TagListRecord {
  /** As the upstream gave them, deduplicated and sorted by bytes. */
  names: string[];
  checkedAt: number;
}

export interface BlobRecord {
  digest: Digest;
  size: number;
  state: 'ready' | 'deleting';
  storedAt: number;
}

/** A repository's permission for a blob; outlives the bytes. */
export interface BlobLink {
  digest: Digest;
  size: number;
  origin: Origin;
  linkedAt: number;
}

/** What a manifest refers to, with the size that its descriptor names. */
export interface ReferenceRecord {
  digest: Digest;
  size: number;
  kind: 'blob' | 'manifest';
}

/** One thing that a commit makes true. A repository's row is created by the first change that puts something into it. */
export type Change =
  | {
      type: 'manifest.put';
      repository: RepositoryKey;
      digest: Digest;
      mediaType: string;
      bytes: Uint8Array;
      subject: Digest | undefined;
      references: ReferenceRecord[];
      origin: Origin;
      at: number;
    }
  /** Links a manifest whose bytes are already here to a further repository. */
  | {
      type: 'manifest.link';
      repository: RepositoryKey;
      digest: Digest;
      mediaType: string;
      origin: Origin;
      at: number;
    }
  /** The tag points at this digest, checked at `at`; clears `goneAt`. */
  | {type: 'tag.put'; repository: RepositoryKey; name: Tag; digest: Digest; origin: Origin; at: number}
  /** The upstream said at `at` that the tag is gone; the first such time is kept. */
  | {type: 'tag.gone'; repository: RepositoryKey; name: Tag; at: number}
  /** Removes the tag of this origin. */
  | {type: 'tag.delete'; repository: RepositoryKey; name: Tag; origin: Origin}
  | {type: 'tag-list.put'; repository: RepositoryKey; names: string[]; at: number}
  /** The bytes are whole and safe in the blob store. */
  | {type: 'blob.put'; digest: Digest; size: number; at: number}
  /** The bytes are no longer in the blob store; links stay. */
  | {type: 'blob.delete'; digest: Digest}
  | {type: 'blob.link'; repository: RepositoryKey; digest: Digest; size: number; origin: Origin; at: number};

/** What must hold inside the commit for any of its changes to be made. */
export type Precondition =
  | {type: 'tag.is'; repository: RepositoryKey; name: Tag; origin: Origin; digest: Digest | undefined}
  | {type: 'manifest.linked'; repository: RepositoryKey; digest: Digest};

/**
 * What is known of repositories, manifests, tags and blobs. Reads see every commit that has resolved. There are
 * no interactive transactions: what belongs together is one commit.
 */
export interface Metadata {
  /** Names of one registry's repositories in byte order, those after `after`, at most `limit`. */
  repositories(registry: string, page: {after?: string; limit: number}): Promise<RepositoryName[]>;
  /** The manifest, if this repository is linked to it. */
  manifest(repository: RepositoryKey, digest: Digest): Promise<ManifestRecord | undefined>;
  /** The bytes' size and a media type that some repository links them with; for the confirmation of a further one. */
  storedManifest(digest: Digest): Promise<{size: number; mediaType: string} | undefined>;
  /** What a stored manifest refers to, in its own order. */
  references(manifest: Digest): Promise<ReferenceRecord[]>;
  /** The size that a manifest linked to this repository names for a blob. */
  promisedSize(repository: RepositoryKey, blob: Digest): Promise<number | undefined>;
  /** The local tag where there is one, else the upstream's. */
  tag(repository: RepositoryKey, name: Tag): Promise<TagRecord | undefined>;
  tagList(repository: RepositoryKey): Promise<TagListRecord | undefined>;
  blob(digest: Digest): Promise<BlobRecord | undefined>;
  blobLink(repository: RepositoryKey, digest: Digest): Promise<BlobLink | undefined>;
  /**
   * Makes all changes or none. Resolves when they are committed: durably (across a power cut) when one of them has
   * the origin `local`, otherwise across a crash of the process.
   * @returns false, with nothing changed, when a precondition does not hold.
   */
  commit(changes: readonly Change[], preconditions?: readonly Precondition[]): Promise<boolean>;
  close(): Promise<void>;
}
