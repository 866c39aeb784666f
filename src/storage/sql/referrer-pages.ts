import {type Kysely, type SelectQueryBuilder, sql} from 'kysely';
import type {ReferrerPage, ReferrerText} from '../metadata.ts';
import {asBuffer} from './bytes.ts';
import type {ListKey} from './referrer-writes.ts';
import {type RunStatement, type Statement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type Column = Exclude<keyof Tables['referrer'], keyof ListKey>;
type Row = Pick<Tables['referrer'], Column>;
/** With the types that are asked for, named by their index. */
type PageKey = ListKey & {after: number; limit: number} & Record<number, string>;
/** With the bytes of the largest descriptor that is read. */
type TextKey = PageKey & {most: number};

/** Reads pages of one subject's referrers, in the order of `seq`. */
export type ReadReferrerPage<Read extends Column> = (
  key: ListKey,
  page: ReferrerPage,
) => Promise<readonly Pick<Row, Read>[]>;

/** So many types are asked for by one statement; further ones by further statements. */
const TYPES_AT_ONCE = 8;

/** @param columns what is read of each referrer, `seq` first; of ten thousand, each column counts. */
export function createReferrerPages<Read extends Column>(
  db: Kysely<Tables>,
  run: RunStatement,
  columns: readonly ['seq', ...Read[]],
): ReadReferrerPage<Read | 'seq'> {
  const all = statement((values: PageKey) => pageOfAll(db, columns, values));
  const some = compiledByCount((count) =>
    statement((values: PageKey) => pageOfSome(db, columns, count, values)),
  );

  /** Each statement gives its types' first rows; of the rows of several, the first are taken. */
  async function ofTypes(key: PageKey, types: readonly string[]): Promise<readonly Row[]> {
    const pages = await Promise.all(
      groups(types).map((group) => run(some(group.length), {...key, ...group})),
    );
    const [first = [], ...others] = pages;
    if (others.length === 0) return first;
    return pages
      .flat()
      .sort((one, other) => one.seq - other.seq)
      .slice(0, key.limit);
  }

  return async (list, {types, after = 0, limit}) => {
    const key = {...list, after, limit};
    return types ? ofTypes(key, [...new Set(types)]) : run(all, key);
  };
}

/** Bytes of a descriptor. */
const MOST_OF_SEVERAL = 64 * 1024;

/** Of a page without referrers. */
export const NO_TEXT: ReferrerText = {count: 0, last: undefined, text: Buffer.alloc(0)};

/** Reads the same pages as one text each. */
export type ReadReferrerText = (key: ListKey, page: ReferrerPage) => Promise<ReferrerText>;

export function createReferrerTexts(db: Kysely<Tables>, run: RunStatement): ReadReferrerText {
  const columns = ['seq', 'descriptor'] as const;
  const all = statement((values: TextKey) => asText(db, pageOfAll(db, columns, values), values));
  const some = compiledByCount((count) =>
    statement((values: TextKey) => asText(db, pageOfSome(db, columns, count, values), values)),
  );
  const readRows = createReferrerPages(db, run, columns);

  async function joined(list: ListKey, page: ReferrerPage): Promise<ReferrerText> {
    const rows = await readRows(list, page);
    const text = Buffer.from(rows.map(({descriptor}) => descriptor).join(','));
    return {count: rows.length, last: rows.at(-1)?.seq, text};
  }

  return async (list, page) => {
    const types = page.types && [...new Set(page.types)];
    const most = page.limit === 1 ? Number.MAX_SAFE_INTEGER : MOST_OF_SEVERAL;
    const key = {...list, after: page.after ?? 0, limit: page.limit, most, ...types};
    if (types && groups(types).length !== 1) return joined(list, page);
    const [row] = await run(types ? some(types.length) : all, key);
    if (!row || row.last === null) return NO_TEXT;
    const text = row.text && !row.tooLarge ? asBuffer(row.text) : undefined;
    return {count: row.count, last: row.last, text};
  };
}

/** The statements for one type, for two, and so on: each is compiled when it is first asked for. */
function compiledByCount<Key, Read>(
  compile: (count: number) => Statement<Key, Read>,
): (count: number) => Statement<Key, Read> {
  const known = new Map<number, Statement<Key, Read>>();
  return (count) => {
    const query = known.get(count) ?? compile(count);
    known.set(count, query);
    return query;
  };
}

const groups = (types: readonly string[]): string[][] =>
  Array.from({length: Math.ceil(types.length / TYPES_AT_ONCE)}, (_, group) =>
    types.slice(group * TYPES_AT_ONCE, (group + 1) * TYPES_AT_ONCE),
  );

const pageOfAll = (db: Kysely<Tables>, columns: readonly Column[], values: PageKey) =>
  db
    .selectFrom('referrer')
    .select(columns)
    .where('repository', '=', values.repository)
    .where('subject', '=', values.subject)
    .where('seq', '>', values.after)
    .orderBy('seq')
    .limit(values.limit);

/** Of `count` types. One walk along the index for each, merged as they come. */
function pageOfSome(db: Kysely<Tables>, columns: readonly Column[], count: number, values: PageKey) {
  const ofType = (index: number) =>
    db
      .selectFrom('referrer')
      .select(columns)
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .where('artifact_type', '=', values[index] ?? '')
      .where('seq', '>', values.after);
  let query = ofType(0);
  for (let index = 1; index < count; index++) query = query.unionAll(ofType(index));
  return query.orderBy('seq').limit(values.limit);
}

/**
 * The rows of a page as one. SQLite goes over them in the order of the page; an order of the aggregate's own would have
 * it sort them once more, in twice the time.
 */
const asText = (
  db: Kysely<Tables>,
  page: SelectQueryBuilder<Tables, 'referrer', Row>,
  {most}: Pick<TextKey, 'most'>,
) =>
  db.selectFrom(page.as('page')).select([
    sql<number>`count(*)`.as('count'),
    sql<number | null>`max(seq)`.as('last'),
    sql<number | null>`max(octet_length(descriptor) > ${most})`.as('tooLarge'),
    // As bytes: a string of megabytes would be copied once more, and again to be sent.
    sql<Uint8Array | null>`cast(group_concat(descriptor, ',') filter (where octet_length(descriptor) <= ${most}) as blob)`.as(
      'text',
    ),
  ]);
