import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata, PendingTagChange, RepositoryKey} from '../metadata.ts';
import {type RunStatement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

interface JournalReadsParts {
  db: Kysely<Tables>;
  run: RunStatement;
  /** The id of a repository of which anything is known. */
  idOf(repository: RepositoryKey): Promise<number | undefined>;
}

/** The place of an entry among all. */
interface EntryPlace {
  repository: number;
  subject: Digest;
  digest: Digest;
}

/** Before every entry: no digest is empty. */
const START: EntryPlace = {repository: 0, subject: '' as Digest, digest: '' as Digest};

/** The reads of the metadata port that concern the journal of fallback tags. */
export function createJournalReads({
  db,
  run,
  idOf,
}: JournalReadsParts): Pick<Metadata, 'tagJournal' | 'pendingTagChanges'> {
  const ofSubject = statement((values: {repository: number; subject: Digest}) =>
    db
      .selectFrom('tag_journal')
      .select(COLUMNS)
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject),
  );

  // SQLite goes through the tables of a cross join in the order in which they are written.
  const following = statement((values: EntryPlace & {limit: number}) =>
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
  );

  return {
    async tagJournal(repository, subject) {
      const id = await idOf(repository);
      if (id === undefined) return [];
      const rows = await run(ofSubject, {repository: id, subject});
      return rows.map((row) => entryOf(repository, row)).sort((one, other) => one.at - other.at);
    },

    async pendingTagChanges(after, limit) {
      const id = after && (await idOf(after.repository));
      const place = after && id !== undefined ? {...after, repository: id} : START;
      const rows = await run(following, {...place, limit});
      return rows.map(({registry, name, ...row}) => entryOf({registry, name}, row));
    },
  };
}

const COLUMNS = ['subject', 'digest', 'change', 'at', 'written_at'] as const;
type Row = Pick<Tables['tag_journal'], (typeof COLUMNS)[number]>;

const entryOf = (repository: RepositoryKey, {written_at, ...entry}: Row): PendingTagChange => ({
  repository,
  ...entry,
  writtenAt: written_at ?? undefined,
});
