import test, {type ExecutionContext} from 'ava';
import type {Digest} from '../../../src/oci/digest.ts';
import {
  type CacheLimits,
  type CapacityParts,
  createCapacity,
} from '../../../src/registry/maintenance/capacity.ts';
import {NoRoom} from '../../../src/registry/space.ts';
import type {DiskState} from '../../../src/storage/disk.ts';
import {openStorage} from '../../../src/storage/open.ts';
import {configOf, createMovableClock} from '../../support/backref.ts';
import {randomBlob} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {withState} from '../../support/wired.ts';

const KIB = 1024;
const LIMITS: CacheLimits = {
  maxSize: {bytes: 100 * KIB},
  minFree: {bytes: 0},
  highWatermark: 80,
  lowWatermark: 60,
};
const DISK: DiskState = {size: 1000 * KIB, free: 900 * KIB, database: 10 * KIB, isShared: true};

interface Options {
  limits?: Partial<CacheLimits>;
  disk?: Partial<DiskState> | 'missing';
  makeRoom?: CapacityParts['makeRoom'];
  /** Awaited before the disk says how much of it is free. */
  beforeSpace?(): Promise<void>;
  /** Awaited before a count reads a page of blobs. */
  beforePage?(after: Digest | undefined): Promise<void>;
}

/** The capacity of real storage, on a disk that says what a test wants. */
async function setUp(
  t: ExecutionContext,
  {limits, disk = {}, makeRoom = async () => {}, beforeSpace, beforePage}: Options = {},
) {
  const clock = createMovableClock();
  const config = configOf({registries: []}, await createFolder(t), 0);
  const storage = await openStorage(config.storage, {owner: 'test', clock});
  t.teardown(() => storage.close());
  await storage.store.check();
  const state = {...DISK, ...(disk === 'missing' ? {} : disk)};
  const {metadata, store, spools} = storage;
  const blobs: typeof metadata.blobs = async (after, limit) => {
    await beforePage?.(after);
    return metadata.blobs(after, limit);
  };
  const stateNow = async () => {
    if (disk === 'missing') throw new Error('not mounted');
    return {...state};
  };
  const saying = withState(storage.disk, stateNow);
  const capacity = createCapacity({
    limits: {...LIMITS, ...limits},
    metadata: {blobs},
    store,
    spools,
    disk: {
      ...saying,
      async space() {
        await beforeSpace?.();
        return saying.space();
      },
    },
    makeRoom,
    clock,
  });
  const record = async (digest: Digest, size: number) => {
    await metadata.commit([{type: 'blob.put', digest, size, at: clock.now()}]);
    return digest;
  };
  return {capacity, storage, state, record};
}

const {signal} = new AbortController();
const nothing = () => 0;

test('blobs, unfinished transfers, the quarantine and the database are counted in blocks', async (t) => {
  const {capacity, storage, record} = await setUp(t);
  for (let index = 0; index < 1001; index++) await record(randomBlob(20).digest, 1);
  await record(randomBlob(20).digest, 5000);
  const idle = await storage.spools.open(randomBlob(20).digest);
  await idle.append(Buffer.alloc(3));
  await idle.close();
  const bad = randomBlob(10);
  const spool = await storage.spools.open(bad.digest);
  await spool.append(bad.bytes);
  await storage.store.publish(bad.digest, spool);
  await storage.store.setAside(bad.digest, 'upstream');
  await capacity.count(signal);
  const {blobs, spools, quarantine, database, reserved, used} = await capacity.measure();
  t.deepEqual(
    {blobs, spools, quarantine, database, reserved},
    {blobs: 1001 * 4096 + 8192, spools: 4096, quarantine: 4096, database: 10 * KIB, reserved: 0},
  );
  t.is(used, blobs + spools + quarantine + database);
});

