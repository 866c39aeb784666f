import {rename, symlink} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {StoreMissing} from '../../../src/storage/blob-store.ts';
import {DiskFailed} from '../../../src/storage/disk.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {watchSpools, watchStore} from '../../../src/storage/fs/watched.ts';
import {createFolder} from '../../support/folder.ts';
import {createLedger} from '../../support/ledger.ts';
import {blobStoreContract} from '../contract-blob-store.ts';
import {spoolContract} from '../contract-spool.ts';

const ignore = () => {};

blobStoreContract(test, async (t) => {
  const folder = await createFolder(t);
  const [path, metadata] = [join(folder, 'blobs'), createLedger()];
  return {
    async takeAway() {
      await rename(path, `${path}.away`);
      return () => rename(`${path}.away`, path);
    },
    open: () => watchStore(createFsBlobStore({path, metadata}), {path: folder, report: ignore}),
  };
});

spoolContract(test, async (t) => {
  const path = join(await createFolder(t), 'spool');
  return {open: () => watchSpools(createSpools({path}), {path, report: ignore})};
});

const digest = digestOf(Buffer.from('content'));

/** Linux answers EIO to whoever reads or writes the first page of a process's memory. */
const UNREADABLE = '/proc/self/mem';

test('a spool that the disk does not let write is DiskFailed, which names the folder and is reported', async (t) => {
  const path = await createFolder(t);
  await symlink(UNREADABLE, join(path, `sha256-${digest.slice('sha256:'.length)}.part`));
  const reported: DiskFailed[] = [];
  const spools = watchSpools(createSpools({path}), {path, report: (failure) => void reported.push(failure)});
  const spool = await spools.open(digest);
  await spool.append(Buffer.from('content')).catch(ignore);
  const failure = await t.throwsAsync(() => spool.flush(), {instanceOf: DiskFailed, code: 'EIO'});
  t.is(failure?.part, 'blobs');
  t.true(failure?.message.includes(path), failure?.message);
  t.true(reported.includes(failure as DiskFailed));
  await spool.discard();
});

test('a store whose marker the disk does not let read is missing, and the failure is reported', async (t) => {
  const path = await createFolder(t);
  await symlink(UNREADABLE, join(path, 'backref-store'));
  const codes: string[] = [];
  const store = watchStore(createFsBlobStore({path, metadata: createLedger()}), {
    path,
    report: ({code}) => void codes.push(code),
  });
  await t.throwsAsync(() => store.check(), {instanceOf: StoreMissing});
  t.deepEqual(codes, ['EIO']);
});

test('other errors stay as they are, and are not reported', async (t) => {
  const path = await createFolder(t);
  const store = watchStore(createFsBlobStore({path, metadata: createLedger()}), {
    path,
    report: () => t.fail('reported'),
  });
  await t.throwsAsync(() => Array.fromAsync(store.open(digest)), {code: 'ENOENT'});
});
