import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createReadiness, type ReadinessParts} from '../../src/registry/readiness.ts';
import {createFsBlobStore} from '../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../src/storage/fs/spools.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {createMovableClock} from '../support/backref.ts';
import {createFolder} from '../support/folder.ts';

const FREE_BYTES = 2 ** 40;

/** The readiness of a real store in a folder of its own. */
async function createStore(t: ExecutionContext, changes: Partial<ReadinessParts> = {}) {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const store = createFsBlobStore({path: join(folder, 'blobs'), metadata});
  await store.check();
  const clock = createMovableClock();
  const parts: ReadinessParts = {
    store,
    metadata,
    spools: createSpools({path: join(folder, 'spool')}),
    freeBytes: async () => FREE_BYTES,
    isStopping: () => false,
    damagedLocalBlobs: () => 0,
    clock,
    ...changes,
  };
  return {folder, metadata, clock, readiness: createReadiness(parts)};
}

test('a store that can be read and written to is ready', async (t) => {
  t.deepEqual(await (await createStore(t)).readiness.problems(), []);
});

test('a folder that cannot be written to is a problem', async (t) => {
  const {folder, readiness} = await createStore(t);
  await writeFile(join(folder, 'spool'), 'no folder');
  t.deepEqual(await readiness.problems(), ['the folder of the blobs cannot be written to']);
});

test('metadata that can neither be read nor written are two problems', async (t) => {
  const {metadata, readiness} = await createStore(t);
  await metadata.close();
  const problems = await readiness.problems();
  t.true(problems.includes('the metadata cannot be read'));
  t.true(problems.includes('the metadata cannot be written'));
});

test('a disk without space is a problem', async (t) => {
  const {readiness} = await createStore(t, {freeBytes: async () => 2 ** 20});
  t.deepEqual(await readiness.problems(), ['the disk is full']);
});

test('a server that is being stopped is not ready, even right after a successful check', async (t) => {
  let stopping = false;
  const {readiness} = await createStore(t, {isStopping: () => stopping});
  t.deepEqual(await readiness.problems(), []);
  stopping = true;
  t.deepEqual(await readiness.problems(), ['the server is being stopped']);
});

test('the store is checked at most once a second, however many requests ask', async (t) => {
  let looks = 0;
  const freeBytes = async () => {
    looks++;
    return FREE_BYTES;
  };
  const {clock, readiness} = await createStore(t, {freeBytes});
  await Promise.all(Array.from({length: 5}, () => readiness.problems()));
  await readiness.problems();
  t.is(looks, 1);
  clock.move(1000);
  await readiness.problems();
  t.is(looks, 2);
});
