import {type Kysely, type SelectQueryBuilder, sql} from 'kysely';
import type {ReferrerPage, ReferrerText} from '../metadata.ts';
import {asBuffer} from './bytes.ts';
import type {ListKey} from './referrer-writes.ts';
import {type RunStatement, type Statement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type Column = Exclude<keyof Tables['referrer'], keyof ListKey>;
type Row = Pick<Tables['referrer'], Column>;
type Page = SelectQueryBuilder<Tables, 'referrer', Row>;
/** With the types that are asked for: named by their index, or a JSON array of them. */
type PageKey = ListKey & {after: number; limit: number; types: string} & Record<number, string>;
/** With the bytes of the largest descriptor that is read. */
type TextKey = PageKey & {most: number};

/** Reads pages of one subject's referrers, in the order of `seq`. */
export type ReadReferrerPage<Read extends Column> = (
  key: ListKey,
  page: ReferrerPage,
) => Promise<readonly Pick<Row, Read>[]>;

/** For so many types there is a statement each, whose walks end with the page. */
const MAX_WALKS = 8;

/** @param columns what is read of each referrer, `seq` first; of ten thousand, each column counts. */
export function createReferrerPages<Read extends Column>(
  db: Kysely<Tables>,
  run: RunStatement,
  columns: readonly ['seq', ...Read[]],
): ReadReferrerPage<Read | 'seq'> {
  const pageFor = byTypes(db, columns, (pageOf) => statement((values: PageKey) => pageOf(values)));
  return async (list, {types, after = 0, limit}) => {
    const {query, filter} = pageFor(types);
    return run(query, {...list, after, limit, ...filter});
  };
}

/** Bytes of a descriptor. */
const MAX_OF_SEVERAL = 64 * 1024;

/** Of a page without referrers. */
export const NO_TEXT: ReferrerText = {count: 0, last: undefined, text: Buffer.alloc(0)};

/** Reads the same pages as one text each. */
export type ReadReferrerText = (key: ListKey, page: ReferrerPage) => Promise<ReferrerText>;

export function createReferrerTexts(db: Kysely<Tables>, run: RunStatement): ReadReferrerText {
  const pageFor = byTypes(db, ['seq', 'descriptor'], (pageOf: (values: TextKey) => Page) =>
    statement((values: TextKey) => asText(db, pageOf(values), values)),
  );
  return async (list, {types, after = 0, limit}) => {
    const {query, filter} = pageFor(types);
    const most = limit === 1 ? Number.MAX_SAFE_INTEGER : MAX_OF_SEVERAL;
    const [row] = await run(query, {...list, after, limit, most, ...filter});
    if (!row || row.last === null) return NO_TEXT;
    const text = row.text && !row.tooLarge ? asBuffer(row.text) : undefined;
    return {count: row.count, last: row.last, text};
  };
}

/** What a statement is given of a filter. */
type Filter = Pick<PageKey, 'types' | number>;

/** The statements on pages of all referrers and of those of so many types; each is compiled when it is first asked for. */
function byTypes<Key extends PageKey, Read>(
  db: Kysely<Tables>,
  columns: readonly Column[],
  compile: (pageOf: (values: Key) => Page) => Statement<Key, Read>,
): (types: readonly string[] | undefined) => {query: Statement<Key, Read>; filter: Filter} {
  const known = new Map<number | 'all' | 'many', Statement<Key, Read>>();
  const once = (name: number | 'all' | 'many', pageOf: (values: Key) => Page) => {
    const query = known.get(name) ?? compile(pageOf);
    known.set(name, query);
    return query;
  };
  return (types) => {
    const wanted = [...new Set(types)];
    const count = wanted.length;
    const filter = {...wanted, types: JSON.stringify(wanted)};
    if (!types) return {query: once('all', (values) => pageOfAll(db, columns, values)), filter};
    const isFew = count > 0 && count <= MAX_WALKS;
    const query = isFew
      ? once(count, (values) => pageOfSome(db, columns, count, values))
      : once('many', (values) => pageOfMany(db, columns, values));
    return {query, filter};
  };
}

const pageOfAll = (db: Kysely<Tables>, columns: readonly Column[], values: PageKey): Page =>
  db
    .selectFrom('referrer')
    .select(columns)
    .where('repository', '=', values.repository)
    .where('subject', '=', values.subject)
    .where('seq', '>', values.after)
    .orderBy('seq')
    .limit(values.limit);

/** Of `count` types. One walk along the index for each, merged as they come. */
function pageOfSome(db: Kysely<Tables>, columns: readonly Column[], count: number, values: PageKey): Page {
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

/** Of any number of types. The index alone tells which referrers stand on the page; only those are read. */
const pageOfMany = (db: Kysely<Tables>, columns: readonly Column[], values: PageKey): Page =>
  db
    .selectFrom('referrer')
    .select(columns)
    .where('repository', '=', values.repository)
    .where('subject', '=', values.subject)
    .where('seq', 'in', (page) =>
      page
        .selectFrom(sql<{value: string}>`json_each(${values.types})`.as('wanted'))
        .crossJoin('referrer as typed')
        .select('typed.seq')
        .where('typed.repository', '=', values.repository)
        .where('typed.subject', '=', values.subject)
        .whereRef('typed.artifact_type', '=', 'wanted.value')
        .where('typed.seq', '>', values.after)
        .orderBy('typed.seq')
        .limit(values.limit),
    )
    .orderBy('seq');

/**
 * The rows of a page as one. SQLite goes over them in the order of the page; an order of the aggregate's own would have
 * it sort them once more, in twice the time.
 */
const asText = (db: Kysely<Tables>, page: Page, {most}: Pick<TextKey, 'most'>) =>
  db.selectFrom(page.as('page')).select([
    sql<number>`count(*)`.as('count'),
    sql<number | null>`max(seq)`.as('last'),
    sql<number | null>`max(octet_length(descriptor) > ${most})`.as('tooLarge'),
    // As bytes: a string of megabytes would be copied once more, and again to be sent.
    sql<Uint8Array | null>`cast(group_concat(descriptor, ',') filter (where octet_length(descriptor) <= ${most}) as blob)`.as(
      'text',
    ),
  ]);
