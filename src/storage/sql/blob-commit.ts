import type {Digest} from '../../oci/digest.ts';
import type {Change} from '../metadata.ts';
import type {BlobWrites} from './blob-writes.ts';
import {isNamed} from './naming.ts';
import {run, type Steps} from './steps.ts';

/**
 * The steps of a commit that change blobs and their links, each in a repository's row that exists. They keep the
 * marks of what is loose exact, so that whoever collects it need not look for it.
 */
export interface BlobCommit {
  put(blob: Extract<Change, {type: 'blob.put'}>): Steps<void>;
  link(repository: number, link: Extract<Change, {type: 'blob.link'}>): Steps<void>;
  unlink(repository: number, digest: Digest): Steps<void>;
  /** The repository has become linked to a manifest: what that names is no longer loose. */
  hold(repository: number, manifest: Digest): Steps<void>;
  /** The repository is no longer linked to a manifest: what no other one names is loose from now on. */
  release(repository: number, manifest: Digest): Steps<void>;
  isHeld(repository: number, digest: Digest): Steps<boolean>;
  isLoose(repository: number, digest: Digest, before: number): Steps<boolean>;
  isUnlinked(digest: Digest): Steps<boolean>;
  isDeleting(digest: Digest): Steps<boolean>;
  isEvictable(digest: Digest): Steps<boolean>;
}

export function createBlobCommit(writes: BlobWrites): BlobCommit {
  /** The mark of a link that becomes, or stays, a local one. */
  function* markOf(repository: number, digest: Digest): Steps<number> {
    const [known] = yield* run(writes.blobLink, {repository, digest});
    if (known?.origin === 'local') return known.loose;
    return (yield* isNamed(writes, repository, digest)) ? 0 : 1;
  }

  function* isUnlinked(digest: Digest): Steps<boolean> {
    return (yield* run(writes.blobHolder, {digest})).length === 0;
  }

  return {
    *put({digest, size, at}) {
      yield* run(writes.putBlob, {digest, size, at});
    },

    *link(repository, {digest, origin, size, at}) {
      const loose = origin === 'local' ? yield* markOf(repository, digest) : 0;
      yield* run(writes.linkBlob, {repository, digest, origin, size, at, loose});
      yield* run(writes.markBlob, {digest, loose: 0});
    },

    *unlink(repository, digest) {
      yield* run(writes.unlinkBlob, {repository, digest});
      if (yield* isUnlinked(digest)) yield* run(writes.markBlob, {digest, loose: 1});
    },

    *hold(repository, manifest) {
      for (const digest of distinct(yield* run(writes.looseChildren, {repository, manifest}))) {
        yield* run(writes.markLink, {repository, digest, loose: 0});
      }
    },

    *release(repository, manifest) {
      for (const digest of distinct(yield* run(writes.localChildren, {repository, manifest}))) {
        if (yield* isNamed(writes, repository, digest)) continue;
        yield* run(writes.markLink, {repository, digest, loose: 1});
      }
    },

    *isHeld(repository, digest) {
      return (yield* run(writes.heldBlob, {repository, digest})).length > 0;
    },

    // Asks the manifests themselves: what is in use must not go, even if a mark were wrong.
    *isLoose(repository, digest, before) {
      const [link] = yield* run(writes.blobLink, {repository, digest});
      if (!link || link.linkedAt >= before) return false;
      return !(yield* isNamed(writes, repository, digest));
    },

    isUnlinked,

    *isDeleting(digest) {
      return (yield* run(writes.deletingBlob, {digest})).length > 0;
    },

    *isEvictable(digest) {
      return (yield* run(writes.localBlobLink, {digest})).length === 0;
    },
  };
}

/** A manifest may name one blob forty thousand times. */
const distinct = (rows: readonly {digest: Digest}[]): Set<Digest> => new Set(rows.map(({digest}) => digest));
