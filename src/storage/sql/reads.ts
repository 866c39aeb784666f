import type {Kysely} from 'kysely';
import {LRUCache} from 'lru-cache';
import type {Digest} from '../../oci/digest.ts';
import type {RepositoryName, Tag} from '../../oci/name.ts';
import type {Metadata, RepositoryKey} from '../metadata.ts';
import {type Statement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** Runs one statement: at once on SQLite, over the network on PostgreSQL. */
export type RunStatement = <Args, Row>(
  query: Statement<Args, Row>,
  args: Args,
) => readonly Row[] | Promise<readonly Row[]>;

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
    async repositories(registry, {after = '', limit}) {
      // The comparison wants any text: `after` need not be a name.
      const rows = await run(queries.repositories, {registry, after: after as RepositoryName, limit});
      return rows.map(({name}) => name);
    },

    async manifest(repository, digest) {
      const row = await first(queries.manifest, repository, {digest});
      return row && {...row, digest, bytes: asBuffer(row.bytes)};
    },

    async storedManifest(digest) {
      const [row] = await run(queries.storedManifest, {digest});
      return row && {...row};
    },

    async references(manifest) {
      const rows = await run(queries.references, {manifest});
      return rows.map((row) => ({...row}));
    },

    async promisedSize(repository, blob) {
      return (await first(queries.promisedSize, repository, {blob}))?.size;
    },

    async tag(repository, name) {
      const row = await first(queries.tag, repository, {name});
      return row && {...row, name, goneAt: row.goneAt ?? undefined};
    },

    async tagList(repository) {
      const row = await first(queries.tagList, repository, {});
      return row && {names: JSON.parse(row.names), checkedAt: row.checkedAt};
    },

    async blob(digest) {
      const [row] = await run(queries.blob, {digest});
      return row && {...row, digest};
    },

    async blobLink(repository, digest) {
      const row = await first(queries.blobLink, repository, {digest});
      return row && {...row, digest};
    },
  };
}

/** Drivers give bytes as they like; Koa would serve a Uint8Array as JSON. */
const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

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
        .select(['manifest.size', 'link.media_type as mediaType'])
        .where('link.digest', '=', values.digest)
        .orderBy('link.repository')
        .limit(1),
    ),

    references: statement((values: {manifest: Digest}) =>
      db
        .selectFrom('reference')
        .select(['child as digest', 'size', 'kind'])
        .where('manifest', '=', values.manifest)
        .orderBy('position'),
    ),

    promisedSize: statement((values: {repository: number; blob: Digest}) =>
      db
        .selectFrom('reference')
        .innerJoin('repository_manifest as link', 'link.digest', 'reference.manifest')
        .select('reference.size')
        .where('reference.child', '=', values.blob)
        .where('reference.kind', '=', 'blob')
        .where('link.repository', '=', values.repository)
        .limit(1),
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
  };
}
