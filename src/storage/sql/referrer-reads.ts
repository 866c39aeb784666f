import type {Kysely} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata, ReferrerCursor, ReferrerRecord, RepositoryKey} from '../metadata.ts';
import type {ListKey} from './referrer-writes.ts';
import {type RunStatement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type ReferrerReads = Pick<Metadata, 'referrerList' | 'referrers' | 'referrerRows' | 'referrerSubjects'>;

export interface ReferrerReadsParts {
  db: Kysely<Tables>;
  run: RunStatement;
  /** The id of a repository of which anything is known. */
  idOf(repository: RepositoryKey): Promise<number | undefined>;
}

/** So many types are asked for by one statement; further ones by further statements. */
const TYPES_AT_ONCE = 8;
/** Behind every character that a digest may have. */
const LAST = '~';
/** Before every referrer: no digest is empty. */
const START: ReferrerCursor = {repository: 0, subject: '' as Digest, seq: 0};

/** The reads of the metadata port that concern referrers. */
export function createReferrerReads({db, run, idOf}: ReferrerReadsParts): ReferrerReads {
  const queries = compile(db);
  /** The statements for one type, for two, and so on: each is compiled when it is first asked for. */
  const some = new Map<number, ReturnType<typeof compileOfSome>>();

  const ofSome = (count: number) => {
    const query = some.get(count) ?? compileOfSome(db, count);
    some.set(count, query);
    return query;
  };

  /** Each statement gives its types' first rows; of the rows of several, the first are taken. */
  async function ofTypes(key: ListKey, types: readonly string[], after: number, limit: number) {
    const pages = await Promise.all(
      groups([...new Set(types)]).map((group) => run(ofSome(group.length), {...key, ...group, after, limit})),
    );
    const [first = [], ...others] = pages;
    if (others.length === 0) return first;
    return pages
      .flat()
      .sort((one, other) => one.seq - other.seq)
      .slice(0, limit);
  }

  return {
    async referrerList(repository, subject) {
      const id = await idOf(repository);
      if (id === undefined) return undefined;
      const [row] = await run(queries.list, {repository: id, subject});
      return (
        row && {version: row.version, checkedAt: row.checkedAt ?? undefined, source: row.source ?? undefined}
      );
    },

    async referrers(repository, subject, {types, after = 0, limit}) {
      const id = await idOf(repository);
      if (id === undefined) return [];
      const key = {repository: id, subject};
      const rows = types
        ? await ofTypes(key, types, after, limit)
        : await run(queries.all, {...key, after, limit});
      return rows.map(recordOf);
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

const groups = (types: readonly string[]): string[][] =>
  Array.from({length: Math.ceil(types.length / TYPES_AT_ONCE)}, (_, group) =>
    types.slice(group * TYPES_AT_ONCE, (group + 1) * TYPES_AT_ONCE),
  );

const recordOf = (row: Row): ReferrerRecord => ({
  seq: row.seq,
  digest: row.digest,
  artifactType: row.artifact_type === '' ? undefined : row.artifact_type,
  descriptor: row.descriptor,
  source: row.source,
  listed: row.listed === 1,
});

const COLUMNS = ['seq', 'digest', 'artifact_type', 'descriptor', 'source', 'listed'] as const;
type Row = Pick<Tables['referrer'], (typeof COLUMNS)[number]>;

type PageKey = ListKey & {after: number; limit: number};

function compile(db: Kysely<Tables>) {
  return {
    list: statement((values: ListKey) =>
      db
        .selectFrom('referrer_list')
        .select(['version', 'checked_at as checkedAt', 'source'])
        .where('repository', '=', values.repository)
        .where('subject', '=', values.subject),
    ),

    all: statement((values: PageKey) =>
      db
        .selectFrom('referrer')
        .select(COLUMNS)
        .where('repository', '=', values.repository)
        .where('subject', '=', values.subject)
        .where('seq', '>', values.after)
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

/** Of `count` types, whose values are named by their index. One walk along the index for each, merged as they come. */
function compileOfSome(db: Kysely<Tables>, count: number) {
  return statement((values: PageKey & Record<number, string>) => {
    const ofType = (index: number) =>
      db
        .selectFrom('referrer')
        .select(COLUMNS)
        .where('repository', '=', values.repository)
        .where('subject', '=', values.subject)
        .where('artifact_type', '=', values[index] ?? '')
        .where('seq', '>', values.after);
    let query = ofType(0);
    for (let index = 1; index < count; index++) query = query.unionAll(ofType(index));
    return query.orderBy('seq').limit(values.limit);
  });
}
