import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {BlobReads} from '../metadata.ts';
import {first, type ReadParts, run, type Steps, statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** A repository, and a blob that it may have a use for. */
export interface BlobUse {
  repository: number;
  blob: Digest;
}

export function createBlobReads({db, run, idOf}: ReadParts): Omit<BlobReads, 'copiedBlobLinks'> {
  const queries = {...compileBlobs(db), ...compileLinks(db), ...compilePromises(db), ...compileGarbage(db)};
  return {
    async blob(digest) {
      const [row] = await run(queries.blob, {digest});
      return row && {...row, digest};
    },

    async blobBytes(after = '' as Digest, limit) {
      const rows = await run(queries.blobBytes, {after, limit});
      return {bytes: rows.reduce((sum, {size}) => sum + size, 0), last: rows.at(-1)?.digest};
    },

    async blobs(after = '' as Digest, limit) {
      const rows = await run(queries.blobs, {after, limit});
      return rows.map((row) => ({...row}));
    },

    async blobLink(repository, digest) {
      const row = await first({run, idOf}, queries.blobLink, repository, {digest});
      return row && {...row, digest};
    },

    async localBlobBytes(repository) {
      return (await first({run, idOf}, queries.localBlobBytes, repository, {}))?.bytes ?? 0;
    },

    async blobHolders(registry, digest, limit) {
      const rows = await run(queries.blobHolders, {registry, digest, limit});
      return rows.map(({name}) => name);
    },

    async blobStore() {
      const [row] = await run(queries.blobStore, {});
      const [blob] = await run(queries.anyBlob, {});
      return {id: row?.id, hasBlobs: blob !== undefined};
    },

    async promisedSize(repository, blob) {
      // A base layer is in everybody's manifests: then it is this repository's that are searched.
      const naming = await run(queries.naming, {blob, limit: MANY_MANIFESTS});
      const query = naming.length < MANY_MANIFESTS ? queries.promisedByBlob : queries.promisedByRepository;
      return (await first({run, idOf}, query, repository, {blob}))?.size;
    },

    async unreferencedBlobs(before, limit) {
      const rows = await run(queries.unreferencedBlobs, {before, limit});
      return rows.map(({registry, name, digest, size}) => ({repository: {registry, name}, digest, size}));
    },

    async uncollectedBlobs(before, limit) {
      const rows = await run(queries.uncollectedBlobs, {before, limit});
      return rows.map((row) => ({...row}));
    },
  };
}

const compileBlobs = (db: Kysely<Tables>) => ({
  blobBytes: statement((values: {after: Digest; limit: number}) =>
    db
      .selectFrom('blob')
      .select(['digest', 'size'])
      .where('digest', '>', values.after)
      .orderBy('digest')
      .limit(values.limit),
  ),

  blobs: statement((values: {after: Digest; limit: number}) =>
    db
      .selectFrom('blob')
      .select(['digest', 'size', 'state', 'stored_at as storedAt'])
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

  blobStore: statement((_values: object) => db.selectFrom('blob_store').select('id').where('key', '=', 1)),

  anyBlob: statement((_values: object) =>
    // The condition holds for every row and makes SQLite walk along the index.
    db
      .selectFrom('blob')
      .select('digest')
      .where('digest', '>', '' as Digest)
      .limit(1),
  ),

  // SQLite goes through the tables of a cross join in the order in which they are written.
  blobHolders: statement((values: {registry: string; digest: Digest; limit: number}) =>
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
      .limit(values.limit),
  ),
});

const compileLinks = (db: Kysely<Tables>) => ({
  blobLink: statement((values: {repository: number; digest: Digest}) =>
    db
      .selectFrom('repository_blob')
      .select(['size', 'origin', 'linked_at as linkedAt'])
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest),
  ),

  localBlobBytes: statement((values: {repository: number}) =>
    db.selectFrom('repository').select('local_bytes as bytes').where('id', '=', values.repository),
  ),
});

const compilePromises = (db: Kysely<Tables>) => ({
  naming: compileNaming(db),

  promisedByBlob: statement((use: BlobUse) =>
    namingByBlob(db, use).select('reference.size').where('reference.kind', '=', 'blob'),
  ),

  promisedByRepository: statement((use: BlobUse) =>
    namingByRepository(db, use).select('reference.size').where('reference.kind', '=', 'blob'),
  ),
});

const GARBAGE = ['digest', 'size', 'state', 'stored_at as storedAt'] as const;

/**
 * What may be collected. Commits mark it as soon as nothing refers to it: these walk along partial indexes of the marked
 * rows, and never read the rest.
 */
const compileGarbage = (db: Kysely<Tables>) => ({
  // SQLite goes through the tables of a cross join in the order in which they are written.
  unreferencedBlobs: statement((values: {before: number; limit: number}) =>
    db
      .selectFrom('repository_blob as link')
      .crossJoin('repository')
      .select(['repository.registry', 'repository.name', 'link.digest', 'link.size'])
      .where('link.loose', '=', 1)
      .where('link.linked_at', '<', values.before)
      .whereRef('repository.id', '=', 'link.repository')
      .orderBy('link.linked_at')
      .limit(values.limit),
  ),

  uncollectedBlobs: statement((values: {before: number; limit: number}) =>
    db
      .selectFrom('blob')
      .select(GARBAGE)
      .where('loose', '=', 1)
      .where('state', '!=', 'deleting')
      .where('stored_at', '<', values.before)
      .unionAll(
        db
          .selectFrom('blob')
          .select(GARBAGE)
          .where('state', '=', 'deleting')
          // Holds for every row, and makes SQLite walk along the index.
          .where('digest', '>', '' as Digest),
      )
      .limit(values.limit),
  ),
});

/** A blob that at least this many manifests name is looked for from the repository's side. */
const MANY_MANIFESTS = 200;

/** Some of the manifests that name a blob, in whatever repository. */
const compileNaming = (db: Kysely<Tables>) =>
  statement((values: {blob: Digest; limit: number}) =>
    db.selectFrom('reference').select('manifest').where('child', '=', values.blob).limit(values.limit),
  );

/** One place where a manifest that the repository is linked to names the blob, looked for from the blob's side. */
const namingByBlob = (db: Kysely<Tables>, {repository, blob}: BlobUse) =>
  db
    .selectFrom('reference')
    // SQLite goes through the tables of a cross join in the order in which they are written.
    .crossJoin('repository_manifest as link')
    .where('reference.child', '=', blob)
    .where('link.repository', '=', repository)
    .whereRef('link.manifest', '=', 'reference.manifest')
    .limit(1);

/** The same, looked for from the repository's side. */
const namingByRepository = (db: Kysely<Tables>, {repository, blob}: BlobUse) =>
  db
    .selectFrom('repository_manifest as link')
    .crossJoin('reference')
    .where('link.repository', '=', repository)
    .where('reference.child', '=', blob)
    .whereRef('reference.manifest', '=', 'link.manifest')
    .limit(1);

type NamingWrites = ReturnType<typeof compileNamingWrites>;

/** The statements of commits that ask whether a repository has a use for a blob. They read the indexes alone. */
export const compileNamingWrites = (db: Kysely<Tables>) => ({
  naming: compileNaming(db),
  namedByBlob: statement((use: BlobUse) => namingByBlob(db, use).select('link.manifest')),
  namedByRepository: statement((use: BlobUse) => namingByRepository(db, use).select('link.manifest')),
});

/** Whether a manifest that the repository is linked to names the blob. */
export function* isNamed(writes: NamingWrites, repository: number, blob: Digest): Steps<boolean> {
  const naming = yield* run(writes.naming, {blob, limit: MANY_MANIFESTS});
  const query = naming.length < MANY_MANIFESTS ? writes.namedByBlob : writes.namedByRepository;
  return (yield* run(query, {repository, blob})).length > 0;
}
