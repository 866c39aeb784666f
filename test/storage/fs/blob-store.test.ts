import {existsSync, statSync} from 'node:fs';
import {mkdir, readdir, readFile, rename, utimes, writeFile} from 'node:fs/promises';
import {tmpdir} from 'node:os';
import {join} from 'node:path';
import test from 'ava';
import {digestOf, encodedOf} from '../../../src/oci/digest.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {createFolder} from '../../support/folder.ts';
import {createLedger} from '../../support/ledger.ts';
import {blobStoreContract} from '../contract-blob-store.ts';

blobStoreContract(test, async (t) => {
  const path = join(await createFolder(t), 'blobs');
  const metadata = createLedger();
  return {
    open: () => createFsBlobStore({path, metadata}),
    async takeAway() {
      await rename(path, `${path}.away`);
      return () => rename(`${path}.away`, path);
    },
  };
});

const content = Buffer.from('the content');
const digest = digestOf(content);
const encoded = encodedOf(digest);

test('a blob is one file, below its algorithm and the first two digits of its digest', async (t) => {
  const path = await createFolder(t);
  const spool = await createSpools({path: await createFolder(t)}).open(digest);
  await spool.append(content);
  await createFsBlobStore({path, metadata: createLedger()}).publish(digest, spool);
  t.deepEqual(await readFile(join(path, 'sha256', encoded.slice(0, 2), encoded)), content);
  t.deepEqual((await readdir(path)).sort(), ['backref-store', 'sha256'], 'and nothing else is left');
});

test('reading, listing and deleting create nothing but the store itself', async (t) => {
  const path = join(await createFolder(t), 'blobs');
  const store = createFsBlobStore({path, metadata: createLedger()});
  await store.stat(digest);
  await store.delete(digest);
  await Array.fromAsync(store.list());
  await t.throwsAsync(() => Array.fromAsync(store.open(digest)), {code: 'ENOENT'});
  t.deepEqual(await readdir(path), ['backref-store']);
});

test('a file that is not a blob is not listed', async (t) => {
  const path = await createFolder(t);
  const shard = join(path, 'sha256', encoded.slice(0, 2));
  await mkdir(shard, {recursive: true});
  await mkdir(join(path, 'sha256', 'zz'));
  await writeFile(join(shard, `${encoded}.tmp`), '');
  await writeFile(join(shard, 'README'), '');
  await writeFile(join(path, 'sha256', 'zz', encoded), 'in the wrong folder');
  t.deepEqual(await Array.fromAsync(createFsBlobStore({path, metadata: createLedger()}).list()), []);
});

test('a damaged blob is repaired by publishing it again', async (t) => {
  const path = await createFolder(t);
  const store = createFsBlobStore({path, metadata: createLedger()});
  const spools = createSpools({path: await createFolder(t)});
  await store.check();
  await mkdir(join(path, 'sha256', encoded.slice(0, 2)), {recursive: true});
  await writeFile(join(path, 'sha256', encoded.slice(0, 2), encoded), 'the con');
  const spool = await spools.open(digest);
  await spool.append(content);
  await store.publish(digest, spool);
  t.deepEqual(
    Buffer.concat(await Array.fromAsync(store.open(digest), (chunk) => Buffer.from(chunk))),
    content,
  );
});

// Every Linux machine has another disk, in memory; other systems may have none to copy from.
// In CI nothing is skipped: there, a machine with one disk fails.
const otherDisk = '/dev/shm';
const hasOtherDisk = existsSync(otherDisk) && statSync(otherDisk).dev !== statSync(tmpdir()).dev;
const onTwoDisks = hasOtherDisk || process.env['CI'] ? test : test.skip;

onTwoDisks(
  hasOtherDisk || process.env['CI']
    ? 'a spool on another disk is copied'
    : 'a spool on another disk is copied (skipped: one disk)',
  async (t) => {
    const path = await createFolder(t, tmpdir());
    const spoolPath = await createFolder(t, otherDisk);
    await mkdir(join(path, 'tmp'));
    await writeFile(join(path, 'tmp', 'left by an earlier process'), '');
    const store = createFsBlobStore({path, metadata: createLedger()});
    const spools = createSpools({path: spoolPath});
    const spool = await spools.open(digest);
    await spool.append(content);
    await store.publish(digest, spool);
    t.deepEqual(
      Buffer.concat(await Array.fromAsync(store.open(digest), (chunk) => Buffer.from(chunk))),
      content,
    );
    t.deepEqual(await readdir(join(path, 'tmp')), []);
    t.deepEqual(await readdir(spoolPath), []);
  },
);

test('a publish that fails leaves the spool to its owner, and no blob', async (t) => {
  const path = await createFolder(t);
  await writeFile(join(path, 'sha256'), 'in the way');
  const store = createFsBlobStore({path, metadata: createLedger()});
  const spool = await createSpools({path: await createFolder(t)}).open(digest);
  await spool.append(content);
  const error = await t.throwsAsync<NodeJS.ErrnoException>(() => store.publish(digest, spool));
  t.true(error?.code === 'ENOTDIR' || error?.code === 'EEXIST');
  t.is(spool.size, content.length);
  await spool.discard();
});

test('the copies that were set aside first make room first', async (t) => {
  const path = await createFolder(t);
  const quarantine = join(path, 'quarantine', 'upstream');
  const store = createFsBlobStore({path, metadata: createLedger()});
  await store.check();
  await mkdir(quarantine, {recursive: true});
  for (const [name, seconds] of Object.entries({a: 2, b: 1, c: 3})) {
    await writeFile(join(quarantine, name), 'damaged');
    await utimes(join(quarantine, name), seconds, seconds);
  }
  await store.dropSetAside(4097);
  t.deepEqual(await readdir(quarantine), ['c']);
});
