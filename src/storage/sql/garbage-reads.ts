import {type Kysely, sql} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata} from '../metadata.ts';
import {type RunStatement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type GarbageReads = Pick<
  Metadata,
  'unreferencedBlobs' | 'uncollectedBlobs' | 'uncollectedManifests' | 'expiredManifests'
>;

/**
 * The reads of the metadata port that find what may be collected. Commits mark it where it comes to be so: these go
 * along partial indexes of the marked rows, and never look at the rest.
 */
export function createGarbageReads(db: Kysely<Tables>, run: RunStatement): GarbageReads {
  const queries = compile(db);
  return {
    async unreferencedBlobs(before, limit) {
      const rows = await run(queries.unreferencedBlobs, {before, limit});
      return rows.map(({registry, name, digest, size}) => ({repository: {registry, name}, digest, size}));
    },

    async uncollectedBlobs(before, limit) {
      const rows = await run(queries.uncollectedBlobs, {before, limit});
      return rows.map((row) => ({...row}));
    },

    async uncollectedManifests(limit) {
      const rows = await run(queries.uncollectedManifests, {limit});
      return rows.map((row) => ({...row}));
    },

    async expiredManifests(before, limit) {
      const rows = await run(queries.expiredManifests, {before, limit});
      return rows.map(({registry, name, digest}) => ({repository: {registry, name}, digest}));
    },
  };
}

/** Written into the query: a partial index is not taken for a value that is given when it runs. */
const MARKED = sql.lit(1);
const DELETING = sql.lit('deleting' as const);

// SQLite goes through the tables of a cross join in the order in which they are written.
function compile(db: Kysely<Tables>) {
  const BLOB = ['digest', 'size', 'state', 'stored_at as storedAt'] as const;
  return {
    unreferencedBlobs: statement((values: {before: number; limit: number}) =>
      db
        .selectFrom('repository_blob as link')
        .crossJoin('repository')
        .select(['repository.registry', 'repository.name', 'link.digest', 'link.size'])
        .where('link.loose', '=', MARKED)
        .where('link.linked_at', '<', values.before)
        .whereRef('repository.id', '=', 'link.repository')
        .orderBy('link.linked_at')
        .limit(values.limit),
    ),

    uncollectedBlobs: statement((values: {before: number; limit: number}) =>
      db
        .selectFrom('blob')
        .select(BLOB)
        .where('loose', '=', MARKED)
        .where('state', '!=', DELETING)
        .where('stored_at', '<', values.before)
        .unionAll(
          db
            .selectFrom('blob')
            .select(BLOB)
            .where('state', '=', DELETING)
            // Every one; said so that the index is walked along.
            .where('digest', '>', sql.lit('' as Digest)),
        )
        .limit(values.limit),
    ),

    uncollectedManifests: statement((values: {limit: number}) =>
      db
        .selectFrom('loose_manifest as loose')
        .crossJoin('manifest')
        .select(['manifest.digest', 'manifest.size'])
        // Every one; said so that the index is walked along.
        .where('loose.digest', '>', sql.lit('' as Digest))
        .whereRef('manifest.digest', '=', 'loose.digest')
        .limit(values.limit),
    ),

    // What was pushed here lasts.
    expiredManifests: statement((values: {before: number; limit: number}) =>
      db
        .selectFrom('repository_manifest as link')
        .crossJoin('repository')
        .select(['repository.registry', 'repository.name', 'link.digest'])
        .where('link.expires_at', '<', values.before)
        .where('link.origin', '=', 'upstream')
        .whereRef('repository.id', '=', 'link.repository')
        .orderBy('link.expires_at')
        .limit(values.limit),
    ),
  };
}
