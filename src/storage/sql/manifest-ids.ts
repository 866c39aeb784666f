import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import {run, type Steps, statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** The id of a stored manifest, as part of a query. */
export const manifestId = (db: Kysely<Tables>, digest: Digest) =>
  db.selectFrom('manifest').select('id').where('digest', '=', digest);

export const compileManifestIds = (db: Kysely<Tables>) => ({
  storedManifest: statement((values: {digest: Digest}) => manifestId(db, values.digest)),
});

/**
 * The id of a manifest that a commit needs.
 * @throws Error when it is not stored: nothing can be linked to it
 */
export function* idOfManifest(writes: ReturnType<typeof compileManifestIds>, digest: Digest): Steps<number> {
  const [stored] = yield* run(writes.storedManifest, {digest});
  if (!stored) throw new Error(`the manifest ${digest} is not stored`);
  return stored.id;
}
