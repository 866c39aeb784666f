import {mkdir, readdir, symlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {createUploadId} from '../../../src/oci/upload.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {createFolder} from '../../support/folder.ts';
import {spoolContract} from '../contract-spool.ts';

spoolContract(test, async (t) => {
  const path = join(await createFolder(t), 'spool');
  return {open: () => createSpools({path})};
});

const digest = digestOf(Buffer.from('content'));
const fileName = `sha256-${digest.slice('sha256:'.length)}.part`;

test('nothing is touched on the disk before the first open', async (t) => {
  const folder = await createFolder(t);
  const spools = createSpools({path: join(folder, 'spool')});
  t.is(await spools.sweep(Date.now(), async () => false), 0);
  t.deepEqual(await readdir(folder), []);
});

test('a spool is one file, named after its digest', async (t) => {
  const path = await createFolder(t);
  const spool = await createSpools({path}).open(digest);
  t.deepEqual(await readdir(path), [fileName]);
  t.is(spool.path, join(path, fileName));
  await spool.discard();
  t.deepEqual(await readdir(path), []);
});

test('the spool of an upload is named after its id', async (t) => {
  const path = await createFolder(t);
  const id = createUploadId();
  const spool = await createSpools({path}).open(id);
  t.deepEqual(await readdir(path), [`upload-${id}.part`]);
  await spool.discard();
});

test('a sweep leaves foreign files alone', async (t) => {
  const path = await createFolder(t);
  for (const name of ['note.txt', 'sha256-zz.part', 'sha256-ab.part.bak', 'upload-notes.part'])
    await writeFile(join(path, name), '');
  t.is(await createSpools({path}).sweep(Date.now() + 60_000, async () => false), 0);
  t.is((await readdir(path)).length, 4);
});

test('readers of the same part of a spool share one read of it', async (t) => {
  const size = 1024 * 1024;
  const spool = await createSpools({path: await createFolder(t)}).open(digest);
  await spool.append(Buffer.alloc(1.5 * size));
  await spool.flush();
  const [first, second, head] = [
    await spool.piece(0, size),
    await spool.piece(100, size),
    await spool.piece(size, 1.5 * size),
  ];
  t.is(first.bytes.buffer, second.bytes.buffer);
  t.is(second.bytes.byteOffset, 100);
  t.not(head.bytes.buffer, first.bytes.buffer, 'what still grows is read by each reader');
  for (const piece of [first, second, head]) piece.release();
  await spool.discard();
});

test('a full disk is reported with its code at a later append and at flush', async (t) => {
  const path = await createFolder(t);
  await symlink('/dev/full', join(path, fileName));
  const spool = await createSpools({path}).open(digest);
  await t.throwsAsync(
    async () => {
      for (;;) await spool.append(Buffer.alloc(512 * 1024));
    },
    {code: 'ENOSPC'},
  );
  await t.throwsAsync(() => spool.flush(), {code: 'ENOSPC'});
  t.is(spool.size, 0);
  await spool.discard();
  t.deepEqual(await readdir(path), []);
});

test('a spool that cannot be opened says why, and can be opened once that is fixed', async (t) => {
  const path = await createFolder(t);
  await symlink('/nowhere/at/all', join(path, fileName));
  const spools = createSpools({path});
  await t.throwsAsync(() => spools.open(digest), {code: 'ENOENT'});
  await t.throwsAsync(() => spools.open(digest), {code: 'ENOENT'});
});

test('a folder that cannot be created is reported with its code', async (t) => {
  const folder = await createFolder(t);
  await mkdir(folder, {recursive: true});
  await writeFile(join(folder, 'file'), '');
  await t.throwsAsync(() => createSpools({path: join(folder, 'file', 'spool')}).open(digest), {
    code: 'ENOTDIR',
  });
});
