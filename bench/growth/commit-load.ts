/* Stores manifests in a database, some at the same time, until it is stopped. Argument: the database. */
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {COMMITTING, commitAll} from './commits.ts';

const metadata = await openSqliteMetadata({path: process.argv[2] ?? ''});
for (let round = 0; ; round++) {
  await commitAll(metadata, round);
  if (round === 0) process.stdout.write(`${COMMITTING}\n`);
}
