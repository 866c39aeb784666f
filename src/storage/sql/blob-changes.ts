import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Change, Origin} from '../metadata.ts';
import {compileNamingWrites, isNamed} from './blobs.ts';
import {manifestId} from './manifest-ids.ts';
import type {RepositoryIds} from './repositories.ts';
import {type ChangesOf, type PreconditionsOf, run, type Steps, statement} from './statement.ts';
import type {Tables} from './tables.ts';

export interface BlobLinkKey {
  repository: number;
  digest: Digest;
}

export type BlobWrites = ReturnType<typeof compileBlobWrites>;

export const compileBlobWrites = (db: Kysely<Tables>) => ({
  ...compileNamingWrites(db),
  ...compileBlobs(db),
  ...compileLinks(db),
  ...compileLinkChecks(db),
  ...compileMarks(db),
});

const compileBlobs = (db: Kysely<Tables>) => ({
  putBlob: statement((values: {digest: Digest; size: number; at: number}) =>
    db
      .insertInto('blob')
      .values((row) => ({
        digest: values.digest,
        size: values.size,
        state: 'ready',
        stored_at: values.at,
        last_access: values.at,
        loose: row
          .case()
          .when(
            row.exists(
              row
                .selectFrom('repository_blob as link')
                .select('link.digest')
                .where('link.digest', '=', values.digest),
            ),
          )
          .then(0)
          .else(1)
          .end(),
      }))
      .onConflict((conflict) =>
        conflict.column('digest').doUpdateSet({
          size: (row) => row.ref('excluded.size'),
          state: 'ready',
          stored_at: (row) => row.ref('excluded.stored_at'),
          last_access: (row) => row.ref('excluded.last_access'),
        }),
      ),
  ),

  deleteBlob: statement((values: {digest: Digest}) =>
    db.deleteFrom('blob').where('digest', '=', values.digest),
  ),

  markDeleting: statement((values: {digest: Digest}) =>
    db.updateTable('blob').set({state: 'deleting'}).where('digest', '=', values.digest),
  ),

  deletingBlob: statement((values: {digest: Digest}) =>
    db
      .selectFrom('blob')
      .select('digest')
      .where('digest', '=', values.digest)
      .where('state', '=', 'deleting'),
  ),

  putBlobStore: statement((values: {id: string}) =>
    db
      .insertInto('blob_store')
      .values({key: 1, id: values.id})
      .onConflict((conflict) => conflict.column('key').doUpdateSet({id: (row) => row.ref('excluded.id')})),
  ),
});

const compileLinks = (db: Kysely<Tables>) => ({
  linkBlob: statement((values: BlobLinkKey & {origin: Origin; size: number; at: number; loose: number}) =>
    db
      .insertInto('repository_blob')
      .values({
        repository: values.repository,
        digest: values.digest,
        origin: values.origin,
        size: values.size,
        linked_at: values.at,
        loose: values.loose,
      })
      .onConflict((conflict) =>
        conflict.columns(['repository', 'digest']).doUpdateSet((row) => ({
          origin: row
            .case()
            .when('repository_blob.origin', '=', 'local')
            .then('local' as Origin)
            .else(row.ref('excluded.origin'))
            .end(),
          size: row.ref('excluded.size'),
          linked_at: row.ref('excluded.linked_at'),
          loose: row
            .case()
            .when('excluded.origin', '=', 'local')
            .then(row.ref('excluded.loose'))
            .else(row.ref('repository_blob.loose'))
            .end(),
        })),
      ),
  ),

  blobLink: statement((values: BlobLinkKey) =>
    db
      .selectFrom('repository_blob')
      .select(['origin', 'linked_at as linkedAt', 'loose'])
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest),
  ),

  unlinkBlob: statement((values: BlobLinkKey) =>
    db
      .deleteFrom('repository_blob')
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest),
  ),
});

/** Each gives a row where what its name says holds. */
const compileLinkChecks = (db: Kysely<Tables>) => ({
  linkedBlob: statement((values: {digest: Digest}) =>
    db.selectFrom('repository_blob').select('repository').where('digest', '=', values.digest).limit(1),
  ),

  locallyLinkedBlob: statement((values: {digest: Digest}) =>
    db
      .selectFrom('repository_blob')
      .select('repository')
      .where('digest', '=', values.digest)
      .where('origin', '=', 'local')
      .limit(1),
  ),

  heldBlob: statement((values: BlobLinkKey) =>
    db
      .selectFrom('repository_blob as link')
      .innerJoin('blob', 'blob.digest', 'link.digest')
      .select('link.digest')
      .where('link.repository', '=', values.repository)
      .where('link.digest', '=', values.digest)
      .where('blob.state', '=', 'ready'),
  ),
});

const compileMarks = (db: Kysely<Tables>) => ({
  markBlob: statement((values: {digest: Digest; loose: number}) =>
    db
      .updateTable('blob')
      .set({loose: values.loose})
      .where('digest', '=', values.digest)
      .where('loose', '!=', values.loose),
  ),

  markLink: statement((values: BlobLinkKey & {loose: number}) =>
    db
      .updateTable('repository_blob')
      .set({loose: values.loose})
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest),
  ),

  /** The unreferenced links of a repository to what a manifest names. */
  looseChildren: statement((values: {repository: number; manifest: Digest}) =>
    childrenOf(db, values).where('link.loose', '=', 1),
  ),

  /** The local links of a repository to what a manifest names. */
  localChildren: statement((values: {repository: number; manifest: Digest}) =>
    childrenOf(db, values).where('link.origin', '=', 'local'),
  ),
});

