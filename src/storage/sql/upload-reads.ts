import type {Kysely} from 'kysely';
import type {UploadId} from '../../oci/upload.ts';
import type {Metadata} from '../metadata.ts';
import {type RunStatement, statement} from './statement.ts';
import type {Tables} from './tables.ts';
import {uploadOf} from './upload-rows.ts';

/** The reads of the metadata port that concern uploads. */
export function createUploadReads(
  db: Kysely<Tables>,
  run: RunStatement,
): Pick<Metadata, 'upload' | 'idleUploads'> {
  const upload = statement((values: {id: UploadId}) =>
    db.selectFrom('upload').selectAll().where('id', '=', values.id),
  );
  const idle = statement((values: {before: number; limit: number}) =>
    db
      .selectFrom('upload')
      .selectAll()
      .where('touched_at', '<', values.before)
      .orderBy('touched_at')
      .limit(values.limit),
  );

  return {
    async upload(id) {
      const [row] = await run(upload, {id});
      return row && uploadOf(row);
    },

    async idleUploads(before, limit) {
      return (await run(idle, {before, limit})).map(uploadOf);
    },
  };
}