test('what is stored and deleted during a count and after it is counted once', async (t) => {
  let isChanged = false;
  const {capacity, record} = await setUp(t, {
    limits: {maxSize: undefined},
    async beforePage(after) {
      if (after === undefined || isChanged) return;
      isChanged = true;
      // The first page has been read, the last one has not.
      for (const place of [0, 1199]) {
        await record(digests[place] as Digest, 9000);
        capacity.changed(digests[place] as Digest, 1, 9000);
      }
    },
  });
  const digests: Digest[] = [];
  for (let index = 0; index < 1200; index++) digests.push(await record(randomBlob(20).digest, 1));
  digests.sort();
  await capacity.count(signal);
  t.is(capacity.usage().blobs, 1198 * 4096 + 2 * 12_288);
  capacity.changed(digests[5] as Digest, 1, undefined);
  capacity.changed(digests[6] as Digest, 1, 4096);
  t.is(capacity.usage().blobs, 1197 * 4096 + 2 * 12_288);
});

test('the limit is the smaller of maxSize and what the disk has left up to minFree', async (t) => {
  const limitOf = async (limits: Partial<CacheLimits>, disk: Options['disk'] = {}) => {
    const {capacity} = await setUp(t, {limits, disk});
    await capacity.count(signal);
    return (await capacity.measure()).limit / KIB;
  };
  t.is(await limitOf({}), 100);
  t.is(await limitOf({maxSize: {percent: 50}}), 500);
  t.is(await limitOf({maxSize: undefined}), 910, 'the database may take up what it has already');
  t.is(await limitOf({maxSize: undefined, minFree: {percent: 10}}), 810);
  t.is(await limitOf({minFree: {bytes: 850 * KIB}}), 60);
  t.is(await limitOf({minFree: {bytes: 850 * KIB}}, {isShared: false}), 50);
  t.is(await limitOf({minFree: {bytes: 950 * KIB}}, {free: 0}), 0);
  t.is(await limitOf({}, 'missing'), 100);
  t.is(await limitOf({maxSize: undefined}, 'missing'), Number.POSITIVE_INFINITY);
});

test('the database counts only where it shares the disk', async (t) => {
  const {capacity} = await setUp(t, {disk: {isShared: false}});
  const {database, used} = await capacity.measure();
  t.is(database, 10 * KIB);
  t.is(used, 0);
});

test('a reservation holds room until it is released; what it has written is not held twice', async (t) => {
  const {capacity} = await setUp(t, {disk: {database: 0}});
  await capacity.count(signal);
  let written = 0;
  const reservation = await capacity.reserve(60 * KIB, () => written);
  t.like(capacity.usage(), {spools: 0, reserved: 60 * KIB, used: 60 * KIB});
  written = 40 * KIB;
  t.like(capacity.usage(), {spools: 40 * KIB, reserved: 20 * KIB, used: 60 * KIB});
  await t.throwsAsync(capacity.reserve(41 * KIB, nothing), {
    instanceOf: NoRoom,
    message: /no room for 41984 bytes/,
  });
  t.is(capacity.usage().used, 60 * KIB, 'a refused reservation holds nothing');
  const small = await capacity.reserve(0, nothing);
  await small.grow(40 * KIB);
  await small.grow(10 * KIB);
  await t.throwsAsync(small.grow(41 * KIB), {instanceOf: NoRoom});
  reservation.release();
  reservation.release();
  t.is(capacity.usage().used, 40 * KIB);
  await small.grow(41 * KIB);
});

test('of many that reserve at once, only those that fit do', async (t) => {
  const {capacity} = await setUp(t, {disk: {database: 0}});
  await capacity.count(signal);
  const asked = Array.from({length: 10}, () => capacity.reserve(30 * KIB, nothing));
  const results = await Promise.allSettled(asked);
  t.is(results.filter(({status}) => status === 'fulfilled').length, 3);
});

