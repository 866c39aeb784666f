import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {PendingTagChange} from '../metadata.ts';
import {statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** One entry of the journal: the newest for this referrer of this subject, if its time is `at`. */
export interface EntryKey {
  repository: number;
  subject: Digest;
  digest: Digest;
  at: number;
}

/** The statements of commits that concern the journal of fallback tags. */
export function compileJournalWrites(db: Kysely<Tables>) {
  return {
    putEntry: statement((values: EntryKey & {change: PendingTagChange['change']; writtenAt: number | null}) =>
      db
        .insertInto('tag_journal')
        .values({
          repository: values.repository,
          subject: values.subject,
          digest: values.digest,
          change: values.change,
          at: values.at,
          written_at: values.writtenAt,
        })
        .onConflict((conflict) =>
          conflict.columns(['repository', 'subject', 'digest']).doUpdateSet((row) => ({
            change: row.ref('excluded.change'),
            at: row.ref('excluded.at'),
            written_at: row.ref('excluded.written_at'),
          })),
        ),
    ),

    markWritten: statement((values: EntryKey & {writtenAt: number | null}) =>
      db
        .updateTable('tag_journal')
        .set({written_at: values.writtenAt})
        .where('repository', '=', values.repository)
        .where('subject', '=', values.subject)
        .where('digest', '=', values.digest)
        .where('at', '=', values.at),
    ),

    deleteEntry: statement((values: EntryKey) =>
      db
        .deleteFrom('tag_journal')
        .where('repository', '=', values.repository)
        .where('subject', '=', values.subject)
        .where('digest', '=', values.digest)
        .where('at', '=', values.at),
    ),
  };
}
