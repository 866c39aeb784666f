import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {RepositoryName, Tag} from '../../oci/name.ts';
import type {Origin} from '../metadata.ts';
import {compileBlobWrites} from './blob-writes.ts';
import {compileJournalWrites} from './journal-writes.ts';
import {compileLeaseWrites} from './lease-writes.ts';
import {compileManifestWrites} from './manifest-writes.ts';
import {compileReferrerWrites} from './referrer-writes.ts';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';
import {compileUploadWrites} from './upload-writes.ts';

/** The statements that commits are made of. */
export type Writes = ReturnType<typeof compileWrites>;

/** Compiles them; see `createCommit`. */
export function compileWrites(db: Kysely<Tables>) {
  return {
    ...compileManifestWrites(db),
    ...compileReferrerWrites(db),
    ...compileBlobWrites(db),
    ...compileUploadWrites(db),
    ...compileJournalWrites(db),
    ...compileLeaseWrites(db),

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

    putTag: statement((values: {repository: number; name: Tag; origin: Origin; digest: Digest; at: number}) =>
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

    /** A first time from the future, as a clock leaves behind that was set back, is no first time. */
    markTagGone: statement((values: {repository: number; name: Tag; at: number}) =>
      db
        .updateTable('tag')
        .set((row) => ({
          checked_at: values.at,
          gone_at: row.case().when('gone_at', '<=', values.at).then(row.ref('gone_at')).else(values.at).end(),
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

    deleteTagsOn: statement((values: {repository: number; digest: Digest}) =>
      db.deleteFrom('tag').where('repository', '=', values.repository).where('digest', '=', values.digest),
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

    /** The time of the upstream's last answer about the tag. */
    tagCheckedAt: statement((values: {repository: number; name: Tag}) =>
      db
        .selectFrom('tag')
        .select('checked_at as checkedAt')
        .where('repository', '=', values.repository)
        .where('name', '=', values.name)
        .where('origin', '=', 'upstream'),
    ),

    tagListCheckedAt: statement((values: {repository: number}) =>
      db.selectFrom('tag_list').select('checked_at as checkedAt').where('repository', '=', values.repository),
    ),

    deleteTagList: statement((values: {repository: number}) =>
      db.deleteFrom('tag_list').where('repository', '=', values.repository),
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
  };
}
