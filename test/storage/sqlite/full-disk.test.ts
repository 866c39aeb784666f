import {join} from 'node:path';
import test from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import {DiskFull} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';
import {fillDisk} from '../../support/full-disk.ts';
import {manifestPut} from '../contract-metadata.ts';

const repository = {registry: 'docker.io', name: parseName('library/app')};

test('a full disk is reported as DiskFull, changes nothing, and commits work again once there is space', async (t) => {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const [one, two] = [manifestPut('one'), manifestPut('two')];
  await metadata.commit([one]);
  const free = fillDisk(folder);
  await t.throwsAsync(metadata.commit([two]), {instanceOf: DiskFull, message: /took no commit: .*full/});
  t.truthy(await metadata.manifest(repository, one.digest));
  t.is(await metadata.manifest(repository, two.digest), undefined);
  free();
  t.true(await metadata.commit([two]));
  t.truthy(await metadata.manifest(repository, two.digest));
});
