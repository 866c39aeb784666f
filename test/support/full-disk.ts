import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';

/**
 * Makes SQLite say of every write to the metadata in this folder what it says on a full disk (`SQLITE_FULL`): a trigger
 * on each table writes one row more than there can be.
 * @returns what makes room again
 */
export function fillDisk(folder: string): () => void {
  const path = join(folder, 'meta.db');
  const run = (...statements: string[]): void => {
    using database = new DatabaseSync(path, {timeout: 5000});
    database.exec(['begin immediate', ...statements, 'commit'].join(';\n'));
  };
  const triggers = tablesOf(path).flatMap((table) =>
    ['insert', 'update', 'delete'].map((change) => ({name: `full_${table}_${change}`, change, table})),
  );
  run(
    'create table full_disk (id integer primary key autoincrement)',
    // SQLite, Autoincrement: after the largest rowid every insertion fails with SQLITE_FULL.
    'insert into full_disk values (9223372036854775807)',
    ...triggers.map(
      ({name, change, table}) =>
        `create trigger "${name}" before ${change} on "${table}" begin insert into full_disk (id) values (null); end`,
    ),
  );
  return () => run(...triggers.map(({name}) => `drop trigger "${name}"`), 'drop table full_disk');
}

function tablesOf(path: string): string[] {
  using database = new DatabaseSync(path, {readOnly: true});
  const rows = database.prepare(
    "select name from sqlite_schema where type = 'table' and name not like 'sqlite_%'",
  );
  return rows.all().map(({name}) => String(name));
}
