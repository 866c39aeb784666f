import {open, rename} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {DiskFailed} from '../../../src/storage/disk.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';
import {manifestPut} from '../contract-metadata.ts';

test('a page that cannot be read, or is damaged, is a failure of the disk', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  const first = await openSqliteMetadata({path});
  const puts = Array.from({length: 200}, (_, index) => manifestPut(`${index} ${'x'.repeat(4000)}`));
  await first.commit(puts);
  await first.close();
  const file = await open(path, 'r+');
  const {size} = await file.stat();
  // The schema is in the first half.
  await file.write(Buffer.alloc(size / 2, 0xff), 0, size / 2, size / 2);
  await file.close();
  const reported: string[] = [];
  const metadata = await openSqliteMetadata({path, report: ({part}) => void reported.push(part)});
  t.teardown(() => metadata.close());
  const failures = [];
  for (const {repository, digest} of puts)
    failures.push(await metadata.manifest(repository, digest).catch((error: unknown) => error));
  t.true(failures.some((failure) => failure instanceof DiskFailed));
  t.true(failures.every((failure) => !(failure instanceof Error) || failure instanceof DiskFailed));
  t.true(reported.length > 0);
});

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
