import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {BlobReads, CopiedBlobCursor} from '../metadata.ts';
import type {BlobLinkKey} from './blob-changes.ts';
import {isNamed} from './blobs.ts';
import type {Writes} from './metadata.ts';
import type {RepositoryIds} from './repositories.ts';
import {type ChangesOf, type ReadParts, run, statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** Before every link. */
const FIRST: CopiedBlobCursor = {linkedAt: Number.MIN_SAFE_INTEGER, digest: '' as Digest, repository: 0};

export function createCopiedBlobReads({db, run}: ReadParts): Pick<BlobReads, 'copiedBlobLinks'> {
  const query = compileWalk(db);
  return {
    async copiedBlobLinks(after = FIRST, limit) {
      const rows = await run(query, {...after, limit});
      return rows.map(({registry, name, digest, linkedAt, repository, stored}) => ({
        repository: {registry, name},
        digest,
        linkedAt,
        isStored: stored !== null,
        cursor: {linkedAt, digest, repository},
      }));
    },
  };
}

const compileWalk = (db: Kysely<Tables>) =>
  // SQLite goes through the tables of a cross join in the order in which they are written.
  statement((values: CopiedBlobCursor & {limit: number}) =>
    db
      .selectFrom('repository_blob as link')
      .crossJoin('repository')
      .select((row) => [
        'repository.registry',
        'repository.name',
        'link.repository',
        'link.digest',
        'link.linked_at as linkedAt',
        row.selectFrom('blob').select('blob.size').whereRef('blob.digest', '=', 'link.digest').as('stored'),
      ])
      .where('link.origin', '=', 'upstream')
      .where((row) =>
        row(
          row.refTuple('link.linked_at', 'link.digest', 'link.repository'),
          '>',
          row.tuple(values.linkedAt, values.digest, values.repository),
        ),
      )
      .whereRef('repository.id', '=', 'link.repository')
      .orderBy('link.linked_at')
      .orderBy('link.digest')
      .orderBy('link.repository')
      .limit(values.limit),
  );

export const compileForgetBlob = (db: Kysely<Tables>) => ({
  forgetBlob: statement((values: BlobLinkKey & {before: number}) =>
    db
      .deleteFrom('repository_blob')
      .where('repository', '=', values.repository)
      .where('digest', '=', values.digest)
      .where('origin', '=', 'upstream')
      .where('linked_at', '<', values.before)
      .where((row) =>
        row.not(
          row.exists(row.selectFrom('blob').select('blob.digest').where('blob.digest', '=', values.digest)),
        ),
      ),
  ),
});

export const blobForgetting = (
  writes: Writes,
  repositories: RepositoryIds,
): Pick<ChangesOf<'blob'>, 'blob.forget'> => ({
  'blob.forget': ({repository: key, digest, linkedBefore, namedBefore}) =>
    repositories.inKnown(key, function* (repository) {
      const before = (yield* isNamed(writes, repository, digest)) ? namedBefore : linkedBefore;
      yield* run(writes.forgetBlob, {repository, digest, before});
    }),
});
