import type {Generated} from 'kysely';
import type {Algorithm, Digest} from '../../oci/digest.ts';
import type {Reference, RepositoryName, Tag} from '../../oci/name.ts';
import type {UploadId} from '../../oci/upload.ts';
import type {ListSource, Origin, PendingTagChange, ReferrerRecord} from '../metadata.ts';

/**
 * The tables as every SQL adapter has them; each adapter's migrations create them in its own dialect. Times in
 * milliseconds since the epoch, sizes in bytes. Names sort by their bytes.
 */
export interface Tables {
  /** `local_bytes` is the total size of its blobs of origin `local`; triggers keep it. */
  repository: {
    id: Generated<number>;
    registry: string;
    name: RepositoryName;
    local_bytes: Generated<number>;
  };
  /** `id` stands for the digest where one manifest is linked or names something: it is short, and grows. */
  manifest: {id: Generated<number>; digest: Digest; size: number; bytes: Uint8Array};
  /** The manifests that no repository is linked to. */
  loose_manifest: {digest: Digest};
  /** `id` grows from link to link. `expires_at` is null for a link that lasts. `age` is the cache's at the last use. */
  repository_manifest: {
    id: Generated<number>;
    repository: number;
    manifest: number;
    origin: Origin;
    media_type: string;
    linked_at: number;
    last_access: number;
    expires_at: number | null;
    uses: number;
    age: number;
  };
  /** Keyed with the origin, so that a local tag lies over the upstream's and both are known. */
  tag: {
    repository: number;
    name: Tag;
    origin: Origin;
    digest: Digest;
    checked_at: number;
    gone_at: number | null;
  };
  /** `names` is a JSON array. */
  tag_list: {repository: number; names: string; checked_at: number};
  /** `loose` is 1 where no repository is linked to the blob, else 0. */
  blob: {
    digest: Digest;
    size: number;
    state: 'ready' | 'deleting';
    stored_at: number;
    last_access: number;
    loose: number;
  };
  /** One row, of `key` 1, once the store has been given a marker. */
  blob_store: {key: 1; id: string};
  /**
   * Permission; it outlives the bytes, so it does not refer to `blob`. `loose` is 1 where the link is local and no
   * manifest that the repository is linked to names the blob, else 0.
   */
  repository_blob: {
    repository: number;
    digest: Digest;
    origin: Origin;
    size: number;
    linked_at: number;
    loose: number;
  };
  /** `required` is 0 for a blob of kind `foreign`, else 1. */
  reference: {
    manifest: number;
    position: number;
    child: Digest;
    kind: 'blob' | 'manifest';
    size: number;
    required: number;
  };
  /** `artifact_type` is empty where it is missing; `descriptor` is JSON; `listed` is 0 or 1. */
  referrer: {
    repository: number;
    subject: Digest;
    seq: number;
    digest: Digest;
    artifact_type: string;
    descriptor: string;
    source: ReferrerRecord['source'];
    listed: number;
  };
  /**
   * `next_seq` is the one that the next referrer of this subject gets. `amended` is the version since which referrers
   * were only added, 0 where it was never otherwise.
   */
  referrer_list: {
    repository: number;
    subject: Digest;
    next_seq: number;
    version: number;
    amended: number;
    checked_at: number | null;
    source: ListSource | null;
  };
  /** At most one row, of `key` 1: above which version and `seq` new lists begin, since others were deleted. */
  referrer_list_floor: {key: 1; version: number; seq: number};
  upload: {
    id: UploadId;
    registry: string;
    name: RepositoryName;
    algorithm: Algorithm | null;
    upstream_location: string | null;
    upstream_offset: number | null;
    upstream_min_chunk: number | null;
    touched_at: number;
    holder: string | null;
  };
  tag_journal: {
    repository: number;
    subject: Digest;
    digest: Digest;
    change: PendingTagChange['change'];
    at: number;
    written_at: number | null;
  };
  lease: {key: string; owner: string; until: number};
  /** What must not be evicted. */
  pin: {registry: string; name: RepositoryName; reference: Reference; at: number};
  /** Links that were evicted, with the uses that they had; `id` grows from one to the next. */
  ghost: {id: Generated<number>; repository: number; digest: Digest; uses: number; evicted_at: number};
  /** Who pulled what. */
  pull: {
    digest: Digest;
    caller: string;
    registry: string;
    name: RepositoryName;
    address: string | null;
    first_at: number;
    last_at: number;
    pulls: number;
  };
  /** Tokens of machines; `may` and `places` are JSON. */
  robot: {
    name: string;
    id: string;
    secret_hash: string;
    may: string;
    places: string;
    created_at: number;
    expires_at: number | null;
    used_at: number | null;
  };
  /** At most one row, of `key` 1. */
  cache_age: {key: 1; age: number};
}
