import type {Asked, Change, Precondition, RepositoryKey} from '../metadata.ts';
import {createBlobCommit} from './blob-commit.ts';
import {createManifestCommit} from './manifest-commit.ts';
import {createReferrerCommit} from './referrer-commit.ts';
import {run, type Steps} from './steps.ts';
import {uploadRow} from './upload-rows.ts';
import type {Writes} from './writes.ts';

type ChangeOf<Type extends Change['type']> = Extract<Change, {type: Type}>;

/**
 * Gives the steps of a commit, for a driver that holds a transaction of which nobody else sees anything yet. They
 * end with false as soon as a precondition does not hold, before anything was changed.
 */
export function createCommit(
  writes: Writes,
): (changes: readonly Change[], preconditions: readonly Precondition[]) => Steps<boolean> {
  const referrers = createReferrerCommit(writes);
  const blobs = createBlobCommit(writes);
  const manifests = createManifestCommit({writes, referrers, blobs});

  function* idOf(key: RepositoryKey): Steps<number | undefined> {
    const [row] = yield* run(writes.repository, {registry: key.registry, name: key.name});
    return row?.id;
  }

  function* idOrNew(key: RepositoryKey): Steps<number> {
    const known = yield* idOf(key);
    if (known !== undefined) return known;
    const [row] = yield* run(writes.newRepository, {registry: key.registry, name: key.name});
    if (!row) throw new Error(`the repository ${key.registry}/${key.name} could not be created`);
    return row.id;
  }

  /** What is not there need not be changed, and no row comes of it. */
  function* inKnown(key: RepositoryKey, work: (repository: number) => Steps<unknown>): Steps<void> {
    const repository = yield* idOf(key);
    if (repository !== undefined) yield* work(repository);
  }

  function* putReferrer(repository: number, {edge, at}: ChangeOf<'referrer.put'>): Steps<void> {
    const link = yield* run(writes.manifestLink, {repository, digest: edge.descriptor.digest});
    if (link.length > 0) yield* referrers.restoreEdge(repository, edge, at);
  }

  function* apply(change: Change): Steps<unknown> {
    switch (change.type) {
      case 'manifest.put':
        return yield* manifests.put(yield* idOrNew(change.repository), change);
      case 'manifest.link':
        return yield* manifests.link(yield* idOrNew(change.repository), change);
      case 'manifest.unlink':
        return yield* inKnown(change.repository, (id) => manifests.unlink(id, change.digest));
      case 'manifest.delete':
        return yield* inKnown(change.repository, (id) => manifests.remove(id, change.digest));
      case 'manifest.collect':
        return yield* manifests.collect(change.digest);
      case 'referrer-list.put':
        return yield* referrers.putList(yield* idOrNew(change.repository), change);
      case 'referrer.put':
        return yield* inKnown(change.repository, (id) => putReferrer(id, change));
      case 'referrer.delete':
        return yield* inKnown(change.repository, (id) => referrers.remove(id, change.subject, change.digest));
      case 'tag.put': {
        const {name, origin, digest, at} = change;
        const repository = yield* idOrNew(change.repository);
        return yield* run(writes.putTag, {repository, name, origin, digest, at});
      }
      case 'tag.gone': {
        const {name, at} = change;
        return yield* inKnown(change.repository, (repository) =>
          run(writes.markTagGone, {repository, name, at}),
        );
      }
      case 'tag.delete': {
        const {name, origin} = change;
        return yield* inKnown(change.repository, (repository) =>
          run(writes.deleteTag, {repository, name, origin}),
        );
      }
      case 'tag-list.put': {
        const repository = yield* idOrNew(change.repository);
        return yield* run(writes.putTagList, {
          repository,
          names: JSON.stringify(change.names),
          at: change.at,
        });
      }
      case 'tag-list.delete':
        return yield* inKnown(change.repository, (repository) => run(writes.deleteTagList, {repository}));
      case 'blob.put':
        return yield* blobs.put(change);
      case 'blob.deleting':
        return yield* run(writes.markDeleting, {digest: change.digest});
      case 'blob.delete':
        return yield* run(writes.deleteBlob, {digest: change.digest});
      case 'blob-store.put':
        return yield* run(writes.putBlobStore, {id: change.id});
      case 'blob.link':
        return yield* blobs.link(yield* idOrNew(change.repository), change);
      case 'blob.unlink':
        return yield* inKnown(change.repository, (id) => blobs.unlink(id, change.digest));
      case 'upload.put':
        return yield* run(writes.putUpload, uploadRow(change.upload));
      case 'upload.delete':
        return yield* run(writes.deleteUpload, {id: change.id});
      case 'tag-journal.put': {
        const {repository: key, writtenAt = null, ...entry} = change.entry;
        return yield* run(writes.putEntry, {...entry, writtenAt, repository: yield* idOrNew(key)});
      }
      case 'tag-journal.written': {
        const {subject, digest, at} = change.entry;
        const {writtenAt = null} = change;
        return yield* inKnown(change.entry.repository, (repository) =>
          run(writes.markWritten, {repository, subject, digest, at, writtenAt}),
        );
      }
      case 'tag-journal.delete': {
        const {subject, digest, at} = change.entry;
        return yield* inKnown(change.entry.repository, (repository) =>
          run(writes.deleteEntry, {repository, subject, digest, at}),
        );
      }
      case 'lease.put':
        return yield* run(writes.putLease, change.lease);
      case 'lease.delete':
        return yield* run(writes.deleteLease, {key: change.key, owner: change.owner});
    }
  }

  /** When the upstream was asked for what is known by a row of this repository. */
  function* lastAsked(
    key: RepositoryKey,
    read: (repository: number) => Steps<readonly {checkedAt: number | null}[]>,
  ): Steps<number | undefined> {
    const repository = yield* idOf(key);
    if (repository === undefined) return undefined;
    const [row] = yield* read(repository);
    return row?.checkedAt ?? undefined;
  }

  function* holds(precondition: Precondition): Steps<boolean> {
    switch (precondition.type) {
      case 'manifest.linked': {
        const repository = yield* idOf(precondition.repository);
        if (repository === undefined) return false;
        return (yield* run(writes.manifestLink, {repository, digest: precondition.digest})).length > 0;
      }
      case 'tag.latest': {
        const {repository: key, name} = precondition;
        const known = yield* lastAsked(key, (repository) => run(writes.tagCheckedAt, {repository, name}));
        return isLatest(precondition, known);
      }
      case 'tag-list.latest': {
        const known = yield* lastAsked(precondition.repository, (repository) =>
          run(writes.tagListCheckedAt, {repository}),
        );
        return isLatest(precondition, known);
      }
      case 'referrer-list.latest': {
        const {repository: key, subject} = precondition;
        const known = yield* lastAsked(key, (repository) =>
          run(writes.referrerListCheckedAt, {repository, subject}),
        );
        return isLatest(precondition, known);
      }
      case 'manifest.stored':
        return yield* manifests.isStored(precondition.digest);
      case 'tag.is': {
        const {name, origin, digest} = precondition;
        const repository = yield* idOf(precondition.repository);
        if (repository === undefined) return digest === undefined;
        const [row] = yield* run(writes.tagDigest, {repository, name, origin});
        return row?.digest === digest;
      }
      case 'blob.held': {
        const repository = yield* idOf(precondition.repository);
        return repository !== undefined && (yield* blobs.isHeld(repository, precondition.digest));
      }
      case 'blob.unreferenced': {
        const {digest, before} = precondition;
        const repository = yield* idOf(precondition.repository);
        return repository !== undefined && (yield* blobs.isLoose(repository, digest, before));
      }
      case 'blob.unlinked':
        return yield* blobs.isUnlinked(precondition.digest);
      case 'blob.evictable':
        return yield* blobs.isEvictable(precondition.digest);
      case 'lease.free': {
        const {key, owner, at, maxLifeMs} = precondition;
        const [lease] = yield* run(writes.lease, {key});
        if (lease === undefined || lease.owner === owner) return true;
        return lease.until <= at || lease.until > at + maxLifeMs;
      }
      case 'lease.held': {
        const [lease] = yield* run(writes.lease, {key: precondition.key});
        return lease?.owner === precondition.owner;
      }
    }
  }

  /** What is about to lose its bytes is neither stored nor kept. */
  function* isAllowed(change: Change): Steps<boolean> {
    const needsBytes =
      change.type === 'blob.put' || (change.type === 'blob.link' && change.origin === 'local');
    return !needsBytes || !(yield* blobs.isDeleting(change.digest));
  }

  return function* commit(changes, preconditions) {
    for (const precondition of preconditions) {
      if (!(yield* holds(precondition))) return false;
    }
    for (const change of changes) {
      if (!(yield* isAllowed(change))) return false;
    }
    for (const change of changes) yield* apply(change);
    return true;
  };
}

const isLatest = ({askedAt, now}: Asked, known: number | undefined): boolean =>
  known === undefined || known <= askedAt || known > now;
