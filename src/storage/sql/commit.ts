import type {Change, Precondition, RepositoryKey} from '../metadata.ts';
import {bind, type Statement} from './statement.ts';
import type {Writes} from './writes.ts';

/** A statement to run now, with its values in place. */
export interface Step {
  sql: string;
  parameters: unknown[];
}

/** Work inside one transaction: yields what to run, is given the rows. Whoever drives it may wait or not. */
export type Steps<Result> = Generator<Step, Result, readonly unknown[]>;

type ChangeOf<Type extends Change['type']> = Extract<Change, {type: Type}>;

/**
 * Gives the steps of a commit, for a driver that holds a transaction of which nobody else sees anything yet. They
 * end with false as soon as a precondition does not hold, before anything was changed.
 */
export function createCommit(
  writes: Writes,
): (changes: readonly Change[], preconditions: readonly Precondition[]) => Steps<boolean> {
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
    const {digest, origin, mediaType, at} = change;
    yield* run(writes.linkManifest, {repository, digest, origin, mediaType, at});
  }

  function* putManifest(change: ChangeOf<'manifest.put'>): Steps<void> {
    const {digest, subject, bytes} = change;
    const added = yield* run(writes.putManifest, {
      digest,
      size: bytes.byteLength,
      subject: subject ?? null,
      bytes,
    });
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

function* run<Args, Row>(query: Statement<Args, Row>, args: Args): Steps<readonly Row[]> {
  return (yield {sql: query.sql, parameters: bind(query, args)}) as readonly Row[];
}
