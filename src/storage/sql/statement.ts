import type {Compilable} from 'kysely';

/** A query compiled once, to be run with other values each time. Plain data, so that a thread can be given it. */
export interface Statement<Args, Row> {
  readonly sql: string;
  /** The names of the values that are given when it runs, in the order of the query. */
  readonly parameters: readonly string[];
  /** The types of what it takes and gives; never there. */
  readonly types?: (args: Args) => Row;
}

/** Runs one statement: at once on SQLite, over the network on PostgreSQL. */
export type RunStatement = <Args, Row>(
  query: Statement<Args, Row>,
  args: Args,
) => readonly Row[] | Promise<readonly Row[]>;

/** Stands in a query for a value that is known only when it runs; whoever compiles writes all others into the text. */
export class Slot {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }
}

/**
 * Compiles a query: `statement((values: {digest: Digest}) => db.selectFrom('blob')…where('digest', '=', values.digest))`.
 * `build` is called once, with stand-ins that may only be handed on to the query builder.
 */
export function statement<Args extends object, Row>(
  build: (values: Args) => Compilable<Row>,
): Statement<Args, Row> {
  const slots = new Proxy({} as Args, {get: (_target, name) => new Slot(String(name))});
  const {sql, parameters} = build(slots).compile();
  return {
    sql,
    parameters: parameters.map((slot) => (slot as Slot).name),
  };
}

/** The query's parameters in their order, with these values in their places. */
export function bind<Args, Row>(query: Statement<Args, Row>, args: Args): unknown[] {
  const values = args as Record<string, unknown>;
  return query.parameters.map((name) => values[name]);
}
