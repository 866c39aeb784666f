/* Commits a manifest larger than any file may become among small ones; writes what became of each. */
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {manifestPut} from '../contract-metadata.ts';

const metadata = await openSqliteMetadata({path: process.argv[2] ?? ''});
const puts = [manifestPut('one'), manifestPut('x'.repeat(8 * 1024 * 1024)), manifestPut('two')];
const later = manifestPut('three', {origin: 'local'});

const outcomes = await Promise.allSettled(puts.map((put) => metadata.commit([put])));
for (const [index, {status}] of outcomes.entries()) {
  console.log(`${index === 1 ? 'large' : 'small'}: ${status === 'fulfilled' ? 'committed' : 'refused'}`);
}
console.log(`later: ${(await metadata.commit([later])) ? 'committed' : 'refused'}`);

const found = await Promise.all(
  [...puts, later].map(({repository, digest}) => metadata.manifest(repository, digest)),
);
console.log(`found: ${found.filter((record) => record !== undefined).length}`);
await metadata.close();
