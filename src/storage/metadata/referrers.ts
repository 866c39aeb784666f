import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Edge} from '../../oci/referrers.ts';
import type {AskTimes, RepositoryKey} from './repositories.ts';

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
  /** `content`: the descriptor was built from the manifest's own bytes; otherwise it is the upstream's. */
  source: 'content' | ListSource;
  /** The upstream's last complete answer names it. */
  listed: boolean;
}

/** The descriptors of a page of referrers, as text. */
export interface ReferrerText {
  readonly count: number;
  /** The `seq` of the last one; undefined for an empty page. */
  readonly last: number | undefined;
  /**
   * Their JSON, with commas between them. undefined where one of several is larger than 64 KiB: their authors decide how
   * large they are, so ask for such ones in smaller pages, and in the end one by one.
   */
  readonly text: Buffer | undefined;
}

/** Which of a subject's referrers are read. */
export interface ReferrerPageQuery {
  /** Those of any of these types; the empty string stands for a missing one. Without it, all. */
  types?: readonly string[];
  /** The `seq` behind which the page begins. */
  after?: number;
  limit: number;
}

/** A position in the walk over all referrers; opaque to callers. */
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

export type ReferrerChange =
  /**
   * A complete answer of the upstream at `at`. What it names and is not here yet is added in its order behind what is
   * here; the rest of what it names stays in its place, listed, with the new descriptor unless it is of source
   * `content`. What it does not name is removed or, if of source `content`, is no longer listed. Of a digest that it
   * names twice, the first descriptor counts.
   *
   * Without `at`, the answer is incomplete: the time and the source of the last complete answer stay as they were.
   * `except` holds what the answer names without a descriptor, which stays as it is.
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
   * The edge of a manifest that is linked to this repository; does nothing when it is not. For rebuilding: repairs a list
   * whose own row is lost or behind.
   */
  | {type: 'referrer.put'; repository: RepositoryKey; edge: Edge; at: number}
  | {type: 'referrer.delete'; repository: RepositoryKey; subject: Digest; digest: Digest};

/** No later answer of the upstream about the subject's referrers is known; as `tag.latest`. */
export type ReferrerPrecondition = {
  type: 'referrer-list.latest';
  repository: RepositoryKey;
  subject: Digest;
} & AskTimes;

export interface ReferrerReads {
  /** Exists from the subject's first edge, or the upstream's first complete answer, on. */
  referrerList(repository: RepositoryKey, subject: Digest): Promise<ReferrerListRecord | undefined>;
  /** In the order of `seq`. A page of some types reads only the rows that it gives. */
  referrers(repository: RepositoryKey, subject: Digest, page: ReferrerPageQuery): Promise<ReferrerRecord[]>;
  /** As `referrers`, but only what a list shows of each, in one piece: ten thousand take a third of the time. */
  referrerText(repository: RepositoryKey, subject: Digest, page: ReferrerPageQuery): Promise<ReferrerText>;
  /** Those that the upstream's last complete answer lacks, in the order of `seq`. */
  unlistedReferrers(repository: RepositoryKey, subject: Digest, limit: number): Promise<Digest[]>;
  /** Every referrer of every subject, in the order of their cursors, from the one after `after` on. */
  referrerRows(after: ReferrerCursor | undefined, limit: number): Promise<ReferrerRow[]>;
  /** The subjects that begin with `prefix` and have a list here, even an empty one, in byte order. */
  referrerSubjects(repository: RepositoryKey, prefix: string): Promise<Digest[]>;
}