test('without room, a reservation waits for what is evicted for it', async (t) => {
  const asked: number[] = [];
  const {capacity, record} = await setUp(t, {
    disk: {database: 0},
    makeRoom: async (bytes) => {
      if (bytes > 0) asked.push(bytes);
      if (bytes === 30 * KIB) capacity.changed(digest, 80 * KIB, undefined);
    },
  });
  const digest = await record(randomBlob(20).digest, 80 * KIB);
  await capacity.count(signal);
  await t.throwsAsync(capacity.reserve(40 * KIB, nothing), {instanceOf: NoRoom});
  await t.notThrowsAsync(capacity.reserve(30 * KIB, nothing));
  await t.throwsAsync(capacity.reserve(101 * KIB, nothing), {instanceOf: NoRoom});
  t.deepEqual(asked, [40 * KIB, 30 * KIB], 'nothing is evicted for what can never fit');
});

test('room that an abandoned transfer or the quarantine has given back is found', async (t) => {
  const {capacity, storage} = await setUp(t, {disk: {database: 0}});
  const {digest} = randomBlob(20);
  const spool = await storage.spools.open(digest);
  await spool.append(Buffer.alloc(80 * KIB));
  await spool.close();
  await capacity.count(signal);
  await capacity.measure();
  await t.throwsAsync(capacity.reserve(30 * KIB, nothing), {instanceOf: NoRoom});
  await storage.spools.remove(digest);
  await t.notThrowsAsync(capacity.reserve(30 * KIB, nothing));
});

test('a reservation keeps what has been measured of the database meanwhile', async (t) => {
  const answered = Promise.withResolvers<void>();
  const beforeSpace = () => answered.promise;
  const {capacity, state} = await setUp(t, {disk: {database: 0}, beforeSpace});
  await capacity.count(signal);
  await capacity.measure();
  const reserving = capacity.reserve(KIB, nothing);
  state.database = 90 * KIB;
  await capacity.measure();
  answered.resolve();
  await reserving;
  t.is(capacity.usage().database, 90 * KIB);
});

test('above the high watermark images are evicted, whoever brought it there', async (t) => {
  let evictions = 0;
  const {capacity} = await setUp(t, {
    disk: {database: 0},
    makeRoom: async () => {
      evictions += 1;
    },
  });
  await capacity.count(signal);
  const reservation = await capacity.reserve(80 * KIB, nothing);
  t.is(evictions, 0);
  await reservation.grow(81 * KIB);
  t.is(evictions, 1);
  reservation.release();
  capacity.changed(randomBlob(20).digest, undefined, 70 * KIB);
  t.is(evictions, 1);
  capacity.changed(randomBlob(20).digest, undefined, 20 * KIB);
  t.is(evictions, 2);
});

test('what is pushed is refused by the disk alone', async (t) => {
  const rooms: number[] = [];
  const {capacity, state} = await setUp(t, {
    disk: {free: 300 * KIB},
    makeRoom: async (bytes) => {
      rooms.push(bytes);
      if (bytes === 310 * KIB) state.free = 400 * KIB;
    },
  });
  await capacity.count(signal);
  const pushed = await capacity.reservePushed(200 * KIB, nothing);
  t.deepEqual(rooms, [0], 'it is above the limit, so copies go');
  await t.throwsAsync(capacity.reservePushed(101 * KIB, nothing), {
    instanceOf: NoRoom,
    message: /the disk has no room/,
  });
  pushed.release();
  await t.throwsAsync(
    capacity.reservePushed(310 * KIB, nothing),
    {instanceOf: NoRoom},
    'there are no copies',
  );
  capacity.changed(randomBlob(20).digest, undefined, 20 * KIB);
  await t.notThrowsAsync(capacity.reservePushed(310 * KIB, nothing));
});

test('before the first count the disk alone limits', async (t) => {
  const {capacity} = await setUp(t, {limits: {minFree: {bytes: 700 * KIB}}});
  await t.notThrowsAsync(capacity.reserve(150 * KIB, nothing));
  await t.throwsAsync(capacity.reserve(150 * KIB, nothing), {instanceOf: NoRoom});
});
