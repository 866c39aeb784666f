import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata, ReferrerCursor, ReferrerRecord, RepositoryKey} from '../metadata.ts';
import {createReferrerPages, createReferrerTexts, NO_TEXT} from './referrer-pages.ts';
import type {ListKey} from './referrer-writes.ts';
import {type RunStatement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type ReferrerReads = Pick<
  Metadata,
  'referrerList' | 'referrers' | 'referrerText' | 'unlistedReferrers' | 'referrerRows' | 'referrerSubjects'
>;

export interface ReferrerReadsParts {
  db: Kysely<Tables>;
  run: RunStatement;
  /** The id of a repository of which anything is known. */
  idOf(repository: RepositoryKey): Promise<number | undefined>;
}

/** Behind every character that a digest may have. */
const LAST = '~';
/** Before every referrer: no digest is empty. */
const START: ReferrerCursor = {repository: 0, subject: '' as Digest, seq: 0};

/** The reads of the metadata port that concern referrers. */
export function createReferrerReads({db, run, idOf}: ReferrerReadsParts): ReferrerReads {
  const queries = compile(db);
  const readRecords = createReferrerPages(db, run, RECORD);
  const readText = createReferrerTexts(db, run);

  return {
    async referrerList(repository, subject) {
      const id = await idOf(repository);
      if (id === undefined) return undefined;
      const [row] = await run(queries.list, {repository: id, subject});
      return row && {...row, checkedAt: row.checkedAt ?? undefined, source: row.source ?? undefined};
    },

    async referrers(repository, subject, page) {
      const id = await idOf(repository);
      if (id === undefined) return [];
      return (await readRecords({repository: id, subject}, page)).map(recordOf);
    },

    async referrerText(repository, subject, page) {
      const id = await idOf(repository);
      return id === undefined ? NO_TEXT : readText({repository: id, subject}, page);
    },

    async unlistedReferrers(repository, subject, limit) {
      const id = await idOf(repository);
      if (id === undefined) return [];
      const rows = await run(queries.unlisted, {repository: id, subject, limit});
      return rows.map(({digest}) => digest);
    },

    async referrerRows(after = START, limit) {
      const rows = await run(queries.rows, {...after, limit});
      return rows.map(({repository, registry, name, subject, seq, digest, source}) => ({
        repository: {registry, name},
        subject,
        digest,
        source,
        cursor: {repository, subject, seq},
      }));
    },

    async referrerSubjects(repository, prefix) {
      const id = await idOf(repository);
      if (id === undefined) return [];
      const rows = await run(queries.subjects, {
        repository: id,
        from: prefix as Digest,
        to: `${prefix}${LAST}` as Digest,
      });
      return rows.map(({subject}) => subject);
    },
  };
}

const RECORD = ['seq', 'digest', 'artifact_type', 'descriptor', 'source', 'listed'] as const;

const recordOf = (row: Pick<Tables['referrer'], (typeof RECORD)[number]>): ReferrerRecord => ({
  seq: row.seq,
  digest: row.digest,
  artifactType: row.artifact_type === '' ? undefined : row.artifact_type,
  descriptor: row.descriptor,
  source: row.source,
  listed: row.listed === 1,
});

function compile(db: Kysely<Tables>) {
  return {
    list: statement((values: ListKey) =>
      db
        .selectFrom('referrer_list')
        .select(['version', 'amended', 'checked_at as checkedAt', 'source'])
        .where('repository', '=', values.repository)
        .where('subject', '=', values.subject),
    ),

    unlisted: statement((values: ListKey & {limit: number}) =>
      db
        .selectFrom('referrer')
        .select('digest')
        .where('repository', '=', values.repository)
        .where('subject', '=', values.subject)
        .where('listed', '=', 0)
        .orderBy('seq')
        .limit(values.limit),
    ),

    // SQLite goes through the tables of a cross join in the order in which they are written.
    rows: statement((values: ReferrerCursor & {limit: number}) =>
      db
        .selectFrom('referrer')
        .crossJoin('repository')
        .select([
          'referrer.repository',
          'repository.registry',
          'repository.name',
          'referrer.subject',
          'referrer.seq',
          'referrer.digest',
          'referrer.source',
        ])
        .where((row) =>
          row(
            row.refTuple('referrer.repository', 'referrer.subject', 'referrer.seq'),
            '>',
            row.tuple(values.repository, values.subject, values.seq),
          ),
        )
        .whereRef('repository.id', '=', 'referrer.repository')
        .orderBy('referrer.repository')
        .orderBy('referrer.subject')
        .orderBy('referrer.seq')
        .limit(values.limit),
    ),

    subjects: statement((values: {repository: number; from: Digest; to: Digest}) =>
      db
        .selectFrom('referrer_list')
        .select('subject')
        .where('repository', '=', values.repository)
        .where('subject', '>=', values.from)
        .where('subject', '<', values.to)
        .orderBy('subject'),
    ),
  };
}
