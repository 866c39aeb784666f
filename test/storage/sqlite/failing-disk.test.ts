import {rename} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {DiskFailed} from '../../../src/storage/disk.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';

test('a read that the disk fails is DiskFailed, which names the file and is reported', async (t) => {
  const folder = join(await createFolder(t), 'data');
  const path = join(folder, 'meta.db');
  const reported: DiskFailed[] = [];
  const metadata = await openSqliteMetadata({path, report: (failure) => void reported.push(failure)});
  t.teardown(() => metadata.close());
  // SQLITE_CANTOPEN, as when the disk is gone.
  await rename(folder, `${folder}.away`);
  const failure = await t.throwsAsync(() => metadata.snapshot(), {instanceOf: DiskFailed});
  t.is(failure?.part, 'metadata');
  t.true(failure?.message.includes(path), failure?.message);
  t.deepEqual(reported, [failure]);
  await rename(`${folder}.away`, folder);
  await (await metadata.snapshot()).close();
});
