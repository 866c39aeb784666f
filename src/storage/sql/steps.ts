import {bind, type Statement} from './statement.ts';

/** A statement to run now, with its values in place. */
export interface Step {
  sql: string;
  parameters: unknown[];
}

/** Work inside one transaction: yields what to run, is given the rows. Whoever drives it may wait or not. */
export type Steps<Result> = Generator<Step, Result, readonly unknown[]>;

/** The step that runs a statement. */
export function* run<Args, Row>(query: Statement<Args, Row>, args: Args): Steps<readonly Row[]> {
  return (yield {sql: query.sql, parameters: bind(query, args)}) as readonly Row[];
}
