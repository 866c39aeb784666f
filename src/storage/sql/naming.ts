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

/** The statements of commits that ask whether a repository has a use for a blob. */
export type NamingWrites = ReturnType<typeof compileNamingWrites>;

export function compileNamingWrites(db: Kysely<Tables>) {
  return {
    naming: compileNaming(db),

    // SQLite goes through the tables of a cross join in the order in which they are written.
    namedByBlob: statement((values: {repository: number; blob: Digest}) =>
      db
        .selectFrom('reference')
        .crossJoin('repository_manifest as link')
        .select('link.digest')
        .where('reference.child', '=', values.blob)
        .where('link.repository', '=', values.repository)
        .whereRef('link.digest', '=', 'reference.manifest')
        .limit(1),
    ),

    namedByRepository: statement((values: {repository: number; blob: Digest}) =>
      db
        .selectFrom('repository_manifest as link')
        .crossJoin('reference')
        .select('link.digest')
        .where('link.repository', '=', values.repository)
        .where('reference.child', '=', values.blob)
        .whereRef('reference.manifest', '=', 'link.digest')
        .limit(1),
    ),
  };
}

/** Whether a manifest that the repository is linked to names the blob. */
export function* isNamed(writes: NamingWrites, repository: number, blob: Digest): Steps<boolean> {
  const naming = yield* run(writes.naming, {blob, limit: MANY_MANIFESTS});
  const query = naming.length < MANY_MANIFESTS ? writes.namedByBlob : writes.namedByRepository;
  return (yield* run(query, {repository, blob})).length > 0;
}
