import {type Kysely, sql} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {RepositoryName, Tag} from '../../oci/name.ts';
import type {Origin, ReferenceRecord} from '../metadata.ts';
import {compileReferrerWrites} from './referrer-writes.ts';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';

type Link = {repository: number; digest: Digest; origin: Origin; at: number};

/** The statements that commits are made of. */
export type Writes = ReturnType<typeof compileWrites>;

/** Compiles them; see `createCommit`. */
export function compileWrites(db: Kysely<Tables>) {
  return {
    ...compileReferrerWrites(db),

    repository: statement((values: {registry: string; name: RepositoryName}) =>
      db
        .selectFrom('repository')
        .select('id')
        .where('registry', '=', values.registry)
        .where('name', '=', values.name),
    ),

    newRepository: statement((values: {registry: string; name: RepositoryName}) =>
      db.insertInto('repository').values({registry: values.registry, name: values.name}).returning('id'),
    ),

    /** Gives a row when the manifest was not here before. */
    putManifest: statement((values: {digest: Digest; size: number; bytes: Uint8Array}) =>
      db
        .insertInto('manifest')
        .values({digest: values.digest, size: values.size, bytes: values.bytes})
        .onConflict((conflict) => conflict.column('digest').doNothing())
        .returning('digest'),
    ),

    putReference: statement(
      (values: {
        manifest: Digest;
        position: number;
        child: Digest;
        kind: ReferenceRecord['kind'];
        size: number;
      }) =>
        db.insertInto('reference').values({
          manifest: values.manifest,
          position: values.position,
          child: values.child,
          kind: values.kind,
          size: values.size,
        }),
    ),

    // What was pushed here stays so, under its own media type, when the upstream turns out to have it too.
    linkManifest: statement((values: Link & {mediaType: string}) =>
      db
        .insertInto('repository_manifest')
        .values({
          repository: values.repository,
          digest: values.digest,
          origin: values.origin,
          media_type: values.mediaType,
          linked_at: values.at,
          last_access: values.at,
        })
        .onConflict((conflict) =>
          conflict.columns(['repository', 'digest']).doUpdateSet({
            origin: sql<Origin>`case when repository_manifest.origin = 'local' then 'local' else excluded.origin end`,
            media_type: sql<string>`case when repository_manifest.origin = 'local' and excluded.origin = 'upstream' then repository_manifest.media_type else excluded.media_type end`,
            linked_at: (row) => row.ref('excluded.linked_at'),
            last_access: (row) => row.ref('excluded.last_access'),
          }),
        )
        .returning('media_type as mediaType'),
    ),

    unlinkCopy: statement((values: {repository: number; digest: Digest}) =>
      db
        .deleteFrom('repository_manifest')
        .where('repository', '=', values.repository)
        .where('digest', '=', values.digest)
        .where('origin', '=', 'upstream'),
    ),

    manifestLink: statement((values: {repository: number; digest: Digest}) =>
      db
        .selectFrom('repository_manifest')
        .select('digest')
        .where('repository', '=', values.repository)
        .where('digest', '=', values.digest),
    ),

    putTag: statement((values: Link & {name: Tag}) =>
      db
        .insertInto('tag')
        .values({
          repository: values.repository,
          name: values.name,
          origin: values.origin,
          digest: values.digest,
          checked_at: values.at,
          gone_at: null,
        })
        .onConflict((conflict) =>
          conflict.columns(['repository', 'name', 'origin']).doUpdateSet({
            digest: (row) => row.ref('excluded.digest'),
            checked_at: (row) => row.ref('excluded.checked_at'),
            gone_at: null,
          }),
        ),
    ),

    markTagGone: statement((values: {repository: number; name: Tag; at: number}) =>
      db
        .updateTable('tag')
        .set((row) => ({
          checked_at: values.at,
          gone_at: row.fn.coalesce('gone_at', row.val(values.at)),
        }))
        .where('repository', '=', values.repository)
        .where('name', '=', values.name)
        .where('origin', '=', 'upstream'),
    ),

    deleteTag: statement((values: {repository: number; name: Tag; origin: Origin}) =>
      db
        .deleteFrom('tag')
        .where('repository', '=', values.repository)
        .where('name', '=', values.name)
        .where('origin', '=', values.origin),
    ),

    deleteCopiedTagsOn: statement((values: {repository: number; digest: Digest}) =>
      db
        .deleteFrom('tag')
        .where('repository', '=', values.repository)
        .where('digest', '=', values.digest)
        .where('origin', '=', 'upstream'),
    ),

    tagDigest: statement((values: {repository: number; name: Tag; origin: Origin}) =>
      db
        .selectFrom('tag')
        .select('digest')
        .where('repository', '=', values.repository)
        .where('name', '=', values.name)
        .where('origin', '=', values.origin),
    ),

    putTagList: statement((values: {repository: number; names: string; at: number}) =>
      db
        .insertInto('tag_list')
        .values({repository: values.repository, names: values.names, checked_at: values.at})
        .onConflict((conflict) =>
          conflict.column('repository').doUpdateSet({
            names: (row) => row.ref('excluded.names'),
            checked_at: (row) => row.ref('excluded.checked_at'),
          }),
        ),
    ),

    putBlob: statement((values: {digest: Digest; size: number; at: number}) =>
      db
        .insertInto('blob')
        .values({
          digest: values.digest,
          size: values.size,
          state: 'ready',
          stored_at: values.at,
          last_access: values.at,
        })
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

    linkBlob: statement((values: Link & {size: number}) =>
      db
        .insertInto('repository_blob')
        .values({
          repository: values.repository,
          digest: values.digest,
          origin: values.origin,
          size: values.size,
          linked_at: values.at,
        })
        .onConflict((conflict) =>
          conflict.columns(['repository', 'digest']).doUpdateSet({
            origin: sql<Origin>`case when repository_blob.origin = 'local' then 'local' else excluded.origin end`,
            size: (row) => row.ref('excluded.size'),
            linked_at: (row) => row.ref('excluded.linked_at'),
          }),
        ),
    ),
  };
}
