import {type Kysely, sql} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Origin} from '../metadata.ts';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** One repository's link to a manifest. */
export interface ManifestLink {
  repository: number;
  digest: Digest;
}

/** The statements of commits that concern manifests and their links. */
export function compileManifestWrites(db: Kysely<Tables>) {
  return {
    /** Gives a row when the manifest was not here before. */
    putManifest: statement((values: {digest: Digest; size: number; bytes: Uint8Array}) =>
      db
        .insertInto('manifest')
        .values({digest: values.digest, size: values.size, bytes: values.bytes})
        .onConflict((conflict) => conflict.column('digest').doNothing())
        .returning('digest'),
    ),

    putReference: statement(
      (values: {
        manifest: Digest;
        position: number;
        child: Digest;
        kind: 'blob' | 'manifest';
        size: number;
        required: number;
      }) =>
        db.insertInto('reference').values({
          manifest: values.manifest,
          position: values.position,
          child: values.child,
          kind: values.kind,
          size: values.size,
          required: values.required,
        }),
    ),

    // A link that lasts goes on lasting; of two times, the later one is its end.
    // What was pushed here stays so, under its own media type, when the upstream turns out to have it too.
    linkManifest: statement(
      (values: ManifestLink & {origin: Origin; mediaType: string; at: number; expiresAt: number | null}) =>
        db
          .insertInto('repository_manifest')
          .values({
            repository: values.repository,
            digest: values.digest,
            origin: values.origin,
            media_type: values.mediaType,
            linked_at: values.at,
            last_access: values.at,
            expires_at: values.expiresAt,
          })
          .onConflict((conflict) =>
            conflict.columns(['repository', 'digest']).doUpdateSet({
              origin: sql<Origin>`case when repository_manifest.origin = 'local' then 'local' else excluded.origin end`,
              media_type: sql<string>`case when repository_manifest.origin = 'local' and excluded.origin = 'upstream' then repository_manifest.media_type else excluded.media_type end`,
              linked_at: (row) => row.ref('excluded.linked_at'),
              last_access: (row) => row.ref('excluded.last_access'),
              expires_at: sql<
                number | null
              >`case when repository_manifest.expires_at > excluded.expires_at then repository_manifest.expires_at when repository_manifest.expires_at is null then null else excluded.expires_at end`,
            }),
          )
          .returning('media_type as mediaType'),
    ),

    storedManifest: statement((values: {digest: Digest}) =>
      db.selectFrom('manifest').select('digest').where('digest', '=', values.digest),
    ),

    unlinkCopy: statement((values: ManifestLink) =>
      db
        .deleteFrom('repository_manifest')
        .where('repository', '=', values.repository)
        .where('digest', '=', values.digest)
        .where('origin', '=', 'upstream'),
    ),

    manifestLink: statement((values: ManifestLink) =>
      db
        .selectFrom('repository_manifest')
        .select('digest')
        .where('repository', '=', values.repository)
        .where('digest', '=', values.digest),
    ),

    unlinkManifest: statement((values: ManifestLink) =>
      db
        .deleteFrom('repository_manifest')
        .where('repository', '=', values.repository)
        .where('digest', '=', values.digest),
    ),

    /** Marks a manifest that is here when no repository is linked to it. */
    markLooseManifest: statement((values: {digest: Digest}) =>
      db
        .insertInto('loose_manifest')
        .columns(['digest'])
        .expression((from) =>
          from
            .selectFrom('manifest')
            .select('digest')
            .where('digest', '=', values.digest)
            .where((row) =>
              row.not(
                row.exists(
                  row
                    .selectFrom('repository_manifest as link')
                    .select('link.digest')
                    .where('link.digest', '=', values.digest),
                ),
              ),
            ),
        )
        .onConflict((conflict) => conflict.column('digest').doNothing()),
    ),

    unmarkLooseManifest: statement((values: {digest: Digest}) =>
      db.deleteFrom('loose_manifest').where('digest', '=', values.digest),
    ),

    looseManifest: statement((values: {digest: Digest}) =>
      db.selectFrom('loose_manifest').select('digest').where('digest', '=', values.digest),
    ),

    deleteReferences: statement((values: {digest: Digest}) =>
      db.deleteFrom('reference').where('manifest', '=', values.digest),
    ),

    deleteManifest: statement((values: {digest: Digest}) =>
      db.deleteFrom('manifest').where('digest', '=', values.digest),
    ),
  };
}
