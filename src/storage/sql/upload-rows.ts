import type {UploadRecord} from '../metadata.ts';
import type {Tables} from './tables.ts';

type Row = Tables['upload'];

/** The row of an upload. */
export const uploadRow = ({id, repository, algorithm, upstream, touchedAt}: UploadRecord): Row => ({
  id,
  registry: repository.registry,
  name: repository.name,
  algorithm: algorithm ?? null,
  upstream_location: upstream?.location ?? null,
  upstream_offset: upstream?.offset ?? null,
  upstream_min_chunk: upstream?.minChunk ?? null,
  touched_at: touchedAt,
});

/** The upload of a row. */
export const uploadOf = (row: Row): UploadRecord => ({
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
  touchedAt: row.touched_at,
});
