import type {Descriptor} from '../oci/descriptor.ts';
import type {Algorithm, Digest} from '../oci/digest.ts';
import type {Reference, RepositoryName, Tag} from '../oci/name.ts';
import type {Edge} from '../oci/referrers.ts';
import type {UploadId} from '../oci/upload.ts';

/** `upstream`: a copy, may be evicted. `local`: pushed here, never evicted. */
export type Origin = 'upstream' | 'local';

/** A repository as all layers name it: the configured registry and the name inside it. */
export interface RepositoryKey {
  registry: string;
  name: RepositoryName;
}

/** `registry/name`: the repository in one string, as the key of a map or of a shared question. */
export const fullName = ({registry, name}: RepositoryKey): string => `${registry}/${name}`;

/** `registry/name:tag` or `registry/name@digest`. */
export const fullReference = (repository: RepositoryKey, reference: Reference): string =>
  `${fullName(repository)}${reference.includes(':') ? '@' : ':'}${reference}`;

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

/** An upload under way. */
export interface UploadRecord {
  id: UploadId;
  repository: RepositoryKey;
  /** Of the digest to come, where the client said so at the beginning. */
  algorithm: Algorithm | undefined;
  /** The upstream's session that its bytes go to; undefined where they are kept here alone. */
  upstream: {location: string; offset: number; minChunk: number | undefined} | undefined;
  /** When the client was last heard of. */
  touchedAt: number;
}

/** A change of an upstream's fallback tag that is owed, or was made so lately that it may yet be lost in a race. */
export interface PendingTagChange {
  repository: RepositoryKey;
  subject: Digest;
  /** The referrer that the tag is to name, or to name no more. */
  digest: Digest;
  change: 'add' | 'remove';
  /** Grows with each change for the same referrer; names the entry. */
  at: number;
  /** Since when the tag is seen as it should be; undefined while it is not. */
  writtenAt: number | undefined;
}

/** Who holds something that one process at a time may do. */
export interface Lease {
  key: string;
  owner: string;
  /** Until when, in milliseconds since the epoch. */
  until: number;
}

/** A repository's link to a blob that no manifest of the repository names. */
export interface UnreferencedBlob {
  repository: RepositoryKey;
  digest: Digest;
  /** Bytes. */
  size: number;
}

/** What a manifest refers to, with the size that its descriptor names. */
export interface ReferenceRecord {
  digest: Digest;
  size: number;
  /** `foreign`: a blob that is kept while it is here, and that nobody misses when it is not. */
  kind: 'blob' | 'foreign' | 'manifest';
}

/** Where an upstream's list of referrers came from: its Referrers API, or the fallback tag. */
export type ListSource = 'api' | 'tag';

/** What is known of the referrers of one subject as a whole. */
export interface ReferrerListRecord {
  /** Grows with every change of the subject's rows and of `checkedAt`. */
  version: number;
  /** The version of the last change or removal of a row, 0 for none: all changes since then are rows added at the end. */
  amended: number;
  /** When the upstream last gave a complete answer; undefined while it has given none. */
  checkedAt: number | undefined;
  /** Of that answer. */
  source: ListSource | undefined;
}

export interface ReferrerRecord {
  /** The row's place among those of its subject, from 1 on: later ones came later. Never given twice. */
  seq: number;
  digest: Digest;
  /** undefined: missing or empty. */
  artifactType: string | undefined;
  /** JSON text. */
  descriptor: string;
  /** `content`: the descriptor was built from the manifest's own bytes; else it is the upstream's word. */
  source: 'content' | ListSource;
  /** The upstream's last complete answer names it. */
  listed: boolean;
}

/** The descriptors of a page of referrers, as text. */
export interface ReferrerText {
  readonly count: number;
  /** The `seq` of the last one; undefined where there is none. */
  readonly last: number | undefined;
  /**
   * Their JSON, with commas between them. undefined where one of several is larger than 64 KiB: who writes them decides
   * how large they are, so such ones are to be asked for in fewer, and in the end alone.
   */
  readonly text: Buffer | undefined;
}

/** Which of a subject's referrers are read. */
export interface ReferrerPage {
  /** Those of any of these types; the empty string stands for a missing one. Without it, all. */
  types?: readonly string[];
  /** The `seq` that the page begins behind. */
  after?: number;
  limit: number;
}

