import {type Kysely, sql} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Origin} from '../metadata.ts';
import {compileNamingWrites} from './naming.ts';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** One repository's link to a blob. */
export interface BlobLinkKey {
  repository: number;
  digest: Digest;
}

/** The statements of commits that concern blobs and their links. */
export type BlobWrites = ReturnType<typeof compileBlobWrites>;

export function compileBlobWrites(db: Kysely<Tables>) {
  return {
    ...compileNamingWrites(db),

    putBlob: statement((values: {digest: Digest; size: number; at: number}) =>
      db
        .insertInto('blob')
        .values({
          digest: values.digest,
          size: values.size,
          state: 'ready',
          stored_at: values.at,
          last_access: values.at,
          loose: sql<number>`case when exists (select 1 from repository_blob as link where link.digest = ${values.digest}) then 0 else 1 end`,
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
          conflict.columns(['repository', 'digest']).doUpdateSet({
            origin: sql<Origin>`case when repository_blob.origin = 'local' then 'local' else excluded.origin end`,
            size: (row) => row.ref('excluded.size'),
            linked_at: (row) => row.ref('excluded.linked_at'),
            loose: sql<number>`case when excluded.origin = 'local' then excluded.loose else repository_blob.loose end`,
          }),
        ),
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

    /** Gives a row when some repository is linked to the blob. */
    blobHolder: statement((values: {digest: Digest}) =>
      db.selectFrom('repository_blob').select('repository').where('digest', '=', values.digest).limit(1),
    ),

    /** Gives a row when some repository has a local link to the blob. */
    localBlobLink: statement((values: {digest: Digest}) =>
      db
        .selectFrom('repository_blob')
        .select('repository')
        .where('digest', '=', values.digest)
        .where('origin', '=', 'local')
        .limit(1),
    ),

    putBlobStore: statement((values: {id: string}) =>
      db
        .insertInto('blob_store')
        .values({key: 1, id: values.id})
        .onConflict((conflict) => conflict.column('key').doUpdateSet({id: (row) => row.ref('excluded.id')})),
    ),

    /** Gives a row when the repository is linked to the blob and its bytes are here and stay. */
    heldBlob: statement((values: BlobLinkKey) =>
      db
        .selectFrom('repository_blob as link')
        .innerJoin('blob', 'blob.digest', 'link.digest')
        .select('link.digest')
        .where('link.repository', '=', values.repository)
        .where('link.digest', '=', values.digest)
        .where('blob.state', '=', 'ready'),
    ),

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

    /** The loose links of a repository to what a manifest names. */
    looseChildren: statement((values: {repository: number; manifest: Digest}) =>
      childrenOf(db, values).where('link.loose', '=', 1),
    ),

    /** The local links of a repository to what a manifest names. */
    localChildren: statement((values: {repository: number; manifest: Digest}) =>
      childrenOf(db, values).where('link.origin', '=', 'local'),
    ),
  };
}

// SQLite goes through the tables of a cross join in the order in which they are written.
const childrenOf = (db: Kysely<Tables>, values: {repository: number; manifest: Digest}) =>
  db
    .selectFrom('reference')
    .crossJoin('repository_blob as link')
    .select('link.digest')
    .where('reference.manifest', '=', values.manifest)
    .where('link.repository', '=', values.repository)
    .whereRef('link.digest', '=', 'reference.child');
