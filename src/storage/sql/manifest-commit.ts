import type {Digest} from '../../oci/digest.ts';
import type {Change, ReferenceRecord} from '../metadata.ts';
import type {BlobCommit} from './blob-commit.ts';
import type {ReferrerCommit} from './referrer-commit.ts';
import {run, type Steps} from './steps.ts';
import type {Writes} from './writes.ts';

type Put = Extract<Change, {type: 'manifest.put'}>;
type Link = Extract<Change, {type: 'manifest.link'}>;

/** The steps of a commit that change manifests and their links, each in a repository's row that exists. */
export interface ManifestCommit {
  put(repository: number, put: Put): Steps<void>;
  isStored(digest: Digest): Steps<boolean>;
  link(repository: number, link: Link): Steps<void>;
  /** Removes a copy, and the copied tags on it. */
  unlink(repository: number, digest: Digest): Steps<void>;
  /** Removes the link, and the tags on it, of whatever origin. */
  remove(repository: number, digest: Digest): Steps<void>;
  /** Removes a manifest that no repository is linked to. */
  collect(digest: Digest): Steps<void>;
}

export interface ManifestCommitParts {
  writes: Writes;
  referrers: ReferrerCommit;
  blobs: BlobCommit;
}

export function createManifestCommit({writes, referrers, blobs}: ManifestCommitParts): ManifestCommit {
  /** To a manifest that is here, with its references. */
  function* addLink(repository: number, change: Put | Link, expiresAt: number | null): Steps<void> {
    const {digest, origin, mediaType, edge, at} = change;
    const [link] = yield* run(writes.linkManifest, {repository, digest, origin, mediaType, at, expiresAt});
    yield* blobs.hold(repository, digest);
    // Where the link keeps the media type that it had, it keeps the edge that goes with it.
    if (edge && link?.mediaType === mediaType) yield* referrers.putEdge(repository, edge);
  }

  /** What follows from the end of a link. */
  function* afterLink(repository: number, digest: Digest): Steps<void> {
    yield* referrers.removeAll(repository, digest);
    yield* blobs.release(repository, digest);
    yield* run(writes.markLooseManifest, {digest});
  }

  return {
    *put(repository, change) {
      const {digest, bytes, expiresAt = null} = change;
      const added = yield* run(writes.putManifest, {digest, size: bytes.byteLength, bytes});
      // The same bytes refer to the same content: what is here already has its references.
      if (added.length > 0) {
        for (const [position, reference] of change.references.entries()) {
          yield* run(writes.putReference, {manifest: digest, position, ...referenceRow(reference)});
        }
      } else {
        yield* run(writes.unmarkLooseManifest, {digest});
      }
      yield* addLink(repository, change, expiresAt);
    },

    *isStored(digest) {
      return (yield* run(writes.storedManifest, {digest})).length > 0;
    },

    *link(repository, change) {
      yield* run(writes.unmarkLooseManifest, {digest: change.digest});
      yield* addLink(repository, change, null);
    },

    *unlink(repository, digest) {
      yield* run(writes.unlinkCopy, {repository, digest});
      yield* run(writes.deleteCopiedTagsOn, {repository, digest});
      const pushed = yield* run(writes.manifestLink, {repository, digest});
      if (pushed.length === 0) yield* afterLink(repository, digest);
    },

    *remove(repository, digest) {
      yield* run(writes.unlinkManifest, {repository, digest});
      yield* run(writes.deleteTagsOn, {repository, digest});
      yield* afterLink(repository, digest);
    },

    *collect(digest) {
      const loose = yield* run(writes.looseManifest, {digest});
      if (loose.length === 0) return;
      yield* run(writes.unmarkLooseManifest, {digest});
      yield* run(writes.deleteReferences, {digest});
      yield* run(writes.deleteManifest, {digest});
    },
  };
}

const referenceRow = ({digest: child, kind, size}: ReferenceRecord) =>
  kind === 'foreign' ? {child, kind: 'blob' as const, size, required: 0} : {child, kind, size, required: 1};
