import type {Kysely} from 'kysely';
import type {UploadId} from '../../oci/upload.ts';
import type {UploadReads, UploadRecord} from '../metadata.ts';
import {type ChangesOf, type ReadParts, run, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type UploadRow = Tables['upload'];

export function createUploadReads({db, run}: Pick<ReadParts, 'db' | 'run'>): UploadReads {
  const byId = statement((values: {id: UploadId}) =>
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

  const ofHolder = statement((values: {holder: string; limit: number}) =>
    db
      .selectFrom(
        db
          .selectFrom('upload')
          .select('holder')
          .where('holder', '=', values.holder)
          .limit(values.limit)
          .as('page'),
      )
      .select((row) => row.fn.countAll<number>().as('count')),
  );

  return {
    async uploadsOf(holder, limit) {
      const [row] = await run(ofHolder, {holder, limit});
      return row?.count ?? 0;
    },

    async upload(id) {
      const [row] = await run(byId, {id});
      return row && uploadOf(row);
    },

    async idleUploads(before, limit) {
      return (await run(idle, {before, limit})).map(uploadOf);
    },
  };
}

export type UploadWrites = ReturnType<typeof compileUploadWrites>;

export const compileUploadWrites = (db: Kysely<Tables>) => ({
  putUpload: statement((values: UploadRow) =>
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
        holder: values.holder,
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
          holder: row.ref('excluded.holder'),
          touched_at: row.ref('excluded.touched_at'),
        })),
      ),
  ),

  deleteUpload: statement((values: {id: UploadId}) => db.deleteFrom('upload').where('id', '=', values.id)),
});

export const uploadChanges = (writes: UploadWrites): ChangesOf<'upload'> => ({
  'upload.put': ({upload}) => run(writes.putUpload, rowOf(upload)),
  'upload.delete': ({id}) => run(writes.deleteUpload, {id}),
});

const rowOf = ({id, repository, algorithm, upstream, holder, touchedAt}: UploadRecord): UploadRow => ({
  id,
  registry: repository.registry,
  name: repository.name,
  algorithm: algorithm ?? null,
  upstream_location: upstream?.location ?? null,
  upstream_offset: upstream?.offset ?? null,
  upstream_min_chunk: upstream?.minChunk ?? null,
  holder: holder ?? null,
  touched_at: touchedAt,
});

const uploadOf = (row: UploadRow): UploadRecord => ({
  id: row.id,
  repository: {registry: row.registry, name: row.name},
  algorithm: row.algorithm ?? undefined,
  upstream:
    row.upstream_location === null
      ? undefined
      : {
          location: row.upstream_location,
          offset: row.upstream_offset ?? 0,
          minChunk: row.upstream_min_chunk ?? undefined,
        },
  ...(row.holder === null ? {} : {holder: row.holder}),
  touchedAt: row.touched_at,
});
