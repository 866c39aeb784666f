import test, {type ExecutionContext} from 'ava';
import type {UsageLine} from '../../../src/registry/maintenance/disk-usage.ts';
import type {RemovalProgress} from '../../../src/registry/maintenance/image-removal.ts';
import {createManualClock} from '../../support/clock.ts';
import {imageManifest, plainManifest, randomBlob} from '../../support/content.ts';
import {repositoryNamed, type StoredImage, storeImage} from '../../support/copies.ts';
import {type WiredOptions, wireInProcess} from '../../support/wired.ts';

const TASK = {signal: new AbortController().signal, progress: () => {}};
const START = Date.UTC(2030, 0, 1);
const SINCE = '2030-01-01T00:00:00.000Z';

/** A mirror, `docker.io`, and what is stored in it. */
const mirror = (t: ExecutionContext, config: WiredOptions<never>['config'] = {}) =>
  wireInProcess(t, {
    registries: [{url: 'http://127.0.0.1:9'}],
    config: config ?? {},
    clock: createManualClock(START),
  });

test('an image is pinned by any of its names, here or not, and listed by the registry’s own name', async (t) => {
  const {maintenance, storage} = await mirror(t);
  const image = plainManifest();
  await storeImage(storage, {name: 'library/app', manifest: image, tags: ['1']});
  const {pins} = maintenance;

  t.deepEqual(
    await pins.add({images: ['app:1', 'docker.io/library/app:1', `app@${image.digest}`, 'team/x']}),
    {
      pins: [
        {image: 'docker.io/library/app:1', isHere: true, wasPinned: false},
        {image: `docker.io/library/app@${image.digest}`, isHere: true, wasPinned: false},
        {image: 'docker.io/team/x:latest', isHere: false, wasPinned: false},
      ],
    },
  );
  t.deepEqual(await pins.list(TASK), {
    images: [
      {image: 'docker.io/library/app:1', since: SINCE, isHere: true},
      {image: `docker.io/library/app@${image.digest}`, since: SINCE, isHere: true},
      {image: 'docker.io/team/x:latest', since: SINCE, isHere: false},
    ],
    patterns: [],
  });
  const again = await pins.add({images: ['library/app:1']});
  t.deepEqual(again.pins, [{image: 'docker.io/library/app:1', isHere: true, wasPinned: true}]);
});

test('of several names none is pinned when one is not valid', async (t) => {
  const {maintenance} = await mirror(t);
  await t.throwsAsync(() => maintenance.pins.add({images: ['app:1', 'ghcr.io/org/app:1']}), {
    message: /registry "ghcr.io" is not configured/,
  });
  t.deepEqual((await maintenance.pins.list(TASK)).images, []);
});

test('a pin ends by its name; where the configuration pins the image as well, it says so', async (t) => {
  const {maintenance} = await mirror(t, {pins: ['docker.io/library/*:1']});
  await maintenance.pins.add({images: ['app:1', 'app:2']});
  const {pins} = await maintenance.pins.remove({images: ['app:1', 'app:2', 'app:3']});
  t.deepEqual(pins, [
    {image: 'docker.io/library/app:1', wasPinned: true, configured: ['docker.io/library/*:1']},
    {image: 'docker.io/library/app:2', wasPinned: true, configured: []},
    {image: 'docker.io/library/app:3', wasPinned: false, configured: []},
  ]);
  t.deepEqual((await maintenance.pins.list(TASK)).images, []);
});

test('of each pattern in the configuration the list counts the images that are here', async (t) => {
  const {maintenance, storage} = await mirror(t, {pins: ['docker.io/library/*', 'docker.io/team/**:v?']});
  for (const tag of ['v1', 'v2', 'other'])
    await storeImage(storage, {name: 'team/app', manifest: imageManifest(), tags: [tag]});
  const {patterns} = await maintenance.pins.list(TASK);
  t.deepEqual(patterns, [
    {pattern: 'docker.io/library/*', images: 0},
    {pattern: 'docker.io/team/**:v?', images: 2},
  ]);
});

const DAY_MS = 24 * 60 * 60_000;
const base = randomBlob(40_000);
const layer = randomBlob(2_000);
const extra = randomBlob(500);
const v1 = imageManifest([base, layer]);
const v2 = imageManifest([base]);
const pushed = imageManifest([extra]);

/** Two copies that share a layer, the first used more often, and a pushed image. */
async function filled(t: ExecutionContext, config: WiredOptions<never>['config'] = {}) {
  const wired = await mirror(t, config);
  const at = START - 3 * DAY_MS;
  const store = (image: StoredImage) => storeImage(wired.storage, {at, ...image});
  await store({name: 'team/app', manifest: v1, tags: ['1'], blobs: [base, layer], uses: 2});
  await store({name: 'team/app', manifest: v2, tags: ['2'], at: at + 1000});
  await store({name: 'team/own', manifest: pushed, tags: ['3'], blobs: [extra], origin: 'local'});
  return wired;
}

const LINE = {registry: 'docker.io', images: 1};
const iso = (at: number) => new Date(at).toISOString();

