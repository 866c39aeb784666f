import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {gzipSync, zstdCompressSync} from 'node:zlib';
import test from 'ava';
import {simulateBelady, simulateLru} from '../../bench/eviction/blob-caches.ts';
import {
  CACHE_SHARES,
  compare,
  compareScenarios,
  missedTargets,
  type Scenario,
} from '../../bench/eviction/comparison.ts';
import {workingSet} from '../../bench/eviction/figures.ts';
import {simulateImages} from '../../bench/eviction/image-cache.ts';
import {plot} from '../../bench/eviction/plot.ts';
import {readTrace} from '../../bench/eviction/trace.ts';
import {createWorkload, type Pull, type Scale, type Workload} from '../../bench/eviction/workload.ts';
import {createFolder} from '../support/folder.ts';

const SMALL: Scale = {seed: 3, days: 30, repositories: 80, bases: 10, pullsPerDay: 200};
const MINUTES_PER_DAY = 24 * 60;

/** Images of one layer of a byte each, and a manifest that takes next to nothing. */
function plainWorkload(images: number, pulls: readonly Pick<Pull, 'at' | 'image' | 'isCrawl'>[]): Workload {
  return {
    sizes: Float64Array.from({length: 2 * images}, (_, content) => (content < images ? 0.001 : 1)),
    images: Array.from({length: images}, (_, image) => ({
      manifest: image,
      blobs: Int32Array.of(images + image),
    })),
    pulls: pulls.map((pull) => ({...pull, blobs: Int32Array.of(images + pull.image)})),
  };
}

test('a nightly crawl evicts nothing that is pulled daily', (t) => {
  const [daily, catalogue, days] = [10, 200, 10];
  const pulls: Pull[] = [];
  for (let day = 0; day < days; day++) {
    const pull = (image: number, minute: number, isCrawl: boolean) =>
      pulls.push({at: day * MINUTES_PER_DAY + minute, image, isCrawl, blobs: new Int32Array()});
    for (let image = 0; image < daily; image++) for (const hour of [8, 16]) pull(image, hour * 60, false);
    for (let image = 0; image < catalogue; image++) pull(image, 23 * 60 + image / 10, true);
  }
  const workload = plainWorkload(catalogue, pulls);
  const capacity = 1.5 * daily;
  const {completePulls, brokenPromises} = simulateImages(workload, capacity);
  t.is(completePulls, 1 - daily / (2 * daily * days), 'only the first pull of each asks the upstream');
  t.is(brokenPromises, 0);
  t.true(simulateLru(workload, capacity).completePulls <= 0.5);
});

test('layers follow the published sizes, and the crawl changes nothing about what clients pull', (t) => {
  const quiet = createWorkload(SMALL, {crawl: false});
  const crawled = createWorkload(SMALL, {crawl: true});
  const notLayers = new Set(quiet.images.flatMap(({manifest, blobs}) => [manifest, blobs[0]]));
  const layers = quiet.sizes.filter((_, content) => !notLayers.has(content));
  const shareBelow = (bytes: number) => layers.filter((size) => size < bytes).length / layers.length;
  t.true(Math.abs(shareBelow(1e6) - 0.65) < 0.02);
  t.true(Math.abs(shareBelow(1e7) - 0.8) < 0.02);
  t.deepEqual(
    crawled.pulls.filter(({isCrawl}) => !isCrawl),
    [...quiet.pulls],
  );
  t.true(crawled.pulls.some(({isCrawl}) => isCrawl));
  t.deepEqual(createWorkload(SMALL, {crawl: false}), quiet, 'the same seed gives the same workload');
});

test('a small workload meets the targets', async (t) => {
  const scenarios = await compareScenarios(SMALL, () => {});
  t.deepEqual(missedTargets(scenarios), []);
  for (const {sizes} of scenarios) {
    for (const {figures} of sizes)
      t.true(figures.optimum.withCrawl.byteHits > figures.LRU.withCrawl.byteHits - 0.01);
  }
});

test('each target that is missed is named', (t) => {
  const figures = (completePulls: number, brokenPromises = 0) => ({
    completePulls,
    byteHits: 0,
    brokenPromises,
    withCrawl: {completePulls: 0, byteHits: 0},
  });
  const scenario = (name: Scenario['name'], backref: number, broken = 0): Scenario => ({
    name,
    pulls: 1,
    workingSet: 1,
    sizes: [
      {
        cacheShare: 0.1,
        figures: {backref: figures(backref, broken), LRU: figures(0.5), optimum: figures(1)},
      },
    ],
  });
  t.deepEqual(missedTargets([scenario('clients alone', 0.485, 2), scenario('with a nightly crawl', 0.54)]), [
    'clients alone, a cache of 10 %: 2 broken promises instead of 0',
    'clients alone, a cache of 10 %: 1.5 points fewer complete pulls than LRU, at most 1',
    'with a nightly crawl, a cache of 10 %: 4.0 points more complete pulls than LRU instead of at least 5',
  ]);
  t.deepEqual(missedTargets([scenario('clients alone', 0.492), scenario('with a nightly crawl', 0.56)]), []);
});

