import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Tag} from '../../oci/name.ts';
import type {BlobLinkCursor, ReferenceCursor, RootReads, TagCursor} from '../metadata.ts';
import {manifestLinks} from './manifests.ts';
import {type ReadParts, statement} from './statement.ts';
import type {Tables} from './tables.ts';

// Before everything: neither a digest nor a tag is empty, and ids begin with 1.
const FIRST_REFERENCE: ReferenceCursor = {manifest: 0, position: 0};
const FIRST_TAG: TagCursor = {repository: 0, name: '' as Tag, origin: 'local'};
const FIRST_BLOB_LINK: BlobLinkCursor = {digest: '' as Digest, repository: 0};

export function createRootReads({db, run, idOf}: ReadParts): RootReads {
  const queries = {...compileGraph(db), ...compileNames(db), ...compileState(db)};
  return {
    async links(after = 0, limit) {
      const rows = await run(queries.links, {after, limit});
      return rows.map(({registry, name, expiresAt, ...row}) => ({
        ...row,
        repository: {registry, name},
        expiresAt: expiresAt ?? undefined,
      }));
    },

    async allReferences(after = FIRST_REFERENCE, limit) {
      const rows = await run(queries.allReferences, {...after, limit});
      return rows.map(({id, digest, position, child, kind}) => ({
        manifest: digest,
        child,
        kind,
        cursor: {manifest: id, position},
      }));
    },

    async allTags(after = FIRST_TAG, limit) {
      const rows = await run(queries.allTags, {...after, limit});
      return rows.map(({id, registry, name, tag, digest, origin}) => ({
        repository: {registry, name},
        name: tag,
        digest,
        origin,
        cursor: {repository: id, name: tag, origin},
      }));
    },

    async localBlobLinks(after = FIRST_BLOB_LINK, limit) {
      const rows = await run(queries.localBlobLinks, {...after, limit});
      return rows.map(({digest, repository}) => ({digest, cursor: {digest, repository}}));
    },

    async ownSubjects(repository, digest) {
      const id = await idOf(repository);
      if (id === undefined) return [];
      const rows = await run(queries.ownSubjects, {repository: id, digest});
      return rows.map(({subject}) => subject);
    },

    async pins() {
      const rows = await run(queries.pins, {});
      return rows.map((row) => ({...row}));
    },

    async cacheAge() {
      const [row] = await run(queries.cacheAge, {});
      return row?.age ?? 0;
    },
  };
}

const compileGraph = (db: Kysely<Tables>) => ({
  links: statement((values: {after: number; limit: number}) =>
    manifestLinks(db, values).select([
      'manifest.size',
      'link.linked_at as linkedAt',
      'link.last_access as lastAccess',
      'link.uses',
      'link.age',
      'link.expires_at as expiresAt',
    ]),
  ),

  allReferences: statement((values: ReferenceCursor & {limit: number}) =>
    db
      .selectFrom('reference')
      .crossJoin('manifest')
      .select(['manifest.id', 'manifest.digest', 'position', 'child', 'kind'])
      .where((row) =>
        row(
          row.refTuple('reference.manifest', 'reference.position'),
          '>',
          row.tuple(values.manifest, values.position),
        ),
      )
      .whereRef('manifest.id', '=', 'reference.manifest')
      .orderBy('reference.manifest')
      .orderBy('reference.position')
      .limit(values.limit),
  ),

  localBlobLinks: statement((values: BlobLinkCursor & {limit: number}) =>
    db
      .selectFrom('repository_blob')
      .select(['digest', 'repository'])
      .where('origin', '=', 'local')
      .where((row) =>
        row(row.refTuple('digest', 'repository'), '>', row.tuple(values.digest, values.repository)),
      )
      .orderBy('digest')
      .orderBy('repository')
      .limit(values.limit),
  ),
});

const compileNames = (db: Kysely<Tables>) => ({
  // SQLite goes through the tables of a cross join in the order in which they are written.
  allTags: statement((values: TagCursor & {limit: number}) =>
    db
      .selectFrom('tag')
      .crossJoin('repository')
      .select([
        'repository.id',
        'repository.registry',
        'repository.name',
        'tag.name as tag',
        'tag.digest',
        'tag.origin',
      ])
      .where((row) =>
        row(
          row.refTuple('tag.repository', 'tag.name', 'tag.origin'),
          '>',
          row.tuple(values.repository, values.name, values.origin),
        ),
      )
      .whereRef('repository.id', '=', 'tag.repository')
      .orderBy('tag.repository')
      .orderBy('tag.name')
      .orderBy('tag.origin')
      .limit(values.limit),
  ),

  pins: statement((_values: object) =>
    db
      .selectFrom('pin')
      .select(['registry', 'name', 'reference', 'at'])
      // Holds for every row, and makes SQLite walk along the index.
      .where('registry', '>', '')
      .orderBy('registry')
      .orderBy('name')
      .orderBy('reference'),
  ),
});

const compileState = (db: Kysely<Tables>) => ({
  ownSubjects: statement((values: {repository: number; digest: Digest}) =>
    db
      .selectFrom('referrer')
      .select('subject')
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest)
      .where('source', '=', 'content'),
  ),

  cacheAge: statement((_values: object) => db.selectFrom('cache_age').select('age').where('key', '=', 1)),
});
