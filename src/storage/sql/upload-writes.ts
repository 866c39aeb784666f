import type {Kysely} from 'kysely';
import type {UploadId} from '../../oci/upload.ts';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';

export function compileUploadWrites(db: Kysely<Tables>) {
  return {
    putUpload: statement((values: Tables['upload']) =>
      db
        .insertInto('upload')
        .values({
          id: values.id,
          registry: values.registry,
          name: values.name,
          algorithm: values.algorithm,
          upstream_location: values.upstream_location,
          upstream_offset: values.upstream_offset,
          upstream_min_chunk: values.upstream_min_chunk,
          touched_at: values.touched_at,
        })
        .onConflict((conflict) =>
          conflict.column('id').doUpdateSet((row) => ({
            registry: row.ref('excluded.registry'),
            name: row.ref('excluded.name'),
            algorithm: row.ref('excluded.algorithm'),
            upstream_location: row.ref('excluded.upstream_location'),
            upstream_offset: row.ref('excluded.upstream_offset'),
            upstream_min_chunk: row.ref('excluded.upstream_min_chunk'),
            touched_at: row.ref('excluded.touched_at'),
          })),
        ),
    ),

    deleteUpload: statement((values: {id: UploadId}) => db.deleteFrom('upload').where('id', '=', values.id)),
  };
}
