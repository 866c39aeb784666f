/* Commits pushed manifests without end, and writes a line for each commit that has resolved. Ends when it is killed. */
import type {Tag} from '../../../src/oci/name.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {manifestPut} from '../contract-metadata.ts';

const metadata = await openSqliteMetadata({path: process.argv[2] ?? ''});
for (let index = 0; ; index++) {
  const put = manifestPut(`manifest ${index}`, {origin: 'local'});
  const {repository, digest, origin, at} = put;
  const name = `tag-${index}` as Tag;
  await metadata.commit([put, {type: 'tag.put', repository, name, digest, origin, at}]);
  // A reader that is busy elsewhere leaves the pipe full: then the next commit waits.
  await new Promise((resolve) => process.stdout.write(`${name}\n`, resolve));
}
