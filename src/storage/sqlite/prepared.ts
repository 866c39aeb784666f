import type {DatabaseSync, SQLInputValue, StatementSync} from 'node:sqlite';

/** Runs a statement and gives its rows; none for one that only changes. */
export type RunSql = (sql: string, parameters: readonly unknown[]) => readonly unknown[];

interface Prepared {
  statement: StatementSync;
  columns: readonly string[];
}

/** Prepares each statement of one connection once, at its first use. */
export function prepareOnce(database: DatabaseSync): RunSql {
  const known = new Map<string, Prepared>();

  const prepare = (sql: string): Prepared => {
    const statement = database.prepare(sql);
    // The driver's own objects are slow to read: with arrays, ten thousand rows take half the time.
    statement.setReturnArrays(true);
    const prepared = {statement, columns: statement.columns().map(({name}) => name)};
    known.set(sql, prepared);
    return prepared;
  };

  return (sql, parameters) => {
    const {statement, columns} = known.get(sql) ?? prepare(sql);
    const rows = statement.all(...(parameters as SQLInputValue[])) as unknown as unknown[][];
    return rows.map((values) => rowOf(columns, values));
  };
}

function rowOf(columns: readonly string[], values: readonly unknown[]): Record<string, unknown> {
  const row: Record<string, unknown> = {};
  for (let index = 0; index < columns.length; index++) row[columns[index] as string] = values[index];
  return row;
}
