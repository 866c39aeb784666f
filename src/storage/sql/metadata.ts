import type {Kysely} from 'kysely';
import {createLru} from '../../lru.ts';
import {fullName, type MetadataReads} from '../metadata.ts';
import {compileBlobWrites} from './blob-changes.ts';
import {compileForgetBlob, createCopiedBlobReads} from './blob-forgetting.ts';
import {createBlobReads} from './blobs.ts';
import {compileEvictionWrites} from './eviction.ts';
import {compileJournalWrites, compileLeaseWrites, createJournalReads} from './journal.ts';
import {compileManifestWrites} from './manifest-changes.ts';
import {createManifestReads} from './manifests.ts';
import {compilePinWrites} from './pins.ts';
import {compilePullWrites, createPullReads} from './pulls.ts';
import {compileReferrerWrites} from './referrer-writes.ts';
import {createReferrerReads} from './referrers.ts';
import {compileRepositoryWrites, createRepositoryReads, repositoryByName} from './repositories.ts';
import {compileRobotWrites, createRobotReads} from './robots.ts';
import {createRootReads} from './roots.ts';
import type {ReadParts, RunStatement} from './statement.ts';
import type {Tables} from './tables.ts';
import {compileTagWrites, createTagReads} from './tags.ts';
import {compileUploadWrites, createUploadReads} from './uploads.ts';

/** The reads of the metadata port, over queries that are compiled here, once. */
export function createReads(db: Kysely<Tables>, run: RunStatement): MetadataReads {
  const parts = {db, run, idOf: createIdOf(db, run)};
  return {
    ...createRepositoryReads(parts),
    ...createManifestReads(parts),
    ...createReferrerReads(parts),
    ...createTagReads(parts),
    ...createBlobReads(parts),
    ...createCopiedBlobReads(parts),
    ...createUploadReads(parts),
    ...createJournalReads(parts),
    ...createPullReads(parts),
    ...createRobotReads(parts),
    ...createRootReads(parts),
  };
}

const MAX_IDS = 10_000;

/** Looks up the ids of repositories, and remembers them. */
function createIdOf(db: Kysely<Tables>, run: RunStatement): ReadParts['idOf'] {
  const query = repositoryByName(db);
  /** A repository's id never changes. Absence is not remembered: the next commit may end it. */
  const ids = createLru<string, number>(MAX_IDS);
  return async (repository) => {
    const key = fullName(repository);
    const known = ids.get(key);
    if (known !== undefined) return known;
    const {registry, name} = repository;
    const [row] = await run(query, {registry, name});
    if (row) ids.set(key, row.id);
    return row?.id;
  };
}

/** The statements that commits are made of. */
export type Writes = ReturnType<typeof compileWrites>;

/** Compiles them; see `createCommit`. */
export const compileWrites = (db: Kysely<Tables>) => ({
  ...compileRepositoryWrites(db),
  ...compileManifestWrites(db),
  ...compileReferrerWrites(db),
  ...compileTagWrites(db),
  ...compileBlobWrites(db),
  ...compileForgetBlob(db),
  ...compileUploadWrites(db),
  ...compileJournalWrites(db),
  ...compileLeaseWrites(db),
  ...compilePinWrites(db),
  ...compilePullWrites(db),
  ...compileRobotWrites(db),
  ...compileEvictionWrites(db),
});
