import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import {statement} from './statement.ts';
import {run, type Steps} from './steps.ts';
import type {Tables} from './tables.ts';

/** A blob that so many manifests name is looked for from the repository's side. */
export const MANY_MANIFESTS = 200;

/** Some of the manifests that name a blob, in whatever repository. */
export const compileNaming = (db: Kysely<Tables>) =>
  statement((values: {blob: Digest; limit: number}) =>
    db.selectFrom('reference').select('manifest').where('child', '=', values.blob).limit(values.limit),
  );

/** A repository, and a blob that it may have a use for. */
export interface Place {
  repository: number;
  blob: Digest;
}

/** One place where a manifest that the repository is linked to names the blob, looked for from the blob's side. */
export const namingByBlob = (db: Kysely<Tables>, {repository, blob}: Place) =>
  db
    .selectFrom('reference')
    // SQLite goes through the tables of a cross join in the order in which they are written.
    .crossJoin('repository_manifest as link')
    .where('reference.child', '=', blob)
    .where('link.repository', '=', repository)
    .whereRef('link.digest', '=', 'reference.manifest')
    .limit(1);

/** The same, looked for from the repository's side. */
export const namingByRepository = (db: Kysely<Tables>, {repository, blob}: Place) =>
  db
    .selectFrom('repository_manifest as link')
    .crossJoin('reference')
    .where('link.repository', '=', repository)
    .where('reference.child', '=', blob)
    .whereRef('reference.manifest', '=', 'link.digest')
    .limit(1);

/** The statements of commits that ask whether a repository has a use for a blob. */
export type NamingWrites = ReturnType<typeof compileNamingWrites>;

export function compileNamingWrites(db: Kysely<Tables>) {
  return {
    naming: compileNaming(db),
    // Nothing but what stands in the indexes: no row is read for them.
    namedByBlob: statement((place: Place) => namingByBlob(db, place).select('link.digest')),
    namedByRepository: statement((place: Place) => namingByRepository(db, place).select('link.digest')),
  };
}

/** Whether a manifest that the repository is linked to names the blob. */
export function* isNamed(writes: NamingWrites, repository: number, blob: Digest): Steps<boolean> {
  const naming = yield* run(writes.naming, {blob, limit: MANY_MANIFESTS});
  const query = naming.length < MANY_MANIFESTS ? writes.namedByBlob : writes.namedByRepository;
  return (yield* run(query, {repository, blob})).length > 0;
}
