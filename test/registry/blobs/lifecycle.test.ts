import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {systemClock} from '../../../src/clock.ts';
import {createEvents, type EventMap} from '../../../src/events.ts';
import {digestOf} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {createDamagedBlobs} from '../../../src/registry/blobs/damaged.ts';
import {createBlobLifecycle} from '../../../src/registry/blobs/lifecycle.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import {UNLIMITED} from '../../../src/registry/space.ts';
import type {BlobStore} from '../../../src/storage/blob-store.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import type {Metadata} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../../support/folder.ts';

interface Replacements {
  store?(real: BlobStore): BlobStore;
  metadata?(real: Metadata): Metadata;
}

async function setUp(t: ExecutionContext, replaced: Replacements = {}) {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const store = createFsBlobStore({path: join(folder, 'blobs'), metadata});
  const spools = createSpools({path: join(folder, 'spool')});
  const events = createEvents();
  const reports: EventMap['blob.damaged'][0][] = [];
  events.on('blob.damaged', (report) => void reports.push(report));
  const memory = createMemory(2 ** 20);
  const damaged = createDamagedBlobs(events);
  const lifecycle = createBlobLifecycle({
    store: replaced.store?.(store) ?? store,
    metadata: replaced.metadata?.(metadata) ?? metadata,
    space: UNLIMITED,
    memory,
    damaged,
    clock: systemClock,
  });
  async function keep(bytes: Buffer): Promise<void> {
    const digest = digestOf(bytes);
    const spool = await spools.open(digest);
    await spool.append(bytes);
    await lifecycle.publish(digest, spool).finally(() => spool.discard());
  }
  return {metadata, store, spools, memory, damaged, reports, lifecycle, keep};
}

const bytes = Buffer.from('all of it');
const digest = digestOf(bytes);

test('a blob whose last bytes still wait for the disk is recorded with its whole size', async (t) => {
  const {metadata, store, spools, lifecycle} = await setUp(t);
  const spool = await spools.open(digest);
  const appended = spool.append(bytes);
  t.is(spool.size, 0, 'nothing is in the file yet');
  await appended;
  await lifecycle.publish(digest, spool);

  t.like(await metadata.blob(digest), {state: 'ready', size: bytes.length});
  t.deepEqual(await store.stat(digest), {size: bytes.length});
});

test('a blob whose row cannot be written leaves no bytes behind', async (t) => {
  let full = true;
  const {metadata, store, keep} = await setUp(t, {
    metadata: (real) => ({
      ...real,
      commit: async (...commit) => {
        if (full) throw new Error('no room');
        return real.commit(...commit);
      },
    }),
  });
  await t.throwsAsync(() => keep(bytes), {message: 'no room'});
  t.is(await store.stat(digest), undefined);

  full = false;
  await keep(bytes);
  full = true;
  await t.throwsAsync(() => keep(bytes), {message: 'no room'});
  t.like(await metadata.blob(digest), {state: 'ready'});
  t.truthy(await store.stat(digest), 'bytes with a row stay');
});

test('the row of a copy whose bytes the disk has lost is removed, with what is left of the bytes', async (t) => {
  const {metadata, store, lifecycle, keep} = await setUp(t);
  t.is(await lifecycle.stored(digest), undefined);
  await keep(bytes);
  t.is(await lifecycle.stored(digest), bytes.length);
  await metadata.commit([{type: 'blob.put', digest, size: bytes.length + 1, at: 1}]);
  t.is(await lifecycle.stored(digest), undefined);
  t.is(await metadata.blob(digest), undefined);
  t.is(await store.stat(digest), undefined);
});

test('the row of a pushed blob whose bytes the disk has lost stays, and so does what is left of the bytes', async (t) => {
  const {metadata, store, lifecycle, keep} = await setUp(t);
  await keep(bytes);
  const repository = {registry: 'hosted.test', name: parseName('team/app')};
  const link = {type: 'blob.link', repository, digest, size: bytes.length, origin: 'local', at: 1} as const;
  await metadata.commit([link]);
  await metadata.commit([{type: 'blob.put', digest, size: bytes.length + 1, at: 1}]);
  t.is(await lifecycle.stored(digest), undefined);
  t.like(await metadata.blob(digest), {state: 'ready'});
  t.deepEqual(await store.stat(digest), {size: bytes.length});

  await keep(bytes);
  t.is(await lifecycle.stored(digest), bytes.length);
});