/** Where a walk over all manifests stands: a number above 0 that grows along the way. */
export type ManifestCursor = number;

/** Where a walk over all referrers stands; to be handed back as it is. */
export interface ReferrerCursor {
  readonly repository: number;
  readonly subject: Digest;
  readonly seq: number;
}

/** A referrer as the walk over all of them gives it. */
export interface ReferrerRow extends Pick<ReferrerRecord, 'digest' | 'source'> {
  repository: RepositoryKey;
  subject: Digest;
  cursor: ReferrerCursor;
}

/** A manifest as the walk over all of them gives it: once for each repository that is linked to it. */
export interface LinkedManifest {
  repository: RepositoryKey;
  digest: Digest;
  mediaType: string;
  bytes: Buffer;
  cursor: ManifestCursor;
}

/** One thing that a commit makes true. A repository's row is created by the first change that puts something into it. */
export type Change =
  | {
      type: 'manifest.put';
      repository: RepositoryKey;
      digest: Digest;
      mediaType: string;
      bytes: Uint8Array;
      /** What `edgeOf` gives for these bytes under this media type. */
      edge: Edge | undefined;
      references: ReferenceRecord[];
      origin: Origin;
      at: number;
      /** Made here from what others say, and to be collected from then on; a link that lasts keeps lasting. */
      expiresAt?: number;
    }
  /** Links a manifest whose bytes are already here to a further repository. */
  | {
      type: 'manifest.link';
      repository: RepositoryKey;
      digest: Digest;
      mediaType: string;
      edge: Edge | undefined;
      origin: Origin;
      at: number;
    }
  /** Removes the repository's copy: its link and its tags on it of origin `upstream`, and, if no link stays, its edge. */
  | {type: 'manifest.unlink'; repository: RepositoryKey; digest: Digest}
  /** Removes the repository's link whatever its origin, every tag on it, and its edge. The bytes stay until collected. */
  | {type: 'manifest.delete'; repository: RepositoryKey; digest: Digest}
  /** Removes the bytes and references of a manifest that no repository is linked to; nothing happens otherwise. */
  | {type: 'manifest.collect'; digest: Digest}
  /**
   * A complete answer of the upstream at `at`. What it names and is not here yet is added in its order behind what is
   * here; the rest of what it names stays in its place, listed, with the new descriptor unless it is of source
   * `content`. What it does not name goes, or, if of source `content`, is no longer listed. Of a digest that it names
   * twice, the first descriptor counts.
   *
   * Without `at`, the answer is incomplete: when the upstream last gave a complete one, and its source, stay as they
   * were. What it names and gives no descriptor for stands in `except`, and stays as it is.
   */
  | {
      type: 'referrer-list.put';
      repository: RepositoryKey;
      subject: Digest;
      source: ListSource;
      descriptors: readonly Descriptor[];
      at: number | undefined;
      except?: readonly Digest[];
    }
  /**
   * The edge of a manifest that is linked to this repository; nothing happens when it is not. For rebuilding: a list
   * whose own row is lost or behind is mended.
   */
  | {type: 'referrer.put'; repository: RepositoryKey; edge: Edge; at: number}
  | {type: 'referrer.delete'; repository: RepositoryKey; subject: Digest; digest: Digest}
  /** The tag points at this digest, checked at `at`; clears `goneAt`. */
  | {type: 'tag.put'; repository: RepositoryKey; name: Tag; digest: Digest; origin: Origin; at: number}
  /** The upstream said at `at` that the tag is gone; the first such time is kept, unless it lies after `at`. */
  | {type: 'tag.gone'; repository: RepositoryKey; name: Tag; at: number}
  /** Removes the tag of this origin. */
  | {type: 'tag.delete'; repository: RepositoryKey; name: Tag; origin: Origin}
  | {type: 'tag-list.put'; repository: RepositoryKey; names: string[]; at: number}
  /** The upstream has no such repository. */
  | {type: 'tag-list.delete'; repository: RepositoryKey}
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
  /** The bytes are about to be removed from the blob store. */
  | {type: 'blob.deleting'; digest: Digest}
  /** The blob store has this marker from now on. */
  | {type: 'blob-store.put'; id: string}
  | {type: 'upload.put'; upload: UploadRecord}
  | {type: 'upload.delete'; id: UploadId}
  /** Takes the place of an older entry for the same referrer of the same subject. */
  | {type: 'tag-journal.put'; entry: PendingTagChange}
  /** Nothing happens when a newer entry, of another `at`, has taken its place. */
  | {type: 'tag-journal.written'; entry: PendingTagChange; writtenAt: number | undefined}
  | {type: 'tag-journal.delete'; entry: PendingTagChange}
  | {type: 'lease.put'; lease: Lease}
  /** Nothing happens when somebody else holds it. */
  | {type: 'lease.delete'; key: string; owner: string};

