import {type Kysely, sql} from 'kysely';
import {LRUCache} from 'lru-cache';
import type {Digest} from '../../oci/digest.ts';
import type {RepositoryName, Tag} from '../../oci/name.ts';
import type {Metadata, RepositoryKey} from '../metadata.ts';
import {asBuffer} from './bytes.ts';
import {createGarbageReads} from './garbage-reads.ts';
import {createJournalReads} from './journal-reads.ts';
import {compileNaming, MANY_MANIFESTS, namingByBlob, namingByRepository} from './naming.ts';
import {createReferrerReads} from './referrer-reads.ts';
import {type RunStatement, type Statement, statement} from './statement.ts';
import type {Tables} from './tables.ts';
import {createUploadReads} from './upload-reads.ts';

const REMEMBERED_REPOSITORIES = 10_000;

/** The reads of the metadata port, over queries that are compiled here, once. */
export function createReads(db: Kysely<Tables>, run: RunStatement): Omit<Metadata, 'commit' | 'close'> {
  const queries = compileReads(db);
  /** A repository's id never changes. Absence is not remembered: the next commit may end it. */
  const ids = new LRUCache<string, number>({max: REMEMBERED_REPOSITORIES});

  const idOf = async ({registry, name}: RepositoryKey): Promise<number | undefined> => {
    const key = `${registry} ${name}`;
    const known = ids.get(key);
    if (known !== undefined) return known;
    const [row] = await run(queries.repository, {registry, name});
    if (row) ids.set(key, row.id);
    return row?.id;
  };

  /** The first row that a query by repository gives; none where nothing is known of the repository. */
  const first = async <Args, Row>(
    query: Statement<Args & {repository: number}, Row>,
    key: RepositoryKey,
    args: Args,
  ): Promise<Row | undefined> => {
    const repository = await idOf(key);
    if (repository === undefined) return undefined;
    return (await run(query, {...args, repository}))[0];
  };

  return {
    ...createReferrerReads({db, run, idOf}),
    ...createUploadReads(db, run),
    ...createJournalReads({db, run, idOf}),
    ...createGarbageReads(db, run),

    async repositories(registry, {after = '', limit}) {
      // The comparison wants any text: `after` need not be a name.
      const rows = await run(queries.repositories, {registry, after: after as RepositoryName, limit});
      return rows.map(({name}) => name);
    },

    hasRepository: async (repository) => (await idOf(repository)) !== undefined,

    async manifest(repository, digest) {
      const row = await first(queries.manifest, repository, {digest});
      return row && {...row, digest, bytes: asBuffer(row.bytes)};
    },

    async storedManifest(digest) {
      const [row] = await run(queries.storedManifest, {digest});
      return row && {mediaType: row.mediaType, bytes: asBuffer(row.bytes)};
    },

    async manifests(after = 0, limit) {
      const rows = await run(queries.manifests, {after, limit});
      return rows.map(({cursor, registry, name, digest, mediaType, bytes}) => ({
        repository: {registry, name},
        digest,
        mediaType,
        bytes: asBuffer(bytes),
        cursor,
      }));
    },

    async lastManifest() {
      const [row] = await run(queries.lastManifest, {});
      return row?.cursor;
    },

    async references(manifest) {
      const rows = await run(queries.references, {manifest});
      return rows.map(({required, kind, ...row}) => ({...row, kind: required === 0 ? 'foreign' : kind}));
    },

    async promisedSize(repository, blob) {
      // A base layer stands in the manifests of everybody: then it is this repository's that are gone through.
      const naming = await run(queries.naming, {blob, limit: MANY_MANIFESTS});
      const query = naming.length < MANY_MANIFESTS ? queries.promisedByBlob : queries.promisedByRepository;
      return (await first(query, repository, {blob}))?.size;
    },

    async tag(repository, name) {
      const row = await first(queries.tag, repository, {name});
      return row && {...row, name, goneAt: row.goneAt ?? undefined};
    },

    async tagList(repository) {
      const row = await first(queries.tagList, repository, {});
      return row && {names: JSON.parse(row.names), checkedAt: row.checkedAt};
    },

    async localTags(key, {after = '', limit}) {
      const repository = await idOf(key);
      if (repository === undefined) return [];
      // The comparison wants any text: `after` need not be a tag.
      const rows = await run(queries.localTags, {repository, after: after as Tag, limit});
      return rows.map(({name}) => name);
    },

    async blob(digest) {
      const [row] = await run(queries.blob, {digest});
      return row && {...row, digest};
    },

    async blobBytes(after = '' as Digest, limit) {
      const rows = await run(queries.blobBytes, {after, limit});
      return {bytes: rows.reduce((sum, {size}) => sum + size, 0), last: rows.at(-1)?.digest};
    },

    async blobLink(repository, digest) {
      const row = await first(queries.blobLink, repository, {digest});
      return row && {...row, digest};
    },

    async blobHolder(registry, digest) {
      const [row] = await run(queries.blobHolder, {registry, digest});
      return row?.name;
    },

    async blobStore() {
      const [row] = await run(queries.blobStore, {});
      const [blob] = await run(queries.anyBlob, {});
      return {id: row?.id, hasBlobs: blob !== undefined};
    },
  };
}