test('a blob that is stored again while a reader finds it missing is kept', async (t) => {
  const looking = Promise.withResolvers<void>();
  const removed = Promise.withResolvers<void>();
  const missed = Promise.withResolvers<void>();
  const back = Promise.withResolvers<void>();
  let first = true;
  const {metadata, store, lifecycle, keep} = await setUp(t, {
    store: (real) => ({
      ...real,
      async stat(wanted) {
        if (!first) return real.stat(wanted);
        first = false;
        looking.resolve();
        await removed.promise;
        const found = await real.stat(wanted);
        missed.resolve();
        await back.promise;
        return found;
      },
    }),
  });
  await keep(bytes);
  const reading = lifecycle.stored(digest);
  await looking.promise;
  t.true(await lifecycle.delete(digest));
  removed.resolve();
  await missed.promise;
  await keep(bytes);
  back.resolve();

  t.is(await reading, bytes.length);
  t.like(await metadata.blob(digest), {state: 'ready'});
  t.truthy(await store.stat(digest));
});

test('a blob can be stored again after a process died while deleting it', async (t) => {
  const {metadata, store, lifecycle, keep} = await setUp(t);
  await keep(bytes);
  await metadata.commit([{type: 'blob.deleting', digest}]);
  t.is(await lifecycle.stored(digest), undefined);

  await keep(bytes);
  t.is(await lifecycle.stored(digest), bytes.length);
  t.like(await metadata.blob(digest), {state: 'ready'});
  t.truthy(await store.stat(digest));
});

test('a lost copy counts as absent also while its disk is read-only', async (t) => {
  const refuse = () => Promise.reject(Object.assign(new Error('read-only file system'), {code: 'EROFS'}));
  const {store, lifecycle, keep} = await setUp(t, {
    store: (real) => ({...real, stat: async () => ({size: 1}), setAside: refuse, delete: refuse}),
  });
  await keep(bytes);
  t.is(await lifecycle.stored(digest), undefined);
  t.truthy(await store.stat(digest), 'the file waits for garbage collection');
});

test('evicting a copy removes bytes and row, and leaves the permission to fetch it again', async (t) => {
  const {metadata, store, lifecycle, keep} = await setUp(t);
  const repository = {registry: 'docker.io', name: parseName('team/app')};
  const link = {
    type: 'blob.link',
    repository,
    digest,
    size: bytes.length,
    origin: 'upstream',
    at: 1,
  } as const;
  await keep(bytes);
  await metadata.commit([link]);
  t.true(await lifecycle.evict(digest));
  t.is(await metadata.blob(digest), undefined);
  t.is(await store.stat(digest), undefined);
  t.like(await metadata.blobLink(repository, digest), {origin: 'upstream', size: bytes.length});

  await keep(bytes);
  t.is(await lifecycle.stored(digest), bytes.length);
});

test('a blob that was pushed here, or that a stored manifest names, is not evicted', async (t) => {
  const {metadata, store, lifecycle, keep} = await setUp(t);
  const repository = {registry: 'docker.io', name: parseName('team/app')};
  const [pushed, named] = [Buffer.from('pushed'), Buffer.from('named')];
  for (const each of [pushed, named]) await keep(each);
  const manifest = Buffer.from('manifest');
  await metadata.commit([
    {type: 'blob.link', repository, digest: digestOf(pushed), size: 6, origin: 'local', at: 1},
    {
      type: 'manifest.put',
      repository,
      digest: digestOf(manifest),
      mediaType: 'text/any',
      bytes: manifest,
      edge: undefined,
      references: [{digest: digestOf(named), size: 5, kind: 'blob'}],
      origin: 'upstream',
      at: 1,
    },
  ]);
  for (const each of [pushed, named]) {
    t.false(await lifecycle.evict(digestOf(each)));
    t.like(await metadata.blob(digestOf(each)), {state: 'ready'});
    t.truthy(await store.stat(digestOf(each)));
  }
});

