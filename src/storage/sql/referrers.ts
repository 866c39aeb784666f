import {type Kysely, type SelectQueryBuilder, sql} from 'kysely';
import type {Digest} from '../../oci/digest.ts';
import type {
  ReferrerCursor,
  ReferrerPageQuery,
  ReferrerReads,
  ReferrerRecord,
  ReferrerText,
} from '../metadata.ts';
import type {ListKey} from './referrer-writes.ts';
import {asBuffer, type ReadParts, type RunStatement, type Statement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

/** Sorts after every character that a digest may have. */
const LAST = '~';
/** Before every referrer: a digest is never empty. */
const START: ReferrerCursor = {repository: 0, subject: '' as Digest, seq: 0};

export function createReferrerReads({db, run, idOf}: ReadParts): ReferrerReads {
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

const compile = (db: Kysely<Tables>) => ({
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
});

type Column = Exclude<keyof Tables['referrer'], keyof ListKey>;
type ReferrerColumns = Pick<Tables['referrer'], Column>;
type SelectReferrers = SelectQueryBuilder<Tables, 'referrer', ReferrerColumns>;
/** With the requested types: by their index, or as a JSON array. */
type PageKey = ListKey & {after: number; limit: number; types: string} & Record<number, string>;
type TextKey = PageKey & {maxBytes: number};

/** Reads pages of one subject's referrers, in the order of `seq`. */
type ReadReferrerPage<Read extends Column> = (
  key: ListKey,
  page: ReferrerPageQuery,
) => Promise<readonly Pick<ReferrerColumns, Read>[]>;

/** Up to this many types, each number of them has a statement of its own, whose walks end with the page. */
const MAX_WALKS = 8;

/** @param columns what is read of each referrer, `seq` first; with ten thousand rows, each column counts. */
function createReferrerPages<Read extends Column>(
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

/** The largest descriptor, in bytes, of a page that has several. */
const MAX_OF_SEVERAL = 64 * 1024;

/** An empty page. */
const NO_TEXT: ReferrerText = {count: 0, last: undefined, text: Buffer.alloc(0)};

/** Reads the same pages as one text each. */
type ReadReferrerText = (key: ListKey, page: ReferrerPageQuery) => Promise<ReferrerText>;

function createReferrerTexts(db: Kysely<Tables>, run: RunStatement): ReadReferrerText {
  const pageFor = byTypes(db, ['seq', 'descriptor'], (pageOf: (values: TextKey) => SelectReferrers) =>
    statement((values: TextKey) => asText(db, pageOf(values), values)),
  );
  return async (list, {types, after = 0, limit}) => {
    const {query, filter} = pageFor(types);
    const maxBytes = limit === 1 ? Number.MAX_SAFE_INTEGER : MAX_OF_SEVERAL;
    const [row] = await run(query, {...list, after, limit, maxBytes, ...filter});
    if (!row || row.last === null) return NO_TEXT;
    const text = row.text && !row.tooLarge ? asBuffer(row.text) : undefined;
    return {count: row.count, last: row.last, text};
  };
}

/** The types of a page, as its statement takes them. */
type Filter = Pick<PageKey, 'types' | number>;

/** The statements for pages of all referrers, and of each number of types; each is compiled at its first use. */
function byTypes<Key extends PageKey, Read>(
  db: Kysely<Tables>,
  columns: readonly Column[],
  compile: (pageOf: (values: Key) => SelectReferrers) => Statement<Key, Read>,
): (types: readonly string[] | undefined) => {query: Statement<Key, Read>; filter: Filter} {
  const known = new Map<number | 'all' | 'many', Statement<Key, Read>>();
  const once = (name: number | 'all' | 'many', pageOf: (values: Key) => SelectReferrers) => {
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

const pageOfAll = (db: Kysely<Tables>, columns: readonly Column[], values: PageKey): SelectReferrers =>
  db
    .selectFrom('referrer')
    .select(columns)
    .where('repository', '=', values.repository)
    .where('subject', '=', values.subject)
    .where('seq', '>', values.after)
    .orderBy('seq')
    .limit(values.limit);

/** Of `count` types: one walk along the index for each, merged on the way. */
function pageOfSome(
  db: Kysely<Tables>,
  columns: readonly Column[],
  count: number,
  values: PageKey,
): SelectReferrers {
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

/** Of any number of types. The index alone says which referrers are on the page; only those are read. */
const pageOfMany = (db: Kysely<Tables>, columns: readonly Column[], values: PageKey): SelectReferrers =>
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
const asText = (db: Kysely<Tables>, page: SelectReferrers, {maxBytes}: Pick<TextKey, 'maxBytes'>) =>
  db.selectFrom(page.as('page')).select([
    sql<number>`count(*)`.as('count'),
    sql<number | null>`max(seq)`.as('last'),
    sql<number | null>`max(octet_length(descriptor) > ${maxBytes})`.as('tooLarge'),
    // As bytes: a string of megabytes would be copied once more, and again to be sent.
    sql<Uint8Array | null>`cast(group_concat(descriptor, ',') filter (where octet_length(descriptor) <= ${maxBytes}) as blob)`.as(
      'text',
    ),
  ]);
