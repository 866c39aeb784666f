import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Kysely} from 'kysely';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import type {RepositoryName} from '../../oci/name.ts';
import type {LinkedManifest, ManifestReads, Origin} from '../metadata.ts';
import {manifestId} from './manifest-ids.ts';
import {asBuffer, first, type ReadParts, statement} from './statement.ts';
import type {Tables} from './tables.ts';

export function createManifestReads({db, run, idOf}: ReadParts): ManifestReads {
  const queries = {...compileReads(db), ...compileGarbage(db)};
  return {
    async manifest(repository, digest) {
      const row = await first({run, idOf}, queries.manifest, repository, {digest});
      const bytes = row && soundBytes(digest, row.bytes);
      return bytes && {...row, digest, bytes};
    },

    async storedManifest(digest) {
      const [row] = await run(queries.storedManifest, {digest});
      const bytes = row && soundBytes(digest, row.bytes);
      return bytes && {mediaType: row.mediaType, bytes};
    },

    async manifests(after = 0, limit) {
      return (await run(queries.manifests, {after, limit})).map(linkedManifest);
    },

    async localManifests(after = 0, limit) {
      return (await run(queries.localManifests, {after, limit})).map(linkedManifest);
    },

    async lastManifest() {
      const [row] = await run(queries.lastManifest, {});
      return row?.cursor;
    },

    async references(manifest) {
      const rows = await wholeReferences((from) =>
        run(queries.references, {manifest, from, limit: REFERENCES_PER_TURN + 1}),
      );
      return rows.map(({digest, size, required, kind}) => ({
        digest,
        size,
        kind: required === 0 ? 'foreign' : kind,
      }));
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

/** What the disk has damaged is not here: a copy is then fetched again. */
function soundBytes(digest: Digest, stored: Uint8Array): Buffer | undefined {
  const bytes = asBuffer(stored);
  return digestOf(bytes, algorithmOf(digest)) === digest ? bytes : undefined;
}

interface LinkedRow {
  cursor: number;
  registry: string;
  name: RepositoryName;
  digest: Digest;
  mediaType: string;
  origin: Origin;
  bytes: Uint8Array;
}

const linkedManifest = ({registry, name, bytes, ...row}: LinkedRow): LinkedManifest => ({
  ...row,
  repository: {registry, name},
  bytes: asBuffer(bytes),
});

/** Every link with its repository and its manifest, along the links' ids. */
export const manifestLinks = (db: Kysely<Tables>, values: {after: number; limit: number}) =>
  // SQLite goes through the tables of a cross join in the order in which they are written.
  db
    .selectFrom('repository_manifest as link')
    .crossJoin('manifest')
    .crossJoin('repository')
    .select(['link.id as cursor', 'repository.registry', 'repository.name', 'manifest.digest', 'link.origin'])
    .where('link.id', '>', values.after)
    .whereRef('manifest.id', '=', 'link.manifest')
    .whereRef('repository.id', '=', 'link.repository')
    .orderBy('link.id')
    .limit(values.limit);

const linkedManifests = (db: Kysely<Tables>, values: {after: number; limit: number}) =>
  manifestLinks(db, values).select(['link.media_type as mediaType', 'manifest.bytes']);

const compileReads = (db: Kysely<Tables>) => ({
  manifest: statement((values: {repository: number; digest: Digest}) =>
    db
      .selectFrom('manifest')
      .crossJoin('repository_manifest as link')
      .select(['link.media_type as mediaType', 'manifest.bytes', 'link.origin', 'link.linked_at as linkedAt'])
      .where('manifest.digest', '=', values.digest)
      .where('link.repository', '=', values.repository)
      .whereRef('link.manifest', '=', 'manifest.id'),
  ),

  storedManifest: statement((values: {digest: Digest}) =>
    db
      .selectFrom('manifest')
      .crossJoin('repository_manifest as link')
      .select(['manifest.bytes', 'link.media_type as mediaType'])
      .where('manifest.digest', '=', values.digest)
      .whereRef('link.manifest', '=', 'manifest.id')
      .orderBy('link.repository')
      .limit(1),
  ),

  manifests: statement((values: {after: number; limit: number}) => linkedManifests(db, values)),

  localManifests: statement((values: {after: number; limit: number}) =>
    linkedManifests(db, values).where('link.origin', '=', 'local'),
  ),

  lastManifest: statement((_values: object) =>
    db
      .selectFrom('repository_manifest')
      .select('id as cursor')
      .where('id', '>', 0)
      .orderBy('id', 'desc')
      .limit(1),
  ),

  references: statement((values: {manifest: Digest; from: number; limit: number}) =>
    db
      .selectFrom('reference')
      .select(['child as digest', 'size', 'kind', 'required', 'position'])
      .where('manifest', '=', manifestId(db, values.manifest))
      .where('position', '>=', values.from)
      .orderBy('position')
      .limit(values.limit),
  ),
});

/** Reads run on the thread that answers requests, and an index may name 40,000 manifests. */
const REFERENCES_PER_TURN = 1000;

/**
 * All references of a manifest, read in pages, between which other requests run. Each page begins with the last row of the
 * one before: where it is not there any more, the manifest was removed meanwhile, and what was read of it does not count.
 */
async function wholeReferences<Row extends {position: number}>(
  pageFrom: (position: number) => readonly Row[] | Promise<readonly Row[]>,
): Promise<Row[]> {
  let found: Row[] = [];
  for (;;) {
    const last = found.at(-1);
    const page = await pageFrom(last?.position ?? 0);
    if (last && page[0]?.position !== last.position) {
      found = [];
      continue;
    }
    found.push(...page.slice(last ? 1 : 0));
    if (page.length <= REFERENCES_PER_TURN) return found;
    await nextTurn();
  }
}

/** What may be collected, found along indexes that hold nothing else. */
const compileGarbage = (db: Kysely<Tables>) => ({
  // SQLite goes through the tables of a cross join in the order in which they are written.
  uncollectedManifests: statement((values: {limit: number}) =>
    db
      .selectFrom('loose_manifest as loose')
      .crossJoin('manifest')
      .select(['manifest.digest', 'manifest.size'])
      // Holds for every row, and makes SQLite walk along the index.
      .where('loose.digest', '>', '' as Digest)
      .whereRef('manifest.digest', '=', 'loose.digest')
      .limit(values.limit),
  ),

  // What was pushed here does not expire.
  expiredManifests: statement((values: {before: number; limit: number}) =>
    db
      .selectFrom('repository_manifest as link')
      .crossJoin('repository')
      .crossJoin('manifest')
      .select(['repository.registry', 'repository.name', 'manifest.digest'])
      .where('link.expires_at', '<', values.before)
      .where('link.origin', '=', 'upstream')
      .whereRef('repository.id', '=', 'link.repository')
      .whereRef('manifest.id', '=', 'link.manifest')
      .orderBy('link.expires_at')
      .limit(values.limit),
  ),
});
