import {existsSync, renameSync} from 'node:fs';
import {mkdir, readdir, readFile, rename, rm, writeFile} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {digestOf, encodedOf} from '../../../src/oci/digest.ts';
import {StoreMissing} from '../../../src/storage/blob-store.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import type {Spool} from '../../../src/storage/spool.ts';
import {createFolder} from '../../support/folder.ts';
import {createLedger} from '../../support/ledger.ts';

const content = Buffer.from('content');
const digest = digestOf(content);

async function setUp(t: ExecutionContext) {
  const path = join(await createFolder(t), 'blobs');
  const metadata = createLedger();
  const marker = join(path, 'backref-store');
  /** Puts a blob's file there as an earlier version did. */
  const plant = async (planted = digest) => {
    const file = join(path, 'sha256', encodedOf(planted).slice(0, 2), encodedOf(planted));
    await mkdir(dirname(file), {recursive: true});
    await writeFile(file, content);
  };
  return {path, metadata, marker, plant, open: () => createFsBlobStore({path, metadata})};
}

test('a new store gets a marker, whose content the metadata know', async (t) => {
  const {metadata, marker, open} = await setUp(t);
  await open().check();
  const {id} = await metadata.blobStore();
  t.regex(id ?? '', /^[0-9a-f-]{36}$/);
  t.is(await readFile(marker, 'utf8'), `${id}\n`);
  await open().check();
  t.is(await readFile(marker, 'utf8'), `${id}\n`, 'once');
});

test('a store of a version without markers gets one when it holds a blob that the metadata know', async (t) => {
  const {path, metadata, marker, plant, open} = await setUp(t);
  await plant();
  metadata.record(digest);
  t.deepEqual(await open().stat(digest), {size: content.length});
  await open().check();
  const {id} = await metadata.blobStore();
  t.is(await readFile(marker, 'utf8'), `${id}\n`);
  t.deepEqual((await readdir(path)).sort(), ['backref-store', 'sha256']);
});

test('a store of a version without markers whose disk is missing is not taken for an empty one', async (t) => {
  const {path, metadata, plant, open} = await setUp(t);
  metadata.record(digest);
  await mkdir(path);
  const store = open();
  await t.throwsAsync(() => store.check(), {
    instanceOf: StoreMissing,
    message: /there is no backref-store in it/,
  });
  await t.throwsAsync(() => store.stat(digest), {instanceOf: StoreMissing});
  t.deepEqual(await readdir(path), [], 'nothing is made in its place');

  await plant(digestOf(Buffer.from('of somebody else')));
  await t.throwsAsync(() => store.check(), {instanceOf: StoreMissing});

  await plant();
  await t.notThrowsAsync(() => store.check());
});

test('a folder with the marker of another store is not the store', async (t) => {
  const one = await setUp(t);
  const other = await setUp(t);
  await one.open().check();
  await other.open().check();
  await rm(one.marker);
  await rename(other.marker, one.marker);
  await t.throwsAsync(() => one.open().check(), {instanceOf: StoreMissing, message: /that of another store/});
  await t.throwsAsync(() => one.open().stat(digest), {instanceOf: StoreMissing});
});

test('a marker that was removed is missed although the blobs are there', async (t) => {
  const {metadata, marker, plant, open} = await setUp(t);
  await open().check();
  await plant();
  metadata.record(digest);
  await rm(marker);
  await t.throwsAsync(() => open().check(), {instanceOf: StoreMissing, message: /create an empty file/});
});

test('an empty marker is the word of the operator that the store is to be used as it is', async (t) => {
  const {path, metadata, marker, open} = await setUp(t);
  const store = open();
  await store.check();
  const {id} = await metadata.blobStore();
  metadata.record(digest);
  await rm(path, {recursive: true});
  await t.throwsAsync(() => store.stat(digest), {instanceOf: StoreMissing});
  await mkdir(path);
  await writeFile(marker, '');
  t.is(await store.stat(digest), undefined);
  t.is(await readFile(marker, 'utf8'), `${id}\n`);
});

test('a store whose metadata are new keeps the marker that it has', async (t) => {
  const {path, marker, open} = await setUp(t);
  await open().check();
  const before = await readFile(marker, 'utf8');
  const metadata = createLedger();
  await createFsBlobStore({path, metadata}).check();
  t.is(await readFile(marker, 'utf8'), before);
  t.is(`${(await metadata.blobStore()).id}\n`, before);
});

test('a store with blobs of which new metadata know none is not theirs until the operator says so', async (t) => {
  const {path, marker, plant, open} = await setUp(t);
  await open().check();
  await plant();
  const before = await readFile(marker, 'utf8');
  const metadata = createLedger();
  const store = createFsBlobStore({path, metadata});
  await t.throwsAsync(() => store.check(), {
    instanceOf: StoreMissing,
    message: /holds blobs, and the metadata know none of them\. Restore the metadata/,
  });
  t.is(await readFile(marker, 'utf8'), before);
  t.is((await metadata.blobStore()).id, undefined);
  await t.notThrowsAsync(() => open().check(), 'its own metadata still know it');

  await writeFile(marker, '');
  await store.check();
  t.is(await readFile(marker, 'utf8'), `${(await metadata.blobStore()).id}\n`);
});

test('a store that the operator has accepted is read although its marker cannot be written', async (t) => {
  const {path, metadata, marker, plant, open} = await setUp(t);
  await open().check();
  await plant();
  metadata.record(digest);
  await writeFile(marker, '');
  await mkdir(join(path, 'backref-store.new'));
  t.deepEqual(await open().stat(digest), {size: content.length});
  await t.notThrowsAsync(() => open().check());
});

test('a marker that cannot be read is a store that is missing', async (t) => {
  const {marker, open} = await setUp(t);
  const store = open();
  await store.check();
  await rm(marker);
  await mkdir(marker);
  await t.throwsAsync(() => store.check(), {instanceOf: StoreMissing, message: /cannot be read: EISDIR/});
});

test('a publish never makes the folder of a store that is missing', async (t) => {
  const {path, metadata, open} = await setUp(t);
  const store = open();
  await store.check();
  metadata.record(digest);
  await rename(path, `${path}.away`);
  const spool = await createSpools({path: await createFolder(t)}).open(digest);
  await spool.append(content);
  await t.throwsAsync(() => store.publish(digest, spool), {instanceOf: StoreMissing});
  await spool.discard();
  t.deepEqual(await readdir(dirname(path)), ['blobs.away']);
});

test('a disk that goes away while a blob is published is missing, whatever the system says of its files', async (t) => {
  const {path, open} = await setUp(t);
  const store = open();
  await store.check();
  const spool = await createSpools({path: await createFolder(t)}).open(digest);
  await spool.append(content);
  const unplugging: Spool = {
    ...spool,
    // First asked for after the marker was seen.
    get path() {
      if (existsSync(path)) renameSync(path, `${path}.away`);
      return spool.path;
    },
  };
  await t.throwsAsync(() => store.publish(digest, unplugging), {instanceOf: StoreMissing});
  await spool.discard();
});
