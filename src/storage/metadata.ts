import type {BlobChange, BlobPrecondition, BlobReads} from './metadata/blobs.ts';
import type {JournalChange, JournalReads, LeaseChange, LeasePrecondition} from './metadata/journal.ts';
import type {ManifestChange, ManifestPrecondition, ManifestReads} from './metadata/manifests.ts';
import type {PullChange, PullReads} from './metadata/pulls.ts';
import type {ReferrerChange, ReferrerPrecondition, ReferrerReads} from './metadata/referrers.ts';
import type {RepositoryReads} from './metadata/repositories.ts';
import type {RobotChange, RobotReads} from './metadata/robots.ts';
import type {CacheAgeChange, PinChange, RootReads} from './metadata/roots.ts';
import type {TagChange, TagPrecondition, TagReads} from './metadata/tags.ts';
import type {UploadChange, UploadReads} from './metadata/uploads.ts';

export type {
  BlobLink,
  BlobReads,
  BlobRecord,
  CopiedBlobCursor,
  CopiedBlobLink,
} from './metadata/blobs.ts';
export type {JournalReads, PendingTagChange} from './metadata/journal.ts';
export type {
  LinkedManifest,
  ManifestCursor,
  ManifestReads,
  ManifestRecord,
  ReferenceRecord,
} from './metadata/manifests.ts';
export type {PullReads, PullRecord} from './metadata/pulls.ts';
export type {
  ListSource,
  ReferrerCursor,
  ReferrerPageQuery,
  ReferrerReads,
  ReferrerRecord,
  ReferrerRow,
  ReferrerText,
} from './metadata/referrers.ts';
export {
  type AskTimes,
  fullName,
  fullReference,
  type Origin,
  type RepositoryKey,
  type RepositoryReads,
} from './metadata/repositories.ts';
export type {RobotReads, RobotRecord} from './metadata/robots.ts';
export type {
  BlobLinkCursor,
  EdgeRow,
  LinkRow,
  Pin,
  ReferenceCursor,
  ReferenceRow,
  RootReads,
  TagCursor,
  TagRow,
} from './metadata/roots.ts';
export type {TagListRecord, TagReads, TagRecord} from './metadata/tags.ts';
export type {UploadReads, UploadRecord} from './metadata/uploads.ts';

/** One thing that a commit makes true. A repository's row is created by the first change that puts something into it. */
export type Change =
  | ManifestChange
  | ReferrerChange
  | TagChange
  | BlobChange
  | UploadChange
  | JournalChange
  | LeaseChange
  | PinChange
  | PullChange
  | RobotChange
  | CacheAgeChange;

/** What must hold inside the commit for any of its changes to be made. */
export type Precondition =
  | ManifestPrecondition
  | ReferrerPrecondition
  | TagPrecondition
  | BlobPrecondition
  | LeasePrecondition;

/**
 * Why a disk takes nothing. `failing`: the database does not say whether the disk is full, a quota is used up, or the disk
 * fails.
 */
export type DiskProblem = 'full' | 'read-only' | 'failing';

/** The disk did not take a commit: nothing of it was made, and it can be tried again when there is room. */
export class DiskFull extends Error {
  override readonly name = 'DiskFull';
  readonly problem: DiskProblem;

  constructor(problem: DiskProblem, message: string, options?: ErrorOptions) {
    super(message, options);
    this.problem = problem;
  }
}

export interface MetadataReads
  extends RepositoryReads,
    ManifestReads,
    ReferrerReads,
    TagReads,
    BlobReads,
    UploadReads,
    JournalReads,
    PullReads,
    RobotReads,
    RootReads {}

/** The metadata as they were when the snapshot was taken: its reads see no later commit. */
export interface MetadataSnapshot extends MetadataReads {
  /** Ends the snapshot. While it is open, the database cannot reuse the space of what changes. */
  close(): Promise<void>;
}

/**
 * What is known of repositories, manifests, tags and blobs. Reads see every commit that has resolved. There are
 * no interactive transactions: what belongs together is one commit.
 */
export interface Metadata extends MetadataReads {
  /** Reads that belong together, while others commit. */
  snapshot(): Promise<MetadataSnapshot>;
  /**
   * Makes all changes or none. Resolves when they are committed: durably (across a power cut) when one of them has
   * the origin `local`, or is a `manifest.delete`, `blob.unlink`, `tag-journal.put`, `robot.put` or `robot.delete`;
   * otherwise across a crash of the process.
   * @returns false, with nothing changed, when a precondition does not hold, or a blob that a change stores or keeps is
   * being deleted.
   * @throws DiskFull, with nothing changed, when the disk is full or read-only, or fails.
   */
  commit(changes: readonly Change[], preconditions?: readonly Precondition[]): Promise<boolean>;
  close(): Promise<void>;
}