/** When the question was asked whose answer is committed, and when that is. Milliseconds since the epoch. */
export interface Asked {
  askedAt: number;
  now: number;
}

/** What must hold inside the commit for any of its changes to be made. */
export type Precondition =
  /**
   * No later answer of the upstream is known for the tag, the list of tags or the list of referrers: none to a question
   * asked after `askedAt`. A time after `now`, as a clock leaves behind that was set back, does not count.
   */
  | ({type: 'tag.latest'; repository: RepositoryKey; name: Tag} & Asked)
  | ({type: 'tag-list.latest'; repository: RepositoryKey} & Asked)
  | ({type: 'referrer-list.latest'; repository: RepositoryKey; subject: Digest} & Asked)
  | {type: 'tag.is'; repository: RepositoryKey; name: Tag; origin: Origin; digest: Digest | undefined}
  | {type: 'manifest.linked'; repository: RepositoryKey; digest: Digest}
  /** The bytes are here: what no repository is linked to may have been collected since it was found. */
  | {type: 'manifest.stored'; digest: Digest}
  /** The repository is linked to the blob, and its bytes are here and stay. */
  | {type: 'blob.held'; repository: RepositoryKey; digest: Digest}
  /** The repository's link is older than `before`, and no manifest that the repository is linked to names the blob. */
  | {type: 'blob.unreferenced'; repository: RepositoryKey; digest: Digest; before: number}
  /** No repository is linked to the blob. */
  | {type: 'blob.unlinked'; digest: Digest}
  /** No repository has a link of origin `local` to the blob. */
  | {type: 'blob.evictable'; digest: Digest}
  /**
   * Nobody else holds the lease at `at`. One that ends more than `maxLifeMs` after that was taken by a clock that ran
   * ahead, and is nobody's.
   */
  | {type: 'lease.free'; key: string; owner: string; at: number; maxLifeMs: number}
  /** The lease is this owner's: nobody has taken it over, even if it has lapsed. */
  | {type: 'lease.held'; key: string; owner: string};

/** A commit found the disk full: nothing of it was made, and it can be tried again when there is room. */
export class DiskFull extends Error {
  override readonly name = 'DiskFull';
}

/**
 * What is known of repositories, manifests, tags and blobs. Reads see every commit that has resolved. There are
 * no interactive transactions: what belongs together is one commit.
 */
/** A part of all blobs. */
export interface BlobBytes {
  bytes: number;
  /** Where the next part begins; undefined when this one is empty. */
  last: Digest | undefined;
}

