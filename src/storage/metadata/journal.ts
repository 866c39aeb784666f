import type {Digest} from '../../oci/digest.ts';
import type {RepositoryKey} from './repositories.ts';

/** A change of an upstream's fallback tag that is still to be made, or was made so recently that a race may undo it. */
export interface PendingTagChange {
  repository: RepositoryKey;
  subject: Digest;
  /** The referrer that is added to the tag, or removed from it. */
  digest: Digest;
  change: 'add' | 'remove';
  /** Grows with each change for the same referrer; identifies the entry. */
  at: number;
  /** Since when the tag has been seen as it should be; undefined while it is not. */
  writtenAt: number | undefined;
}

/** Which process holds something that one process at a time may do. */
export interface Lease {
  key: string;
  owner: string;
  /** When it lapses, in milliseconds since the epoch. */
  until: number;
}

export type JournalChange =
  /** Replaces an older entry for the same referrer of the same subject. */
  | {type: 'tag-journal.put'; entry: PendingTagChange}
  /** Does nothing when a newer entry, of another `at`, has replaced it. */
  | {type: 'tag-journal.written'; entry: PendingTagChange; writtenAt: number | undefined}
  | {type: 'tag-journal.delete'; entry: PendingTagChange};

export type LeaseChange =
  | {type: 'lease.put'; lease: Lease}
  /** Does nothing when somebody else holds it. */
  | {type: 'lease.delete'; key: string; owner: string};

export type LeasePrecondition =
  /**
   * Nobody else holds the lease at `at`. One that ends more than `maxLifeMs` after that was taken by a clock that ran
   * ahead, and does not count.
   */
  | {type: 'lease.free'; key: string; owner: string; at: number; maxLifeMs: number}
  /** The lease is this owner's: nobody has taken it over, even if it has lapsed. */
  | {type: 'lease.held'; key: string; owner: string};

export interface JournalReads {
  /** The pending changes of one subject's fallback tag, oldest first. */
  tagJournal(repository: RepositoryKey, subject: Digest): Promise<PendingTagChange[]>;
  /**
   * The entries of the journal, grouped by subject, from the one after `after` on, which need not exist any more. Their
   * order is the same at each call.
   */
  pendingTagChanges(
    after: Pick<PendingTagChange, 'repository' | 'subject' | 'digest'> | undefined,
    limit: number,
  ): Promise<PendingTagChange[]>;
}
