import type {Digest} from '../../oci/digest.ts';
import type {RepositoryKey} from './repositories.ts';

/** That a caller pulled a manifest or a blob by way of a repository. Times in milliseconds since the epoch. */
export interface PullRecord {
  readonly digest: Digest;
  /** The caller's own name: `anonymous`, `user:alice`. */
  readonly caller: string;
  readonly repository: RepositoryKey;
  /** The client's address of the last pull, where known. */
  readonly address: string | undefined;
  readonly first: number;
  readonly last: number;
  readonly pulls: number;
}

export interface PullReads {
  /** Who pulled a digest, those that did last first; at most `limit`. */
  pullsOf(digest: Digest, limit: number): Promise<PullRecord[]>;
  /** When the last pull was of the newest record that is too many where `keep` stay; undefined where none is. */
  lastPullBeyond(keep: number): Promise<number | undefined>;
}

export type PullChange =
  /** Adds to what is known of the same digest, caller and repository. */
  | {readonly type: 'pull.put'; readonly pull: PullRecord}
  /** Forgets those whose last pull was then or before. */
  | {readonly type: 'pull.forget'; readonly until: number};