// SQLite goes through the tables of a cross join in the order in which they are written.
const childrenOf = (db: Kysely<Tables>, values: {repository: number; manifest: Digest}) =>
  db
    .selectFrom('reference')
    .crossJoin('repository_blob as link')
    .select('link.digest')
    .where('reference.manifest', '=', manifestId(db, values.manifest))
    .where('link.repository', '=', values.repository)
    .whereRef('link.digest', '=', 'reference.child');

/**
 * The changes of blobs and their links. They keep the marks of what nothing refers to exact, so that collecting garbage
 * need not look for it.
 */
export const blobChanges = (
  writes: BlobWrites,
  repositories: RepositoryIds,
): Omit<ChangesOf<'blob'>, 'blob.forget'> & ChangesOf<'blob-store'> => ({
  'blob.put': ({digest, size, at}) => run(writes.putBlob, {digest, size, at}),
  'blob.deleting': ({digest}) => run(writes.markDeleting, {digest}),
  'blob.delete': ({digest}) => run(writes.deleteBlob, {digest}),
  'blob-store.put': ({id}) => run(writes.putBlobStore, {id}),

  *'blob.link'({repository: key, digest, origin, size, at}) {
    const repository = yield* repositories.findOrCreate(key);
    const loose = origin === 'local' ? yield* localLinkMark(writes, repository, digest) : 0;
    yield* run(writes.linkBlob, {repository, digest, origin, size, at, loose});
    yield* run(writes.markBlob, {digest, loose: 0});
  },

  'blob.unlink': ({repository: key, digest}) =>
    repositories.inKnown(key, function* (repository) {
      yield* run(writes.unlinkBlob, {repository, digest});
      if (yield* isUnlinked(writes, digest)) yield* run(writes.markBlob, {digest, loose: 1});
    }),
});

/** The mark of a link that becomes, or stays, a local one. */
function* localLinkMark(writes: BlobWrites, repository: number, digest: Digest): Steps<number> {
  const [known] = yield* run(writes.blobLink, {repository, digest});
  if (known?.origin === 'local') return known.loose;
  return (yield* isNamed(writes, repository, digest)) ? 0 : 1;
}

function* isUnlinked(writes: BlobWrites, digest: Digest): Steps<boolean> {
  return (yield* run(writes.linkedBlob, {digest})).length === 0;
}

function* isCopy(writes: BlobWrites, digest: Digest): Steps<boolean> {
  return (yield* run(writes.locallyLinkedBlob, {digest})).length === 0;
}

export const blobPreconditions = (
  writes: BlobWrites,
  repositories: RepositoryIds,
): PreconditionsOf<'blob'> => ({
  'blob.held': ({repository: key, digest}) =>
    repositories.holdsIn(key, function* (repository) {
      return (yield* run(writes.heldBlob, {repository, digest})).length > 0;
    }),

  // Asks the manifests themselves: what is in use must not go, even if a mark were wrong.
  'blob.unreferenced': ({repository: key, digest, before}) =>
    repositories.holdsIn(key, function* (repository) {
      const [link] = yield* run(writes.blobLink, {repository, digest});
      if (!link || link.linkedAt >= before) return false;
      return !(yield* isNamed(writes, repository, digest));
    }),

  'blob.unlinked': ({digest}) => isUnlinked(writes, digest),

  'blob.evictable': ({digest}) => isCopy(writes, digest),

  *'blob.unneeded'({digest}) {
    const naming = yield* run(writes.naming, {blob: digest, limit: 1});
    return naming.length === 0 && (yield* isCopy(writes, digest));
  },
});

/** Whether a change may be made: what is about to lose its bytes is neither stored nor kept. */
export function* respectsDeletion(writes: BlobWrites, change: Change): Steps<boolean> {
  const needsBytes = change.type === 'blob.put' || (change.type === 'blob.link' && change.origin === 'local');
  if (!needsBytes) return true;
  return (yield* run(writes.deletingBlob, {digest: change.digest})).length === 0;
}

/** The repository has become linked to a manifest: what that names is referenced from now on. */
export function* markReferenced(writes: BlobWrites, repository: number, manifest: Digest): Steps<void> {
  for (const digest of distinct(yield* run(writes.looseChildren, {repository, manifest}))) {
    yield* run(writes.markLink, {repository, digest, loose: 0});
  }
}

/** The repository is no longer linked to a manifest: what no other one names is unreferenced from now on. */
export function* markUnreferenced(writes: BlobWrites, repository: number, manifest: Digest): Steps<void> {
  for (const digest of distinct(yield* run(writes.localChildren, {repository, manifest}))) {
    if (yield* isNamed(writes, repository, digest)) continue;
    yield* run(writes.markLink, {repository, digest, loose: 1});
  }
}

/** A manifest may name one blob forty thousand times. */
const distinct = (rows: readonly {digest: Digest}[]): Set<Digest> => new Set(rows.map(({digest}) => digest));
