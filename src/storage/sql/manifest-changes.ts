import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Change, Origin, ReferenceRecord} from '../metadata.ts';
import {markReferenced, markUnreferenced} from './blob-changes.ts';
import {compileManifestIds, idOfManifest, manifestId} from './manifest-ids.ts';
import type {Writes} from './metadata.ts';
import {putEdge, removeReferrer} from './referrer-changes.ts';
import type {RepositoryIds} from './repositories.ts';
import {type ChangesOf, type PreconditionsOf, run, type Steps, statement} from './statement.ts';
import type {Tables} from './tables.ts';

export interface ManifestLinkKey {
  repository: number;
  digest: Digest;
}

export const compileManifestWrites = (db: Kysely<Tables>) => ({
  ...compileManifestIds(db),
  ...compileManifests(db),
  ...compileLinking(db),
  ...compileUnlinking(db),
  ...compileMarks(db),
});

const compileManifests = (db: Kysely<Tables>) => ({
  /** Gives its id when the manifest was not here before. */
  putManifest: statement((values: {digest: Digest; size: number; bytes: Uint8Array}) =>
    db
      .insertInto('manifest')
      .values({digest: values.digest, size: values.size, bytes: values.bytes})
      .onConflict((conflict) => conflict.column('digest').doNothing())
      .returning('id'),
  ),

  /** What was verified replaces bytes that the disk has damaged. */
  replaceManifest: statement((values: {digest: Digest; size: number; bytes: Uint8Array}) =>
    db
      .updateTable('manifest')
      .set({size: values.size, bytes: values.bytes})
      .where('digest', '=', values.digest)
      .where('bytes', '!=', values.bytes),
  ),

  putReference: statement((values: Tables['reference']) =>
    db.insertInto('reference').values({
      manifest: values.manifest,
      position: values.position,
      child: values.child,
      kind: values.kind,
      size: values.size,
      required: values.required,
    }),
  ),

  deleteReferences: statement((values: {digest: Digest}) =>
    db.deleteFrom('reference').where('manifest', '=', manifestId(db, values.digest)),
  ),

  deleteManifest: statement((values: {digest: Digest}) =>
    db.deleteFrom('manifest').where('digest', '=', values.digest),
  ),
});

/** The uses that a link had when it was evicted. */
const evictedUses = (db: Kysely<Tables>, {repository, digest}: ManifestLinkKey) =>
  db.selectFrom('ghost').select('uses').where('repository', '=', repository).where('digest', '=', digest);

const cacheAge = (db: Kysely<Tables>) => db.selectFrom('cache_age').select('age').where('key', '=', 1);

const compileLinking = (db: Kysely<Tables>) => ({
  // A permanent link stays permanent; of two times, the later one is its end. What was pushed here stays so, under its
  // own media type, when the upstream turns out to have it too.
  linkManifest: statement(
    (
      values: ManifestLinkKey & {
        manifest: number;
        origin: Origin;
        mediaType: string;
        at: number;
        expiresAt: number | null;
      },
    ) =>
      db
        .insertInto('repository_manifest')
        .values((row) => ({
          repository: values.repository,
          manifest: values.manifest,
          origin: values.origin,
          media_type: values.mediaType,
          linked_at: values.at,
          last_access: values.at,
          expires_at: values.expiresAt,
          uses: row.fn.coalesce(evictedUses(db, values), row.val(0)),
          age: row.fn.coalesce(cacheAge(db), row.val(0)),
        }))
        .onConflict((conflict) =>
          conflict.columns(['repository', 'manifest']).doUpdateSet((row) => ({
            origin: row
              .case()
              .when('repository_manifest.origin', '=', 'local')
              .then('local' as Origin)
              .else(row.ref('excluded.origin'))
              .end(),
            media_type: row
              .case()
              .when(
                row.and([
                  row('repository_manifest.origin', '=', 'local'),
                  row('excluded.origin', '=', 'upstream'),
                ]),
              )
              .then(row.ref('repository_manifest.media_type'))
              .else(row.ref('excluded.media_type'))
              .end(),
            linked_at: row.ref('excluded.linked_at'),
            last_access: row.ref('excluded.last_access'),
            expires_at: row
              .case()
              .when('repository_manifest.expires_at', '>', row.ref('excluded.expires_at'))
              .then(row.ref('repository_manifest.expires_at'))
              .when('repository_manifest.expires_at', 'is', null)
              .then(null)
              .else(row.ref('excluded.expires_at'))
              .end(),
          })),
        )
        .returning(['media_type as mediaType', 'uses']),
  ),
});

const compileUnlinking = (db: Kysely<Tables>) => ({
  manifestLink: statement((values: ManifestLinkKey) =>
    db
      .selectFrom('repository_manifest')
      .select('id')
      .where('repository', '=', values.repository)
      .where('manifest', '=', manifestId(db, values.digest)),
  ),

  unlinkCopy: statement((values: ManifestLinkKey) =>
    db
      .deleteFrom('repository_manifest')
      .where('repository', '=', values.repository)
      .where('manifest', '=', manifestId(db, values.digest))
      .where('origin', '=', 'upstream'),
  ),

  unlinkManifest: statement((values: ManifestLinkKey) =>
    db
      .deleteFrom('repository_manifest')
      .where('repository', '=', values.repository)
      .where('manifest', '=', manifestId(db, values.digest)),
  ),
});