test('the usage of each image: what it needs alone, what others need too, and its place in the order', async (t) => {
  const {maintenance} = await filled(t, {cache: {maxSize: {bytes: 100_000}}});
  const {lines, more, totals} = await maintenance.usage.run({by: 'image', top: 10, ...TASK});
  const [app, own] = [
    {...LINE, repository: 'team/app'},
    {...LINE, repository: 'team/own'},
  ];
  const used = {uses: 0, lastUsed: iso(START - 3 * DAY_MS)};
  const expected: unknown[] = [
    {
      ...app,
      digest: v1.digest,
      tags: ['1'],
      uniqueBytes: 2_000,
      sharedBytes: 40_000,
      uses: 2,
      lastUsed: iso(START - 3 * DAY_MS + 60_000),
      place: 2,
    },
    {...own, digest: pushed.digest, tags: ['3'], uniqueBytes: 500, sharedBytes: 0, ...used, kept: 'local'},
    {
      ...app,
      digest: v2.digest,
      tags: ['2'],
      uniqueBytes: 0,
      sharedBytes: 40_000,
      uses: 0,
      lastUsed: iso(START - 3 * DAY_MS + 1000),
      place: 1,
    },
  ];
  t.deepEqual<unknown, unknown>(lines, expected);
  t.deepEqual(more, {lines: 0, uniqueBytes: 0});
  const {images, blobs, limit, high, unrooted, database, used: all} = totals;
  t.deepEqual(
    {images, blobs, limit, high},
    {images: 3, blobs: 40_960 + 2 * 4096, limit: 100_000, high: 95_000},
  );
  t.deepEqual(unrooted, {blobs: 0, bytes: 0});
  t.true(database > 0 && all === blobs + database);
});

test('a layer that only the images of one repository share is the repository’s own', async (t) => {
  const {maintenance} = await filled(t);
  const byRepository = await maintenance.usage.run({by: 'repository', top: 1, ...TASK});
  const bytes = ({repository, images, uniqueBytes, sharedBytes}: UsageLine) => [
    repository,
    images,
    uniqueBytes,
    sharedBytes,
  ];
  t.deepEqual(byRepository.lines.map(bytes), [['team/app', 2, 42_000, 0]]);
  t.deepEqual(byRepository.more, {lines: 1, uniqueBytes: 500});
  const [line] = (await maintenance.usage.run({by: 'registry', top: 1, ...TASK})).lines;
  t.deepEqual(line && bytes(line), [undefined, 3, 42_500, 0]);
  t.is(line?.kept, undefined);
  t.is(line?.place, 1);
});

const rm = async ({maintenance}: Awaited<ReturnType<typeof mirror>>, images: string[], dryRun = false) => {
  const {removedImages, sparedImages, ...counts} = await maintenance.removal.run({images, dryRun, ...TASK});
  return {
    ...counts,
    removedTags: removedImages.flatMap(({tags}) => tags),
    reasons: sparedImages.map(({tags, reason}) => `${tags}: ${reason}`),
  };
};

test('a pattern removes the copies that match; what is pinned or pushed here stays, with what it needs', async (t) => {
  const wired = await filled(t);
  const {maintenance, storage, content} = wired;
  await maintenance.pins.add({images: ['team/app:2']});
  const repository = repositoryNamed('team/app');
  const record = await storage.metadata.manifest(repository, v1.digest);
  if (record) content.memory.keepManifest(repository, record);
  const expected = {
    removed: 1,
    spared: 2,
    bytes: 2_000,
    unmatched: ['docker.io/nope/*'],
    removedTags: ['1'],
    reasons: ['2: pinned', '3: local'],
  };
  const asked = ['docker.io/team/*', 'docker.io/nope/*'] as string[];
  t.deepEqual(await rm(wired, asked, true), expected);
  t.truthy(await storage.metadata.manifest(repository, v1.digest));

  const states: RemovalProgress[] = [];
  const progress = (state: RemovalProgress) => void states.push(state);
  const {signal} = TASK;
  const evicted: unknown[] = [];
  wired.events.on('cache.evicted', (event) => void evicted.push(event));
  t.is((await maintenance.removal.run({images: asked, dryRun: false, signal, progress})).removed, 1);
  t.deepEqual(states.at(-1), {done: 1, removed: 1, bytes: 2_000});
  const counts = {probation: 0, value: 0, unrooted: 0, damaged: 0, removed: 1};
  t.deepEqual(evicted, [{counts, bytes: 2_000, youngest: undefined}]);
  t.is(await storage.metadata.manifest(repository, v1.digest), undefined);
  t.is(content.memory.manifest(repository, v1.digest), undefined);
  t.is(await storage.store.stat(layer.digest), undefined);
  t.deepEqual(await storage.store.stat(base.digest), {size: 40_000});
  t.truthy(await storage.metadata.manifest(repository, v2.digest));
});

test('an image is removed by its tag or digest; without either, all of its repository', async (t) => {
  const wired = await filled(t);
  const byDigest = await rm(wired, [`team/app@${v1.digest}`, 'team/app:7'], true);
  t.like(byDigest, {removedTags: ['1'], unmatched: ['team/app:7'], bytes: 2_000});
  t.like(await rm(wired, ['team/app:2'], true), {removedTags: ['2'], bytes: 0});
  t.like(await rm(wired, ['team/app']), {removed: 2, bytes: 42_000, unmatched: []});
  t.is(await wired.storage.store.stat(base.digest), undefined);
});

test('what cache.keep protects stays; a pattern that is not one removes nothing', async (t) => {
  const wired = await filled(t, {cache: {keep: [{match: 'docker.io/team/*', newest: 1}]}});
  t.like(await rm(wired, ['team/app'], true), {removedTags: ['1'], reasons: ['2: newest']});
  await t.throwsAsync(() => rm(wired, ['team/app:1', 'docker.io/team/{']), {message: /is not a pattern/});
  t.like(await rm(wired, ['team/app:1'], true), {removed: 1});
});
