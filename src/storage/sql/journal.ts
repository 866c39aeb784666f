import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {JournalReads, PendingTagChange, RepositoryKey} from '../metadata.ts';
import type {RepositoryIds} from './repositories.ts';
import {type ChangesOf, type PreconditionsOf, type ReadParts, run, statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** An entry's position in the journal. */
interface EntryPosition {
  repository: number;
  subject: Digest;
  digest: Digest;
}

/** One entry: the newest for this referrer of this subject, if its time is `at`. */
export interface EntryKey extends EntryPosition {
  at: number;
}

/** Before every entry: a digest is never empty. */
const START: EntryPosition = {repository: 0, subject: '' as Digest, digest: '' as Digest};
const COLUMNS = ['subject', 'digest', 'change', 'at', 'written_at'] as const;
type JournalRow = Pick<Tables['tag_journal'], (typeof COLUMNS)[number]>;

export function createJournalReads({db, run, idOf}: ReadParts): JournalReads {
  const queries = compileReads(db);
  return {
    async tagJournal(repository, subject) {
      const id = await idOf(repository);
      if (id === undefined) return [];
      const rows = await run(queries.ofSubject, {repository: id, subject});
      return rows.map((row) => entryOf(repository, row)).sort((one, other) => one.at - other.at);
    },

    async pendingTagChanges(after, limit) {
      const id = after && (await idOf(after.repository));
      const position = after && id !== undefined ? {...after, repository: id} : START;
      const rows = await run(queries.following, {...position, limit});
      return rows.map(({registry, name, ...row}) => entryOf({registry, name}, row));
    },
  };
}

const entryOf = (repository: RepositoryKey, {written_at, ...entry}: JournalRow): PendingTagChange => ({
  repository,
  ...entry,
  writtenAt: written_at ?? undefined,
});

const compileReads = (db: Kysely<Tables>) => ({
  ofSubject: statement((values: {repository: number; subject: Digest}) =>
    db
      .selectFrom('tag_journal')
      .select(COLUMNS)
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject),
  ),

  // SQLite goes through the tables of a cross join in the order in which they are written.
  following: statement((values: EntryPosition & {limit: number}) =>
    db
      .selectFrom('tag_journal')
      .crossJoin('repository')
      .select(['repository.registry', 'repository.name', ...COLUMNS])
      .where((row) =>
        row(
          row.refTuple('tag_journal.repository', 'tag_journal.subject', 'tag_journal.digest'),
          '>',
          row.tuple(values.repository, values.subject, values.digest),
        ),
      )
      .whereRef('repository.id', '=', 'tag_journal.repository')
      .orderBy('tag_journal.repository')
      .orderBy('tag_journal.subject')
      .orderBy('tag_journal.digest')
      .limit(values.limit),
  ),
});

export type JournalWrites = ReturnType<typeof compileJournalWrites>;

export const compileJournalWrites = (db: Kysely<Tables>) => ({
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
});

export const journalChanges = (
  writes: JournalWrites,
  repositories: RepositoryIds,
): ChangesOf<'tag-journal'> => ({
  *'tag-journal.put'({entry: {repository: key, writtenAt = null, ...entry}}) {
    const repository = yield* repositories.findOrCreate(key);
    yield* run(writes.putEntry, {...entry, writtenAt, repository});
  },

  'tag-journal.written': ({entry: {repository: key, subject, digest, at}, writtenAt = null}) =>
    repositories.inKnown(key, (repository) =>
      run(writes.markWritten, {repository, subject, digest, at, writtenAt}),
    ),

  'tag-journal.delete': ({entry: {repository: key, subject, digest, at}}) =>
    repositories.inKnown(key, (repository) => run(writes.deleteEntry, {repository, subject, digest, at})),
});

export type LeaseWrites = ReturnType<typeof compileLeaseWrites>;

export const compileLeaseWrites = (db: Kysely<Tables>) => ({
  lease: statement((values: {key: string}) =>
    db.selectFrom('lease').select(['owner', 'until']).where('key', '=', values.key),
  ),

  putLease: statement((values: {key: string; owner: string; until: number}) =>
    db
      .insertInto('lease')
      .values({key: values.key, owner: values.owner, until: values.until})
      .onConflict((conflict) =>
        conflict.column('key').doUpdateSet((row) => ({
          owner: row.ref('excluded.owner'),
          until: row.ref('excluded.until'),
        })),
      ),
  ),

  deleteLease: statement((values: {key: string; owner: string}) =>
    db.deleteFrom('lease').where('key', '=', values.key).where('owner', '=', values.owner),
  ),
});

export const leaseChanges = (writes: LeaseWrites): ChangesOf<'lease'> => ({
  'lease.put': ({lease}) => run(writes.putLease, lease),
  'lease.delete': ({key, owner}) => run(writes.deleteLease, {key, owner}),
});

export const leasePreconditions = (writes: LeaseWrites): PreconditionsOf<'lease'> => ({
  *'lease.free'({key, owner, at, maxLifeMs}) {
    const [lease] = yield* run(writes.lease, {key});
    if (lease === undefined || lease.owner === owner) return true;
    return lease.until <= at || lease.until > at + maxLifeMs;
  },

  *'lease.held'({key, owner}) {
    const [lease] = yield* run(writes.lease, {key});
    return lease?.owner === owner;
  },
});
