import type {Change, Precondition, RepositoryKey} from '../metadata.ts';
import {createReferrerCommit} from './referrer-commit.ts';
import {run, type Steps} from './steps.ts';
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

  function* linkManifest(change: ChangeOf<'manifest.put' | 'manifest.link'>): Steps<void> {
    const repository = yield* idOrNew(change.repository);
    const {digest, origin, mediaType, edge, at} = change;
    const [link] = yield* run(writes.linkManifest, {repository, digest, origin, mediaType, at});
    // Where the link keeps the media type that it had, it keeps the edge that goes with it.
    if (edge && link?.mediaType === mediaType) yield* referrers.putEdge(repository, edge);
  }

  function* unlinkManifest({repository: key, digest}: ChangeOf<'manifest.unlink'>): Steps<void> {
    const repository = yield* idOf(key);
    if (repository === undefined) return;
    yield* run(writes.unlinkCopy, {repository, digest});
    yield* run(writes.deleteCopiedTagsOn, {repository, digest});
    const pushed = yield* run(writes.manifestLink, {repository, digest});
    if (pushed.length === 0) yield* referrers.removeAll(repository, digest);
  }

  function* putReferrer({repository: key, edge, at}: ChangeOf<'referrer.put'>): Steps<void> {
    const repository = yield* idOf(key);
    if (repository === undefined) return;
    const link = yield* run(writes.manifestLink, {repository, digest: edge.descriptor.digest});
    if (link.length > 0) yield* referrers.restoreEdge(repository, edge, at);
  }

  function* putManifest(change: ChangeOf<'manifest.put'>): Steps<void> {
    const {digest, bytes} = change;
    const added = yield* run(writes.putManifest, {digest, size: bytes.byteLength, bytes});
    // The same bytes refer to the same content: what is here already has its references.
    if (added.length > 0) {
      for (const [position, {digest: child, kind, size}] of change.references.entries()) {
        yield* run(writes.putReference, {manifest: digest, position, child, kind, size});
      }
    }
    yield* linkManifest(change);
  }

  function* apply(change: Change): Steps<void> {
    switch (change.type) {
      case 'manifest.put':
        return yield* putManifest(change);
      case 'manifest.link':
        return yield* linkManifest(change);
      case 'manifest.unlink':
        return yield* unlinkManifest(change);
      case 'referrer-list.put':
        return yield* referrers.putList(yield* idOrNew(change.repository), change);
      case 'referrer.put':
        return yield* putReferrer(change);
      case 'referrer.delete': {
        const repository = yield* idOf(change.repository);
        if (repository === undefined) return;
        return yield* referrers.remove(repository, change.subject, change.digest);
      }
      case 'tag.put': {
        const repository = yield* idOrNew(change.repository);
        const {name, origin, digest, at} = change;
        yield* run(writes.putTag, {repository, name, origin, digest, at});
        return;
      }
      case 'tag.gone': {
        const repository = yield* idOf(change.repository);
        if (repository === undefined) return;
        yield* run(writes.markTagGone, {repository, name: change.name, at: change.at});
        return;
      }
      case 'tag.delete': {
        const repository = yield* idOf(change.repository);
        if (repository === undefined) return;
        yield* run(writes.deleteTag, {repository, name: change.name, origin: change.origin});
        return;
      }
      case 'tag-list.put': {
        const repository = yield* idOrNew(change.repository);
        yield* run(writes.putTagList, {repository, names: JSON.stringify(change.names), at: change.at});
        return;
      }
      case 'blob.put':
        yield* run(writes.putBlob, {digest: change.digest, size: change.size, at: change.at});
        return;
      case 'blob.delete':
        yield* run(writes.deleteBlob, {digest: change.digest});
        return;
      case 'blob.link': {
        const repository = yield* idOrNew(change.repository);
        const {digest, origin, size, at} = change;
        yield* run(writes.linkBlob, {repository, digest, origin, size, at});
        return;
      }
    }
  }

  function* holds(precondition: Precondition): Steps<boolean> {
    const repository = yield* idOf(precondition.repository);
    switch (precondition.type) {
      case 'manifest.linked': {
        if (repository === undefined) return false;
        const rows = yield* run(writes.manifestLink, {repository, digest: precondition.digest});
        return rows.length > 0;
      }
      case 'tag.is': {
        if (repository === undefined) return precondition.digest === undefined;
        const {name, origin, digest} = precondition;
        const [row] = yield* run(writes.tagDigest, {repository, name, origin});
        return row?.digest === digest;
      }
    }
  }

  return function* commit(changes, preconditions) {
    for (const precondition of preconditions) {
      if (!(yield* holds(precondition))) return false;
    }
    for (const change of changes) yield* apply(change);
    return true;
  };
}
