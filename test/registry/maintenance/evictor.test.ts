import {mkdir, readdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import type {Config} from '../../../src/config.ts';
import type {EventMap} from '../../../src/events.ts';
import type {Digest} from '../../../src/oci/digest.ts';
import {readManifest} from '../../../src/oci/manifest.ts';
import {parseName, parseTag} from '../../../src/oci/name.ts';
import {edgeOf} from '../../../src/oci/referrers.ts';
import {claimCollection} from '../../../src/registry/maintenance/garbage.ts';
import {takeInventory} from '../../../src/registry/maintenance/inventory.ts';
import {NoRoom} from '../../../src/registry/space.ts';
import {manifestPut} from '../../../src/registry/stored-manifest.ts';
import {DiskFull, type Metadata, type Origin} from '../../../src/storage/metadata.ts';
import {createMovableClock, DAY, type MovableClock, waiting} from '../../support/backref.ts';
import {
  type Content,
  contentOf,
  imageManifest,
  indexOf,
  type ManifestContent,
  randomBlob,
} from '../../support/content.ts';
import {wireInProcess, withState} from '../../support/wired.ts';

const BLOCK = 4096;
/** The bytes of the one layer of most images here. */
const LAYER = 25 * BLOCK;
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const CONFIG = contentOf(Buffer.from('{}'));
const {signal} = new AbortController();

interface Options {
  /** How many layers have room beside the config that all images share. */
  layers: number;
  cache?: Partial<Config['cache']>;
  pins?: string[];
  clock?: MovableClock;
  metadata?(real: Metadata): Metadata;
}

/** A server's parts over real storage, whose cache has room for so many layers, with what a test stores in them. */
async function setUp(
  t: ExecutionContext,
  {layers, cache, pins = [], metadata, clock = createMovableClock()}: Options,
) {
  const maxSize = {bytes: layers * LAYER + BLOCK};
  const wired = await wireInProcess(t, {
    clock,
    registries: [{}, {}],
    config: {pins, cache: {maxSize, highWatermark: 99, lowWatermark: 98, ...cache}},
    disk: (real) => withState(real, async () => ({size: 1e9, free: 1e9, database: 0, isShared: false})),
    ...(metadata ? {metadata} : {}),
  });
  const {storage, content, events, maintenance} = wired;
  await storage.store.check();
  t.teardown(() => maintenance.evictor.close());
  const evicted: EventMap['cache.evicted'][0][] = [];
  events.on('cache.evicted', (round) => void evicted.push(round));
  const crowded: EventMap['cache.crowded'][0][] = [];
  events.on('cache.crowded', (event) => void crowded.push(event));

  async function blob({bytes, digest}: Content): Promise<void> {
    const spool = await storage.spools.open(digest);
    await spool.append(bytes);
    await content.lifecycle.publish(digest, spool);
  }

  /** Stores a manifest as a pull or a push does, and lets time pass until it is no longer in use. */
  async function manifest(
    name: string,
    tag: string | undefined,
    it: ManifestContent,
    origin: Origin = 'upstream',
  ) {
    const repository = {registry: 'docker.io', name: parseName(name)};
    const {digest, mediaType, bytes} = it;
    const at = clock.now();
    const facts = readManifest(bytes);
    const edge = edgeOf({digest, mediaType, bytes});
    await storage.metadata.commit([
      manifestPut({repository, digest, mediaType, bytes, edge, facts, origin, at}),
      ...(tag === undefined
        ? []
        : [{type: 'tag.put' as const, repository, name: parseTag(tag), digest, origin, at}]),
    ]);
    clock.move(2 * MINUTE);
    return {repository, digest};
  }

  async function image(name: string, tag: string, layer = randomBlob(LAYER), origin: Origin = 'upstream') {
    await blob(layer);
    await blob(CONFIG);
    return {...(await manifest(name, tag, imageManifest([layer]), origin)), layer: layer.digest};
  }

  return {
    ...wired,
    evictor: maintenance.evictor,
    capacity: maintenance.capacity,
    evicted,
    crowded,
    blob,
    manifest,
    image,
    isLinked: async ({repository, digest}: Awaited<ReturnType<typeof manifest>>) =>
      (await storage.metadata.manifest(repository, digest)) !== undefined,
    isStored: async (digest: Digest) => (await storage.store.stat(digest)) !== undefined,
  };
}

test('above the high watermark, images are evicted with what only they need, down to the low one', async (t) => {
  const {image, evictor, isLinked, isStored, evicted, storage, capacity} = await setUp(t, {
    layers: 4,
    cache: {lowWatermark: 60},
  });
  const images = [];
  for (let number = 0; number < 5; number++) images.push(await image('library/app', `${number}`));
  t.true(await isLinked(images[0] as (typeof images)[0]), 'nothing is evicted before it is counted');
  await evictor.step(signal);
  const linked = await Promise.all(images.map(isLinked));
  t.deepEqual(linked, [false, false, false, true, true], 'those that came first go first');
  for (const [index, {layer}] of images.entries()) t.is(await isStored(layer), index > 2);
  t.true(await isStored(CONFIG.digest), 'what others need stays');
  t.is(
    await storage.metadata.tag({registry: 'docker.io', name: parseName('library/app')}, parseTag('0')),
    undefined,
  );
  t.deepEqual(evicted, [
    {
      counts: {probation: 3, value: 0, unrooted: 0, damaged: 0, removed: 0},
      bytes: 3 * LAYER,
      youngest: 6 * MINUTE,
    },
  ]);
  t.is(capacity.usage().blobs, 2 * LAYER + BLOCK);
  await evictor.step(signal);
  t.is(evicted.length, 1);
});

test('what is pinned, among the newest or pushed here stays, and a cache full of it says so once', async (t) => {
  const {image, evictor, isLinked, crowded, storage, clock} = await setUp(t, {
    layers: 1,
    pins: ['docker.io/library/pinned:1.*'],
    cache: {keep: [{match: 'docker.io/library/kept', newest: 1}]},
  });
  const gone = [await image('library/kept', 'old'), await image('library/pinned', '2')];
  const stays = [
    await image('library/pinned', '1.0'),
    await image('library/kept', 'new'),
    await image('library/local', '1', randomBlob(LAYER), 'local'),
    await image('library/stored', '1'),
  ];
  const {repository} = stays[3] as (typeof stays)[0];
  const pin = {registry: 'docker.io', name: repository.name, reference: parseTag('1'), at: clock.now()};
  await storage.metadata.commit([{type: 'pin.put', pin}]);
  await evictor.step(signal);
  t.deepEqual(await Promise.all(gone.map(isLinked)), [false, false]);
  t.deepEqual(await Promise.all(stays.map(isLinked)), [true, true, true, true]);
  clock.move(2 * MINUTE);
  await evictor.step(signal);
  t.is(crowded.length, 1);
  t.is(crowded[0]?.kept, 4);
});

test('an image that is pinned while a round runs stays', async (t) => {
  const pin = {registry: 'docker.io', name: parseName('library/app'), reference: parseTag('0'), at: 0};
  const {image, evictor, isLinked} = await setUp(t, {
    layers: 1,
    metadata: (real) => ({
      ...real,
      async snapshot() {
        const snapshot = await real.snapshot();
        await real.commit([{type: 'pin.put', pin}]);
        return snapshot;
      },
    }),
  });
  const [pinned, other] = [await image('library/app', '0'), await image('library/app', '1')];
  await evictor.step(signal);
  t.true(await isLinked(pinned));
  t.false(await isLinked(other));
});

test('an image that is used stays, and one used just now is not touched', async (t) => {
  const {image, evictor, isLinked, content, clock} = await setUp(t, {layers: 2});
  const often = await image('library/app', 'often');
  for (let use = 0; use < 3; use++) {
    content.uses.record(often.repository, often.digest);
    await content.uses.flush();
    clock.move(2 * MINUTE);
  }
  const rarely = await image('library/app', 'rarely');
  const now = await image('library/app', 'now');
  content.uses.record(now.repository, now.digest);
  const alsoNow = await image('library/app', 'also-now');
  content.uses.record(alsoNow.repository, alsoNow.digest);
  await evictor.step(signal);
  t.deepEqual(await Promise.all([often, rarely, now, alsoNow].map(isLinked)), [false, false, true, true]);
});

test('an image whose blob was served within the last minute is being pulled, and stays', async (t) => {
  const {image, evictor, isLinked, events} = await setUp(t, {layers: 1});
  const [slow, other] = [await image('library/app', 'slow'), await image('library/app', 'other')];
  const {registry, name: repository} = slow.repository;
  events.emit('blob.served', {registry, repository, digest: slow.layer, outcome: 'hit'});
  await evictor.step(signal);
  t.deepEqual(await Promise.all([slow, other].map(isLinked)), [true, false]);
});

test('an index goes with its children, in one piece', async (t) => {
  const {blob, manifest, image, evictor, isLinked, isStored, evicted} = await setUp(t, {layers: 2});
  const layers = [randomBlob(LAYER), randomBlob(LAYER)];
  for (const content of [...layers, CONFIG]) await blob(content);
  const children = layers.map((layer) => imageManifest([layer]));
  const index = await manifest('library/app', 'multi', indexOf(children));
  const linked = [index];
  for (const child of children) linked.push(await manifest('library/app', undefined, child));
  const newer = await image('library/app', 'newer');
  await evictor.step(signal);
  t.deepEqual(await Promise.all(linked.map(isLinked)), [false, false, false]);
  t.true(await isLinked(newer));
  for (const {digest} of layers) t.false(await isStored(digest));
  t.like(evicted, [{counts: {probation: 1}, bytes: 2 * LAYER}]);
});

test('blobs of no image go first, once they are an hour old', async (t) => {
  const {blob, image, evictor, isLinked, isStored, evicted, clock} = await setUp(t, {layers: 2.5});
  const old = randomBlob(LAYER);
  await blob(old);
  clock.move(HOUR);
  const app = await image('library/app', '1');
  const fresh = randomBlob(LAYER);
  await blob(fresh);
  await evictor.step(signal);
  t.false(await isStored(old.digest));
  t.true(await isStored(fresh.digest));
  t.true(await isLinked(app));
  t.like(evicted, [{counts: {probation: 0, unrooted: 1}, bytes: LAYER, youngest: undefined}]);
});

test('damaged copies and abandoned downloads make room before any image', async (t) => {
  const {image, evictor, isLinked, evicted, folder, storage, clock} = await setUp(t, {layers: 3});
  const app = await image('library/app', '1');
  const quarantine = join(folder, 'blobs', 'quarantine', 'upstream');
  await mkdir(quarantine, {recursive: true});
  await writeFile(join(quarantine, 'damaged'), Buffer.alloc(LAYER));
  const spool = await storage.spools.open(randomBlob(1).digest);
  await spool.append(Buffer.alloc(LAYER));
  await spool.close();
  clock.move(HOUR);
  await evictor.step(signal);
  t.true(await isLinked(app));
  t.deepEqual(await readdir(quarantine), []);
  t.like(evicted, [{counts: {damaged: 1}, bytes: LAYER}]);
  await evictor.makeRoom(LAYER);
  t.is(await storage.spools.idleBytes(), LAYER, 'it was not in the way');
  await evictor.makeRoom(2 * LAYER - BLOCK);
  t.is(await storage.spools.idleBytes(), 0);
});

test('a download that needs room has it made, and is refused where what is left is kept', async (t) => {
  const {image, content, isLinked, evictor} = await setUp(t, {layers: 2, pins: ['docker.io/library/pinned']});
  const pinned = await image('library/pinned', '1');
  const app = await image('library/app', '1');
  await evictor.step(signal);
  const room = await content.space.reserve(LAYER, () => 0);
  t.false(await isLinked(app));
  t.true(await isLinked(pinned));
  await t.throwsAsync(
    content.space.reserve(LAYER, () => 0),
    {instanceOf: NoRoom},
  );
  room.release();
  await t.notThrowsAsync(content.space.reserve(LAYER, () => 0));
});

test('while a backup keeps anything from being evicted, a download that needs room is refused without waiting', async (t) => {
  // The time limit of the wait is never reached.
  const clock = waiting(createMovableClock(), (ms) => (ms === 2000 ? DAY : ms));
  const {image, content, evictor, storage, isLinked} = await setUp(t, {layers: 2, clock});
  const app = await image('library/app', '1');
  await evictor.step(signal);
  const reserve = () => content.space.reserve(2 * LAYER, () => 0);
  const claim = await claimCollection(storage.claims, signal);
  await t.throwsAsync(reserve(), {instanceOf: NoRoom});
  t.true(await isLinked(app));
  await claim.release();
  await t.notThrowsAsync(reserve());
  t.false(await isLinked(app));
});

test('nothing is evicted for a download that no longer waits for room', async (t) => {
  const {image, evictor, isLinked} = await setUp(t, {layers: 4});
  const images = [await image('library/app', '1'), await image('library/app', '2')];
  await evictor.step(signal);
  const [gone, waiting] = [new AbortController(), new AbortController()];
  const round = evictor.makeRoom(3 * LAYER, gone.signal);
  evictor.makeRoom(LAYER, waiting.signal);
  gone.abort();
  await round;
  t.deepEqual(await Promise.all(images.map(isLinked)), [true, true]);
});

test('an image that is used between the inventory and its turn stays', async (t) => {
  const used: (() => Promise<unknown>)[] = [];
  const {image, evictor, isLinked, storage, clock} = await setUp(t, {
    layers: 1.5,
    metadata: (real) => ({
      ...real,
      async snapshot() {
        const before = await real.snapshot();
        for (const use of used.splice(0)) await use();
        return before;
      },
    }),
  });
  const [first, second] = [await image('library/app', '1'), await image('library/app', '2')];
  used.push(() => {
    clock.move(1);
    const {repository, digest} = first;
    return storage.metadata.commit([{type: 'manifest.used', repository, digest, at: clock.now(), age: 0}]);
  });
  await evictor.step(signal);
  t.deepEqual(await Promise.all([first, second].map(isLinked)), [true, false]);
});

test('on a disk that is so full that nothing can be committed, the ballast is given up for it', async (t) => {
  let isFull = true;
  const {image, evictor, isLinked, isStored, storage, folder} = await setUp(t, {
    layers: 1.5,
    metadata: (real) => ({
      ...real,
      async commit(changes, terms) {
        const deletes = changes.some(({type}) => type === 'manifest.evict');
        if (deletes && isFull && (await readdir(folder)).includes('backref.ballast')) {
          throw new DiskFull('full', 'no room');
        }
        return real.commit(changes, terms);
      },
    }),
  });
  await storage.disk.occupyBallast();
  const [first, second] = [await image('library/app', '1'), await image('library/app', '2')];
  await evictor.step(signal);
  t.deepEqual(await Promise.all([first, second].map(isLinked)), [false, true]);
  t.false(await isStored(first.layer));
  t.true((await readdir(folder)).includes('backref.ballast'), 'with room again, it is written again');
  isFull = false;
});

test('a blob whose image another process evicted before it died is deleted with the next round', async (t) => {
  const {image, evictor, isStored, storage, clock} = await setUp(t, {layers: 1});
  const first = await image('library/app', '1');
  const {repository, digest} = first;
  await storage.metadata.commit([
    {type: 'manifest.evict', repository, root: digest, digest, at: clock.now()},
  ]);
  clock.move(HOUR);
  await image('library/app', '2');
  t.true(await isStored(first.layer));
  await evictor.step(signal);
  t.false(await isStored(first.layer));
});

test('an operator evicts a root whatever its uses are, but not one that is kept', async (t) => {
  const {image, evictor, isLinked, storage, clock, content} = await setUp(t, {
    layers: 10,
    pins: ['docker.io/library/pinned'],
  });
  const [app, pinned] = [await image('library/app', '1'), await image('library/pinned', '1')];
  content.uses.record(app.repository, app.digest);
  const inventory = await takeInventory(storage.metadata, await evictor.protection(), clock.now());
  const rootOf = (digest: Digest) => {
    const root = inventory.roots.find((each) => each.digest === digest);
    if (!root) throw new Error('no such root');
    return root;
  };
  t.like(await evictor.evict(inventory, rootOf(app.digest), {signal}), {bytes: LAYER});
  t.is(await evictor.evict(inventory, rootOf(pinned.digest), {signal}), undefined);
  t.deepEqual(await Promise.all([app, pinned].map(isLinked)), [false, true]);
});

test('a blob that was evicted although an image that names it is here counts as a broken promise', async (t) => {
  const {image, evictor, events, clock, storage} = await setUp(t, {layers: 1.5});
  const broken: Digest[] = [];
  events.on('cache.broken-promise', ({digest}) => void broken.push(digest));
  const [first, second] = [await image('library/app', '1'), await image('library/app', '2')];
  await evictor.step(signal);
  const miss = async (digest: Digest) => {
    const {registry, name: repository} = first.repository;
    events.emit('blob.missed', {registry, repository, digest});
    await new Promise(setImmediate);
  };
  await miss(first.layer);
  await miss(second.layer);
  t.deepEqual(broken, [], 'the image was evicted before its blobs; the other blob is here');
  // What eviction does not do: a manifest that names the blob, and was linked before, stays.
  const {repository, layer} = first;
  const {bytes, digest, mediaType} = imageManifest([{digest: layer, bytes: Buffer.alloc(LAYER)}]);
  const facts = readManifest(bytes);
  await storage.metadata.commit([
    manifestPut({
      repository,
      digest,
      mediaType,
      bytes,
      edge: undefined,
      facts,
      origin: 'upstream',
      at: clock.now() - HOUR,
    }),
  ]);
  await miss(layer);
  t.deepEqual(broken, [layer]);
});
