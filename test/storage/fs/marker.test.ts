import {existsSync, renameSync} from 'node:fs';
import {mkdir, readdir, readFile, rename, rm, stat, writeFile} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {digestOf, encodedOf} from '../../../src/oci/digest.ts';
import {StoreMissing} from '../../../src/storage/blob-store.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createMarker} from '../../../src/storage/fs/marker.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import type {Spool} from '../../../src/storage/spool.ts';
import {createFolder} from '../../support/folder.ts';
import {createLedger} from '../../support/ledger.ts';

const content = Buffer.from('content');
const digest = digestOf(content);

const muchLater = (): number => Date.now() + 60_000;
const otherThan = (id: string): string => id.replace(/^./, (first) => (first === '0' ? '1' : '0'));
const isOther = {instanceOf: StoreMissing, message: /that of another store/};
async function* noBlobs(): AsyncGenerator<never> {}

async function setUp(t: ExecutionContext) {
  const path = join(await createFolder(t), 'blobs');
  const metadata = createLedger();
  const marker = join(path, 'backref-store');
  /** Writes a blob's file as an earlier version did. */
  const plant = async (planted = digest) => {
    const file = join(path, 'sha256', encodedOf(planted).slice(0, 2), encodedOf(planted));
    await mkdir(dirname(file), {recursive: true});
    await writeFile(file, content);
  };
  return {path, metadata, marker, plant, open: () => createFsBlobStore({path, metadata})};
}

test('a new store gets a marker, whose content is in the metadata', async (t) => {
  const {metadata, marker, open} = await setUp(t);
  await open().check();
  const {id} = await metadata.blobStore();
  t.regex(id ?? '', /^[0-9a-f-]{36}$/);
  t.is(await readFile(marker, 'utf8'), `${id}\n`);
  await open().check();
  t.is(await readFile(marker, 'utf8'), `${id}\n`, 'once');
});

test('a store from a version without markers gets one if it has a blob that the metadata know', async (t) => {
  const {path, metadata, marker, plant, open} = await setUp(t);
  await plant();
  metadata.record(digest);
  t.deepEqual(await open().stat(digest), {size: content.length});
  await open().check();
  const {id} = await metadata.blobStore();
  t.is(await readFile(marker, 'utf8'), `${id}\n`);
  t.deepEqual((await readdir(path)).sort(), ['backref-store', 'sha256']);
});

test('a store from a version without markers whose disk is missing does not count as empty', async (t) => {
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

test('a marker that somebody has just written to is read again, whatever its time says', async (t) => {
  const {path, metadata, marker} = await setUp(t);
  const store = createMarker({path, metadata, list: noBlobs, now: () => 0});
  await store.expect();
  await store.expectUnchanged();
  // Where the file system counts time in steps, this one may have the time of the one before.
  await writeFile(marker, otherThan(await readFile(marker, 'utf8')));
  await t.throwsAsync(store.expectUnchanged(), isOther);
});

test('a marker that was read long after it was written is read again once its time has changed', async (t) => {
  const {path, metadata, marker} = await setUp(t);
  const store = createMarker({path, metadata, list: noBlobs, now: muchLater});
  await store.expect();
  await store.expectUnchanged();
  await t.notThrowsAsync(store.expectUnchanged());
  const before = await readFile(marker, 'utf8');
  const {ctimeNs} = await stat(marker, {bigint: true});
  // File systems count it in steps.
  do await writeFile(marker, otherThan(before));
  while ((await stat(marker, {bigint: true})).ctimeNs === ctimeNs);
  await t.throwsAsync(store.expectUnchanged(), isOther);
  await t.throwsAsync(store.expectUnchanged(), isOther, 'the other one has been read as well');
  await writeFile(marker, before);
  await t.notThrowsAsync(store.expectUnchanged());
});

test('a marker that has been removed is missed at once', async (t) => {
  const {path, metadata, marker} = await setUp(t);
  const store = createMarker({path, metadata, list: noBlobs, now: muchLater});
  await store.expect();
  await store.expectUnchanged();
  metadata.record(digest);
  await rm(marker);
  await t.throwsAsync(store.expectUnchanged(), {instanceOf: StoreMissing});
});

test('a store whose marker was removed counts as missing, even with its blobs there', async (t) => {
  const {metadata, marker, plant, open} = await setUp(t);
  await open().check();
  await plant();
  metadata.record(digest);
  await rm(marker);
  await t.throwsAsync(() => open().check(), {instanceOf: StoreMissing, message: /create an empty file/});
});

test('with an empty marker, the operator says that the store is to be used as it is', async (t) => {
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

test('a store with new metadata keeps its marker', async (t) => {
  const {path, marker, open} = await setUp(t);
  await open().check();
  const before = await readFile(marker, 'utf8');
  const metadata = createLedger();
  await createFsBlobStore({path, metadata}).check();
  t.is(await readFile(marker, 'utf8'), before);
  t.is(`${(await metadata.blobStore()).id}\n`, before);
});

test('a store whose blobs are all unknown to new metadata is not used until the operator says so', async (t) => {
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

test('a store that the operator has accepted is read even if its marker cannot be written', async (t) => {
  const {path, metadata, marker, plant, open} = await setUp(t);
  await open().check();
  await plant();
  metadata.record(digest);
  await writeFile(marker, '');
  await mkdir(join(path, 'backref-store.new'));
  t.deepEqual(await open().stat(digest), {size: content.length});
  await t.notThrowsAsync(() => open().check());
});

test('a store whose marker cannot be read counts as missing', async (t) => {
  const {marker, open} = await setUp(t);
  const store = open();
  await store.check();
  await rm(marker);
  await mkdir(marker);
  await t.throwsAsync(() => store.check(), {instanceOf: StoreMissing, message: /cannot be read: EISDIR/});
});

test('a publish never creates the folder of a missing store', async (t) => {
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

test('a store whose disk goes away during a publish counts as missing, whatever error its files give', async (t) => {
  const {path, open} = await setUp(t);
  const store = open();
  await store.check();
  const spool = await createSpools({path: await createFolder(t)}).open(digest);
  await spool.append(content);
  const unplugging: Spool = {
    ...spool,
    // It is first read after the marker was seen.
    get path() {
      if (existsSync(path)) renameSync(path, `${path}.away`);
      return spool.path;
    },
  };
  await t.throwsAsync(() => store.publish(digest, unplugging), {instanceOf: StoreMissing});
  await spool.discard();
});
