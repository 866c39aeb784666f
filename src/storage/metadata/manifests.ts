import type {Digest} from '../../oci/digest.ts';
import type {Edge} from '../../oci/referrers.ts';
import type {Origin, RepositoryKey} from './repositories.ts';

/** A manifest as one repository holds it: the link's media type with the shared bytes. Times in ms since the epoch. */
export interface ManifestRecord {
  digest: Digest;
  mediaType: string;
  bytes: Buffer;
  origin: Origin;
  linkedAt: number;
}

/** What a manifest refers to, with the size that its descriptor names. */
export interface ReferenceRecord {
  digest: Digest;
  size: number;
  /** `foreign`: a blob that is kept while it is here, and that nobody misses when it is not. */
  kind: 'blob' | 'foreign' | 'manifest';
}

/** A position in the walk over all manifests: a number above 0 that grows along the way. */
export type ManifestCursor = number;

/** A manifest as the walk over all of them gives it: once for each repository that is linked to it. */
export interface LinkedManifest {
  repository: RepositoryKey;
  digest: Digest;
  mediaType: string;
  bytes: Buffer;
  origin: Origin;
  cursor: ManifestCursor;
}

export type ManifestChange =
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
      /** For a list that is built here from others' answers: may be collected from then on. A permanent link stays so. */
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
  /** Removes the bytes and references of a manifest that no repository is linked to; otherwise does nothing. */
  | {type: 'manifest.collect'; digest: Digest}
  /** The repository served the manifest at `at`, while the cache had this age; does nothing where it is not linked. */
  | {type: 'manifest.used'; repository: RepositoryKey; digest: Digest; at: number; age: number}
  /**
   * Evicts a member of the image root `root`, which is a member itself. The members come from the top down, as each looks
   * at what the earlier ones have left. The tags of origin `upstream` go with a root. With any other member, they go only
   * if they are attached tags of what is no longer linked; another tag keeps the member, as does a local one.
   *
   * Does nothing while the link is `local`, another linked manifest of the repository names it, or its subject is linked,
   * by edge or by an attached tag. Otherwise the link and its edge go, the bytes and references too when no repository is
   * linked to them any more, and a later link begins with the uses of this one. Its list of referrers, and those that it
   * was on, are unknown from then on: only what linked manifests say stays on them.
   */
  | {type: 'manifest.evict'; repository: RepositoryKey; root: Digest; digest: Digest; at: number};

export type ManifestPrecondition =
  | {type: 'manifest.linked'; repository: RepositoryKey; digest: Digest}
  /** The bytes are here: a manifest that no repository is linked to may have been collected since it was found. */
  | {type: 'manifest.stored'; digest: Digest}
  /**
   * The manifest is linked and was not used after `since`. A use after `now` does not count: the clock has been set back
   * since. Uses that are not committed yet are not seen.
   */
  | {type: 'manifest.idle'; repository: RepositoryKey; digest: Digest; since: number; now: number};

export interface ManifestReads {
  /** The manifest, if this repository is linked to it; not one whose bytes the disk has damaged. */
  manifest(repository: RepositoryKey, digest: Digest): Promise<ManifestRecord | undefined>;
  /** The same of whatever repository: the bytes, and a media type that some repository links them with: what the link of a further one is built from. */
  storedManifest(digest: Digest): Promise<{mediaType: string; bytes: Buffer} | undefined>;
  /** Every link of every stored manifest, oldest first, from the one after `after` on; damaged ones as well. */
  manifests(after: ManifestCursor | undefined, limit: number): Promise<LinkedManifest[]>;
  /** The same walk over the links of origin `local`. */
  localManifests(after: ManifestCursor | undefined, limit: number): Promise<LinkedManifest[]>;
  /** Where the walk over all manifests ends for now; undefined while there are none. */
  lastManifest(): Promise<ManifestCursor | undefined>;
  /** What a stored manifest refers to, in its own order; other work runs while many are read. */
  references(manifest: Digest): Promise<ReferenceRecord[]>;
  /** Manifests that no repository is linked to. */
  uncollectedManifests(limit: number): Promise<{digest: Digest; size: number}[]>;
  /** Links of origin `upstream` that expired before `before`. */
  expiredManifests(before: number, limit: number): Promise<{repository: RepositoryKey; digest: Digest}[]>;
}