function compileReads(db: Kysely<Tables>) {
  return {
    repository: statement((values: {registry: string; name: RepositoryName}) =>
      db
        .selectFrom('repository')
        .select('id')
        .where('registry', '=', values.registry)
        .where('name', '=', values.name),
    ),

    repositories: statement((values: {registry: string; after: RepositoryName; limit: number}) =>
      db
        .selectFrom('repository')
        .select('name')
        .where('registry', '=', values.registry)
        .where('name', '>', values.after)
        .orderBy('name')
        .limit(values.limit),
    ),

    manifest: statement((values: {repository: number; digest: Digest}) =>
      db
        .selectFrom('repository_manifest as link')
        .innerJoin('manifest', 'manifest.digest', 'link.digest')
        .select([
          'link.media_type as mediaType',
          'manifest.bytes',
          'link.origin',
          'link.linked_at as linkedAt',
        ])
        .where('link.repository', '=', values.repository)
        .where('link.digest', '=', values.digest),
    ),

    storedManifest: statement((values: {digest: Digest}) =>
      db
        .selectFrom('repository_manifest as link')
        .innerJoin('manifest', 'manifest.digest', 'link.digest')
        .select(['manifest.bytes', 'link.media_type as mediaType'])
        .where('link.digest', '=', values.digest)
        .orderBy('link.repository')
        .limit(1),
    ),

    // SQLite goes through the tables of a cross join in the order in which they are written.
    manifests: statement((values: {after: number; limit: number}) =>
      db
        .selectFrom('repository_manifest as link')
        .crossJoin('manifest')
        .crossJoin('repository')
        .select([
          'link.id as cursor',
          'repository.registry',
          'repository.name',
          'link.digest',
          'link.media_type as mediaType',
          'manifest.bytes',
        ])
        .where('link.id', '>', values.after)
        .whereRef('manifest.digest', '=', 'link.digest')
        .whereRef('repository.id', '=', 'link.repository')
        .orderBy('link.id')
        .limit(values.limit),
    ),

    lastManifest: statement((_values: object) =>
      db
        .selectFrom('repository_manifest')
        .select('id as cursor')
        .where('id', '>', 0)
        .orderBy('id', 'desc')
        .limit(1),
    ),

    references: statement((values: {manifest: Digest}) =>
      db
        .selectFrom('reference')
        .select(['child as digest', 'size', 'kind', 'required'])
        .where('manifest', '=', values.manifest)
        .orderBy('position'),
    ),

    naming: compileNaming(db),

    promisedByBlob: statement((place: {repository: number; blob: Digest}) =>
      namingByBlob(db, place).select('reference.size').where('reference.kind', '=', 'blob'),
    ),

    promisedByRepository: statement((place: {repository: number; blob: Digest}) =>
      namingByRepository(db, place).select('reference.size').where('reference.kind', '=', 'blob'),
    ),

    // "local" sorts before "upstream".
    tag: statement((values: {repository: number; name: Tag}) =>
      db
        .selectFrom('tag')
        .select(['digest', 'origin', 'checked_at as checkedAt', 'gone_at as goneAt'])
        .where('repository', '=', values.repository)
        .where('name', '=', values.name)
        .orderBy('origin')
        .limit(1),
    ),

    tagList: statement((values: {repository: number}) =>
      db
        .selectFrom('tag_list')
        .select(['names', 'checked_at as checkedAt'])
        .where('repository', '=', values.repository),
    ),

    localTags: statement((values: {repository: number; after: Tag; limit: number}) =>
      db
        .selectFrom('tag')
        .select('name')
        .where('repository', '=', values.repository)
        // Written into the query: a partial index is not taken for a value that is given when it runs.
        .where('origin', '=', sql.lit('local' as const))
        .where('name', '>', values.after)
        .orderBy('name')
        .limit(values.limit),
    ),

    blobBytes: statement((values: {after: Digest; limit: number}) =>
      db
        .selectFrom('blob')
        .select(['digest', 'size'])
        .where('digest', '>', values.after)
        .orderBy('digest')
        .limit(values.limit),
    ),

    blob: statement((values: {digest: Digest}) =>
      db
        .selectFrom('blob')
        .select(['size', 'state', 'stored_at as storedAt'])
        .where('digest', '=', values.digest),
    ),

    blobLink: statement((values: {repository: number; digest: Digest}) =>
      db
        .selectFrom('repository_blob')
        .select(['size', 'origin', 'linked_at as linkedAt'])
        .where('repository', '=', values.repository)
        .where('digest', '=', values.digest),
    ),

    blobStore: statement((_values: object) => db.selectFrom('blob_store').select('id').where('key', '=', 1)),

    anyBlob: statement((_values: object) =>
      // The condition holds for every row and makes SQLite walk along the index.
      db
        .selectFrom('blob')
        .select('digest')
        .where('digest', '>', sql.lit('' as Digest))
        .limit(1),
    ),

    // SQLite goes through the tables of a cross join in the order in which they are written.
    blobHolder: statement((values: {registry: string; digest: Digest}) =>
      db
        .selectFrom('blob')
        .crossJoin('repository_blob as link')
        .crossJoin('repository')
        .select('repository.name')
        .where('blob.digest', '=', values.digest)
        .where('blob.state', '=', 'ready')
        .whereRef('link.digest', '=', 'blob.digest')
        .whereRef('repository.id', '=', 'link.repository')
        .where('repository.registry', '=', values.registry)
        .limit(1),
    ),
  };
}
