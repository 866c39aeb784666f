import {readdir, stat, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createFsDisk} from '../../../src/storage/fs/disk.ts';
import {createFolder} from '../../support/folder.ts';

const diskIn = async (t: ExecutionContext) => {
  const folder = await createFolder(t);
  return {folder, disk: createFsDisk({blobs: folder, database: join(folder, 'meta.db')})};
};

test('the database is measured with its log, in blocks', async (t) => {
  const {folder, disk} = await diskIn(t);
  t.is((await disk.measure()).database, 0);
  await writeFile(join(folder, 'meta.db'), 'x'.repeat(5000));
  await writeFile(join(folder, 'meta.db-wal'), 'x');
  const {size, free, database, isShared} = await disk.measure();
  t.is(database, 8192 + 4096);
  t.true(isShared);
  t.true(free > 0 && free < size);
  t.is((await disk.space()).size, size);
});

test('a folder that is gone cannot be measured', async (t) => {
  const {folder} = await diskIn(t);
  const disk = createFsDisk({blobs: join(folder, 'gone'), database: join(folder, 'meta.db')});
  await t.throwsAsync(disk.measure(), {code: 'ENOENT'});
  await t.throwsAsync(disk.space(), {code: 'ENOENT'});
});

test('a ballast of a few MiB lies beside the database until it is given up', async (t) => {
  const {folder, disk} = await diskIn(t);
  t.is(await disk.giveUpBallast(), 0);
  await disk.occupyBallast();
  const {size, mtimeMs} = await stat(join(folder, 'backref.ballast'));
  t.is(size, 8 * 2 ** 20);
  t.is((await disk.measure()).database, size);
  await disk.occupyBallast();
  t.is((await stat(join(folder, 'backref.ballast'))).mtimeMs, mtimeMs, 'it is written once');
  t.is(await disk.giveUpBallast(), size);
  t.deepEqual(await readdir(folder), []);
});