test('an eviction that a process began is ended by the next one', async (t) => {
  const {metadata, store, lifecycle, keep} = await setUp(t);
  await keep(bytes);
  await metadata.commit([{type: 'blob.deleting', digest}]);
  t.true(await lifecycle.evict(digest));
  t.is(await metadata.blob(digest), undefined);
  t.is(await store.stat(digest), undefined);
});

const hosted = {registry: 'hosted.test', name: parseName('team/app')};
const pushed = {
  type: 'blob.link',
  repository: hosted,
  digest,
  size: bytes.length,
  origin: 'local',
  at: 1,
} as const;
const missing = {digest, origin: 'local', problem: 'missing'} as const;

test('a pushed blob that the disk has lost is reported once, and counts until it is pushed again', async (t) => {
  const {metadata, store, damaged, reports, lifecycle, keep} = await setUp(t);
  await keep(bytes);
  await metadata.commit([pushed]);
  await store.delete(digest);
  for (let reads = 0; reads < 3; reads++) t.is(await lifecycle.stored(digest), undefined);
  t.like(await lifecycle.check(digest), {state: 'missing', origin: 'local'});
  t.deepEqual(reports, [missing]);
  t.is(damaged.count, 1);

  await keep(bytes);
  t.is(damaged.count, 0);
  await store.delete(digest);
  await lifecycle.stored(digest);
  t.deepEqual(reports, [missing, missing], 'what is lost again is reported again');
});

test('a pushed blob no longer counts as bad when its file is back, or when it is deleted', async (t) => {
  const {metadata, store, spools, damaged, lifecycle, keep} = await setUp(t);
  await keep(bytes);
  await metadata.commit([pushed]);
  await store.delete(digest);
  await lifecycle.stored(digest);
  const spool = await spools.open(digest);
  await spool.append(bytes);
  await store.publish(digest, spool);
  t.is(await lifecycle.stored(digest), bytes.length);
  t.is(damaged.count, 0);

  await store.delete(digest);
  await lifecycle.stored(digest);
  t.is(damaged.count, 1);
  await metadata.commit([{type: 'blob.unlink', repository: hosted, digest}]);
  t.true(await lifecycle.delete(digest));
  t.is(damaged.count, 0);
});

test('a damaged blob still counts when only the size of its file is right, until a check finds it sound', async (t) => {
  let flip = true;
  const {metadata, damaged, lifecycle, keep} = await setUp(t, {
    store: (real) => ({
      ...real,
      inspect: (asked) =>
        flip
          ? (async function* () {
              yield Buffer.alloc(bytes.length);
            })()
          : real.inspect(asked),
    }),
  });
  await keep(bytes);
  await metadata.commit([pushed]);
  await lifecycle.check(digest, {dryRun: true});
  t.is(await lifecycle.stored(digest), bytes.length);
  t.is(damaged.count, 1);
  flip = false;
  t.like(await lifecycle.check(digest), {state: 'sound'});
  t.is(damaged.count, 0);
});

test('what a check finds bad is forgotten in memory too, unless it changes nothing', async (t) => {
  const {metadata, store, memory, lifecycle, keep} = await setUp(t);
  await keep(bytes);
  await metadata.commit([pushed]);
  memory.keepBlob(digest, bytes);
  await store.delete(digest);
  await lifecycle.check(digest, {dryRun: true});
  t.deepEqual(memory.blob(digest), bytes);
  await lifecycle.check(digest);
  t.is(memory.blob(digest), undefined);
});

test('a deletion that a process began is ended, and nothing else is deleted', async (t) => {
  const {metadata, store, lifecycle, keep} = await setUp(t);
  await keep(bytes);
  t.false(await lifecycle.endDeletion(digest));
  t.truthy(await store.stat(digest));
  await metadata.commit([{type: 'blob.deleting', digest}]);
  t.true(await lifecycle.endDeletion(digest));
  t.is(await store.stat(digest), undefined);
  t.is(await metadata.blob(digest), undefined);
});
