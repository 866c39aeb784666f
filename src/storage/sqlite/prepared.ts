import type {DatabaseSync, SQLInputValue, StatementSync} from 'node:sqlite';

/** Runs a statement and gives its rows; none for one that only changes. */
export type RunSql = (sql: string, parameters: readonly unknown[]) => readonly unknown[];

/** Prepares each statement of one connection once, at its first use. */
export function prepareOnce(database: DatabaseSync): RunSql {
  const prepared = new Map<string, StatementSync>();
  return (sql, parameters) => {
    let statement = prepared.get(sql);
    if (!statement) {
      statement = database.prepare(sql);
      prepared.set(sql, statement);
    }
    return statement.all(...(parameters as SQLInputValue[]));
  };
}
