import type {Kysely} from 'kysely';
import type {ReferrerPage} from '../metadata.ts';
import type {ListKey} from './referrer-writes.ts';
import {type RunStatement, statement} from './statement.ts';
import type {Tables} from './tables.ts';

type Column = Exclude<keyof Tables['referrer'], keyof ListKey>;
type Row = Pick<Tables['referrer'], Column>;
type PageKey = ListKey & {after: number; limit: number};

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
  const all = compileAll(db, columns);
  /** The statements for one type, for two, and so on: each is compiled when it is first asked for. */
  const some = new Map<number, ReturnType<typeof compileOfSome>>();

  const ofSome = (count: number) => {
    const query = some.get(count) ?? compileOfSome(db, columns, count);
    some.set(count, query);
    return query;
  };

  /** Each statement gives its types' first rows; of the rows of several, the first are taken. */
  async function ofTypes(key: PageKey, types: readonly string[]): Promise<readonly Row[]> {
    const pages = await Promise.all(
      groups([...new Set(types)]).map((group) => run(ofSome(group.length), {...key, ...group})),
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
    return types ? ofTypes(key, types) : run(all, key);
  };
}

const groups = (types: readonly string[]): string[][] =>
  Array.from({length: Math.ceil(types.length / TYPES_AT_ONCE)}, (_, group) =>
    types.slice(group * TYPES_AT_ONCE, (group + 1) * TYPES_AT_ONCE),
  );

const compileAll = (db: Kysely<Tables>, columns: readonly Column[]) =>
  statement((values: PageKey) =>
    db
      .selectFrom('referrer')
      .select(columns)
      .where('repository', '=', values.repository)
      .where('subject', '=', values.subject)
      .where('seq', '>', values.after)
      .orderBy('seq')
      .limit(values.limit),
  );

/** Of `count` types, whose values are named by their index. One walk along the index for each, merged as they come. */
function compileOfSome(db: Kysely<Tables>, columns: readonly Column[], count: number) {
  return statement((values: PageKey & Record<number, string>) => {
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
  });
}
