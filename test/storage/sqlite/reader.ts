/*
 * Reads a database without a pause until it is killed: of two connections, each begins a transaction of some milliseconds
 * before the other ends its own. Writes a line once it reads.
 */
import {DatabaseSync} from 'node:sqlite';
import {setTimeout as delay} from 'node:timers/promises';

const READ_MS = 5;

const path = process.argv[2] ?? '';
const begin = (connection: DatabaseSync) => connection.exec('begin; select count(*) from repository');
let current = new DatabaseSync(path, {readOnly: true});
let next = new DatabaseSync(path, {readOnly: true});
begin(current);
process.stdout.write('reading\n');
for (;;) {
  await delay(READ_MS);
  begin(next);
  current.exec('commit');
  [current, next] = [next, current];
}