const compileMarks = (db: Kysely<Tables>) => ({
  /** Marks a manifest that is here when no repository is linked to it. */
  markLooseManifest: statement((values: {digest: Digest}) =>
    db
      .insertInto('loose_manifest')
      .columns(['digest'])
      .expression((from) =>
        from
          .selectFrom('manifest')
          .select('digest')
          .where('digest', '=', values.digest)
          .where((row) =>
            row.not(
              row.exists(
                row
                  .selectFrom('repository_manifest as link')
                  .select('link.id')
                  .whereRef('link.manifest', '=', 'manifest.id'),
              ),
            ),
          ),
      )
      .onConflict((conflict) => conflict.column('digest').doNothing()),
  ),

  unmarkLooseManifest: statement((values: {digest: Digest}) =>
    db.deleteFrom('loose_manifest').where('digest', '=', values.digest),
  ),

  looseManifest: statement((values: {digest: Digest}) =>
    db.selectFrom('loose_manifest').select('digest').where('digest', '=', values.digest),
  ),
});

export const manifestChanges = (
  writes: Writes,
  repositories: RepositoryIds,
): Omit<ChangesOf<'manifest'>, 'manifest.used' | 'manifest.evict'> => ({
  *'manifest.put'(change) {
    const {digest, bytes, expiresAt = null} = change;
    const repository = yield* repositories.findOrCreate(change.repository);
    const stored = {digest, size: bytes.byteLength, bytes};
    const [added] = yield* run(writes.putManifest, stored);
    // The same bytes refer to the same content: what is here already has its references.
    if (added) yield* addReferences(writes, added.id, change.references);
    else {
      yield* run(writes.replaceManifest, stored);
      yield* run(writes.unmarkLooseManifest, {digest});
    }
    const manifest = added?.id ?? (yield* idOfManifest(writes, digest));
    yield* addLink(writes, {repository, manifest}, change, expiresAt);
  },

  *'manifest.link'(change) {
    const repository = yield* repositories.findOrCreate(change.repository);
    const manifest = yield* idOfManifest(writes, change.digest);
    yield* run(writes.unmarkLooseManifest, {digest: change.digest});
    yield* addLink(writes, {repository, manifest}, change, null);
  },

  'manifest.unlink': ({repository: key, digest}) =>
    repositories.inKnown(key, function* (repository) {
      yield* run(writes.unlinkCopy, {repository, digest});
      yield* run(writes.deleteCopiedTagsOn, {repository, digest});
      const pushed = yield* run(writes.manifestLink, {repository, digest});
      if (pushed.length === 0) yield* afterLink(writes, repository, digest);
    }),

  'manifest.delete': ({repository: key, digest}) =>
    repositories.inKnown(key, function* (repository) {
      yield* run(writes.unlinkManifest, {repository, digest});
      yield* run(writes.deleteTagsOn, {repository, digest});
      yield* afterLink(writes, repository, digest);
    }),

  'manifest.collect': ({digest}) => collect(writes, digest),
});

/** Removes a manifest that no repository is linked to. */
export function* collect(writes: Writes, digest: Digest): Steps<void> {
  const unlinked = yield* run(writes.looseManifest, {digest});
  if (unlinked.length === 0) return;
  yield* run(writes.unmarkLooseManifest, {digest});
  yield* run(writes.deleteReferences, {digest});
  yield* run(writes.deleteManifest, {digest});
}

function* addReferences(
  writes: Writes,
  manifest: number,
  references: readonly ReferenceRecord[],
): Steps<void> {
  for (const [position, {digest: child, kind, size}] of references.entries()) {
    const named = kind === 'foreign' ? ({kind: 'blob', required: 0} as const) : {kind, required: 1};
    yield* run(writes.putReference, {manifest, position, child, size, ...named});
  }
}

type Link = Extract<Change, {type: 'manifest.put' | 'manifest.link'}>;

/** Links a repository to a manifest that is here, with its references. */
function* addLink(
  writes: Writes,
  {repository, manifest}: {repository: number; manifest: number},
  change: Link,
  expiresAt: number | null,
): Steps<void> {
  const {digest, origin, mediaType, edge, at} = change;
  const values = {repository, manifest, digest, origin, mediaType, at, expiresAt};
  const [link] = yield* run(writes.linkManifest, values);
  if (link && link.uses > 0) yield* run(writes.deleteGhost, {repository, digest});
  yield* markReferenced(writes, repository, digest);
  // Where the link keeps the media type that it had, it keeps the edge that goes with it.
  if (edge && link?.mediaType === mediaType) yield* putEdge(writes, repository, edge);
}

/** What follows from the end of a link. */
function* afterLink(writes: Writes, repository: number, digest: Digest): Steps<void> {
  yield* removeReferrer(writes, repository, digest);
  yield* markUnlinked(writes, repository, digest);
}

/** Marks what is garbage since the repository is no longer linked to the manifest. */
export function* markUnlinked(writes: Writes, repository: number, digest: Digest): Steps<void> {
  yield* markUnreferenced(writes, repository, digest);
  yield* run(writes.markLooseManifest, {digest});
}

export const manifestPreconditions = (
  writes: Writes,
  repositories: RepositoryIds,
): Omit<PreconditionsOf<'manifest'>, 'manifest.idle'> => ({
  'manifest.linked': ({repository: key, digest}) =>
    repositories.holdsIn(key, function* (repository) {
      return (yield* run(writes.manifestLink, {repository, digest})).length > 0;
    }),

  *'manifest.stored'({digest}) {
    return (yield* run(writes.storedManifest, {digest})).length > 0;
  },
});
