import type {Compilable, Kysely} from 'kysely';
import type {Change, Precondition, RepositoryKey} from '../metadata.ts';
import type {Tables} from './tables.ts';

/**
 * A query that is compiled once, when it is first looked at, to be run with other values each time. A thread that it is
 * sent to gets plain data.
 */
export interface Statement<Args, Row> {
  readonly sql: string;
  /** The names of the values that are given when it runs, in the order of the query. */
  readonly parameters: readonly string[];
  /** The types of what it takes and gives; never present. */
  readonly types?: (args: Args) => Row;
}

/** Runs one statement: at once on SQLite, over the network on PostgreSQL. */
export type RunStatement = <Args, Row>(
  query: Statement<Args, Row>,
  args: Args,
) => readonly Row[] | Promise<readonly Row[]>;

/** Stands in a query for a value that is known only when it runs; the compiler writes all others into the text. */
export class Placeholder {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/**
 * Compiles a query: `statement((values: {digest: Digest}) => db.selectFrom('blob')…where('digest', '=', values.digest))`.
 * `build` is called at most once, with stand-ins that may only be passed on to the query builder.
 */
export function statement<Args extends object, Row>(
  build: (values: Args) => Compilable<Row>,
): Statement<Args, Row> {
  let compiled: Pick<Statement<Args, Row>, 'sql' | 'parameters'> | undefined;
  const compile = () => {
    const slots = new Proxy({} as Args, {get: (_target, name) => new Placeholder(String(name))});
    const {sql, parameters} = build(slots).compile();
    compiled = {sql, parameters: parameters.map((slot) => (slot as Placeholder).name)};
    return compiled;
  };
  return {
    get sql() {
      return (compiled ?? compile()).sql;
    },
    get parameters() {
      return (compiled ?? compile()).parameters;
    },
  };
}

/** The query's parameters in their order, with these values in their places. */
export function bind<Args, Row>(query: Statement<Args, Row>, args: Args): unknown[] {
  const values = args as Record<string, unknown>;
  return query.parameters.map((name) => values[name]);
}

/** What the reads of one noun are made of. */
export interface ReadParts {
  db: Kysely<Tables>;
  run: RunStatement;
  /** The id of a repository of which anything is known. */
  idOf(repository: RepositoryKey): Promise<number | undefined>;
}

/** The first row that a query by repository gives; none where nothing is known of the repository. */
export async function first<Args, Row>(
  {run, idOf}: Pick<ReadParts, 'run' | 'idOf'>,
  query: Statement<Args & {repository: number}, Row>,
  key: RepositoryKey,
  args: Args,
): Promise<Row | undefined> {
  const repository = await idOf(key);
  if (repository === undefined) return undefined;
  return (await run(query, {...args, repository}))[0];
}

/** Drivers give bytes as they like; Koa would serve a Uint8Array as JSON. Nothing is copied. */
export const asBuffer = (bytes: Uint8Array): Buffer =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/** A statement to run now, with its values in place. */
export interface Step {
  sql: string;
  parameters: unknown[];
}

/** Work inside one transaction: yields what to run and is given the rows. Its driver may wait or not. */
export type Steps<Result> = Generator<Step, Result, readonly unknown[]>;

/** The step that runs a statement. */
export function* run<Args, Row>(query: Statement<Args, Row>, args: Args): Steps<readonly Row[]> {
  return (yield {sql: query.sql, parameters: bind(query, args)}) as readonly Row[];
}

/** How a commit makes each change of a noun: `tag` for `tag.put`, `tag.gone` and `tag.delete`. */
export type ChangesOf<Noun extends string> = {
  [Type in Extract<Change['type'], `${Noun}.${string}`>]: (
    change: Extract<Change, {type: Type}>,
  ) => Steps<unknown>;
};

/** How a commit tests each precondition of a noun. */
export type PreconditionsOf<Noun extends string> = {
  [Type in Extract<Precondition['type'], `${Noun}.${string}`>]: (
    precondition: Extract<Precondition, {type: Type}>,
  ) => Steps<boolean>;
};