export interface Metadata {
  /** Names of one registry's repositories in byte order, those after `after`, at most `limit`. */
  repositories(registry: string, page: {after?: string; limit: number}): Promise<RepositoryName[]>;
  /** Whether anything is, or was, put into this repository. */
  hasRepository(repository: RepositoryKey): Promise<boolean>;
  /** The manifest, if this repository is linked to it. */
  manifest(repository: RepositoryKey, digest: Digest): Promise<ManifestRecord | undefined>;
  /** The bytes and a media type that some repository links them with; for the confirmation of a further one. */
  storedManifest(digest: Digest): Promise<{mediaType: string; bytes: Buffer} | undefined>;
  /** Every link of every stored manifest, oldest first, from the one after `after` on. */
  manifests(after: ManifestCursor | undefined, limit: number): Promise<LinkedManifest[]>;
  /** Where the walk over all manifests ends for now; undefined while there are none. */
  lastManifest(): Promise<ManifestCursor | undefined>;
  /** What a stored manifest refers to, in its own order. */
  references(manifest: Digest): Promise<ReferenceRecord[]>;
  /** The size that a manifest linked to this repository names for a blob. */
  promisedSize(repository: RepositoryKey, blob: Digest): Promise<number | undefined>;
  /** There from the subject's first edge, or the upstream's first complete answer, on. */
  referrerList(repository: RepositoryKey, subject: Digest): Promise<ReferrerListRecord | undefined>;
  /** In the order of `seq`. A page of some types reads only the rows that it gives. */
  referrers(repository: RepositoryKey, subject: Digest, page: ReferrerPage): Promise<ReferrerRecord[]>;
  /** As `referrers`, of each only what a list shows, in one piece: ten thousand take a third of the time. */
  referrerText(repository: RepositoryKey, subject: Digest, page: ReferrerPage): Promise<ReferrerText>;
  /** Those that the upstream's last complete answer lacks, in the order of `seq`. */
  unlistedReferrers(repository: RepositoryKey, subject: Digest, limit: number): Promise<Digest[]>;
  /** Every referrer of every subject, in the order of their cursors, from the one after `after` on. */
  referrerRows(after: ReferrerCursor | undefined, limit: number): Promise<ReferrerRow[]>;
  /** The subjects that begin with `prefix` and have a list here, be it an empty one, in byte order. */
  referrerSubjects(repository: RepositoryKey, prefix: string): Promise<Digest[]>;
  /** The local tag where there is one, else the upstream's. */
  tag(repository: RepositoryKey, name: Tag): Promise<TagRecord | undefined>;
  tagList(repository: RepositoryKey): Promise<TagListRecord | undefined>;
  /** The names of the repository's tags of origin `local` in byte order, those after `after`. */
  localTags(repository: RepositoryKey, page: {after?: string; limit: number}): Promise<Tag[]>;
  blob(digest: Digest): Promise<BlobRecord | undefined>;
  blobLink(repository: RepositoryKey, digest: Digest): Promise<BlobLink | undefined>;
  /** The bytes of the blobs after `after`, in the order of their digests, at most `limit` of them. */
  blobBytes(after: Digest | undefined, limit: number): Promise<BlobBytes>;
  /** A repository of this registry that is linked to the blob, the bytes being here. */
  blobHolder(registry: string, digest: Digest): Promise<RepositoryName | undefined>;
  blobStore(): Promise<BlobStoreRecord>;
  upload(id: UploadId): Promise<UploadRecord | undefined>;
  /** Uploads that were last touched before `before`, oldest first. */
  idleUploads(before: number, limit: number): Promise<UploadRecord[]>;
  /** What is owed to one subject's fallback tag, oldest first. */
  tagJournal(repository: RepositoryKey, subject: Digest): Promise<PendingTagChange[]>;
  /**
   * The entries of the journal, those of one subject together, from the one after `after` on, which need not be there
   * any more. The order is the same at each call.
   */
  pendingTagChanges(
    after: Pick<PendingTagChange, 'repository' | 'subject' | 'digest'> | undefined,
    limit: number,
  ): Promise<PendingTagChange[]>;
  /** Local links of before `before` to blobs that no manifest of the same repository names. */
  unreferencedBlobs(before: number, limit: number): Promise<UnreferencedBlob[]>;
  /** Blobs stored before `before` that no repository is linked to, and blobs whose deletion was begun. */
  uncollectedBlobs(before: number, limit: number): Promise<BlobRecord[]>;
  /** Manifests that no repository is linked to. */
  uncollectedManifests(limit: number): Promise<{digest: Digest; size: number}[]>;
  /** Links of origin `upstream` whose time was over before `before`. */
  expiredManifests(before: number, limit: number): Promise<{repository: RepositoryKey; digest: Digest}[]>;
  /**
   * Makes all changes or none. Resolves when they are committed: durably (across a power cut) when one of them has
   * the origin `local`, or is a `manifest.delete`, `blob.unlink` or `tag-journal.put`; otherwise across a crash of the
   * process.
   * @returns false, with nothing changed, when a precondition does not hold, or a blob that a change stores or keeps is
   * being deleted.
   * @throws DiskFull, with nothing changed, when the disk is full.
   */
  commit(changes: readonly Change[], preconditions?: readonly Precondition[]): Promise<boolean>;
  close(): Promise<void>;
}