test('an LRU and the optimum evict as they are defined', (t) => {
  const pulls = [0, 1, 0, 2, 0, 1].map((image, at) => ({at, image, isCrawl: false}));
  const workload = plainWorkload(3, pulls);
  t.is(simulateLru(workload, 2.1).completePulls, 2 / 6);
  t.is(simulateBelady(workload, 2.1).completePulls, 3 / 6);
  t.is(simulateLru(workload, 100).completePulls, 3 / 6);
});

test('a manifest that outlives its blob is a broken promise', (t) => {
  const images = [
    {manifest: 0, blobs: Int32Array.of(1)},
    {manifest: 2, blobs: Int32Array.of(3)},
  ];
  const pull = (at: number, image: number, ...blobs: number[]): Pull => ({
    at,
    image,
    blobs: Int32Array.from(blobs),
    isCrawl: false,
  });
  // The second client asks for the manifest alone, as it has the blob, which is then used least recently.
  const pulls = [pull(0, 0, 1), pull(1, 0), pull(2, 1, 3), pull(3, 0, 1)];
  const workload = {sizes: Float64Array.of(1, 10, 1, 10), images, pulls};
  t.is(simulateLru(workload, 12).brokenPromises, 1);
  t.is(simulateImages(workload, 12).brokenPromises, 0);
});

interface TraceRecord {
  time: number;
  id: bigint;
  size: number;
}

function traceOf(records: readonly TraceRecord[]): Buffer {
  const bytes = Buffer.alloc(24 * records.length);
  for (const [index, {time, id, size}] of records.entries()) {
    bytes.writeUInt32LE(time, 24 * index);
    bytes.writeBigUInt64LE(id, 24 * index + 4);
    bytes.writeUInt32LE(size, 24 * index + 12);
    bytes.writeBigInt64LE(-1n, 24 * index + 16);
  }
  return bytes;
}

const HUGE = 2n ** 64n - 1n;
const RECORDS = [
  {time: 59, id: HUGE, size: 100},
  {time: 60, id: 7n, size: 4_000_000_000},
  {time: 61, id: 8n, size: 0},
  {time: 200, id: HUGE, size: 100},
];

for (const [name, compressed] of [
  ['plain', (bytes: Buffer) => bytes],
  ['gzip', gzipSync],
  ['zstd', zstdCompressSync],
] as const) {
  test(`a trace is read, ${name}, and compared`, async (t) => {
    const path = join(await createFolder(t), 'trace');
    await writeFile(path, compressed(traceOf(RECORDS)));
    const trace = await readTrace(path);
    t.deepEqual([...trace.sizes], [100, 4_000_000_000]);
    t.deepEqual(
      trace.pulls.map(({at, image}) => [at, image]),
      [
        [0, 0],
        [1, 1],
        [3, 0],
      ],
    );
    const {sizes} = await compare('trace', trace, workingSet(trace), () => {});
    t.is(sizes.length, CACHE_SHARES.length);
    t.is(sizes[0]?.figures.LRU.completePulls, 1 / 3);
  });
}

test('a trace of more records than a chunk of a file holds is read whole', async (t) => {
  const path = join(await createFolder(t), 'trace');
  const records = Array.from({length: 10_000}, (_, id) => ({time: id, id: BigInt(id), size: id + 1}));
  await writeFile(path, traceOf(records));
  const {sizes} = await readTrace(path);
  t.deepEqual(
    [...sizes],
    records.map(({size}) => size),
  );
});

test('a trace that is cut off, damaged or empty is refused', async (t) => {
  const path = join(await createFolder(t), 'trace');
  await writeFile(path, traceOf(RECORDS).subarray(0, 50));
  await t.throwsAsync(readTrace(path), {message: /ends within a record of 24 bytes/});
  await writeFile(path, gzipSync(traceOf(RECORDS)).subarray(0, 30));
  await t.throwsAsync(readTrace(path));
  await writeFile(path, '');
  await t.throwsAsync(readTrace(path), {message: /has no requests/});
});

test('a plot shows each order in each scenario', async (t) => {
  const trace = plainWorkload(3, [{at: 0, image: 0, isCrawl: false}]);
  const scenario = await compare('trace', trace, workingSet(trace), () => {});
  const image = plot([scenario], {title: 'Complete pulls', figure: ({completePulls}) => completePulls});
  t.is(image.match(/<polyline class="(backref|LRU|optimum)" points="[\d, ]+"/g)?.length, 6);
  t.notRegex(image, /NaN|undefined/);
});
