import {readdir, readFile, rename, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import type {EventMap} from '../../../src/events.ts';
import {type Algorithm, algorithmOf, type Digest, digestOf, encodedOf} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {type DigestRange, rangesDue} from '../../../src/registry/maintenance/scrub.ts';
import {createManualClock} from '../../support/clock.ts';
import {randomBlob} from '../../support/content.ts';
import {type InProcess, wireInProcess} from '../../support/wired.ts';

const DAY = 24 * 60 * 60 * 1000;
const NEVER = new AbortController().signal;
const repository = {registry: 'docker.io', name: parseName('team/app')};

/** A store whose content is hashed once a day. Waits between reads are over at once, having moved the time on. */
async function setUp(t: ExecutionContext) {
  const clock = createManualClock(Date.UTC(2030, 0, 1), {skipBelow: 1000});
  const wired = await wireInProcess(t, {
    clock,
    registries: [{library: false}],
    config: {scrub: {every: DAY}},
  });
  const verified: EventMap['content.verified'][0][] = [];
  const damaged: EventMap['blob.damaged'][0][] = [];
  wired.events.on('content.verified', (event) => void verified.push(event));
  wired.events.on('blob.damaged', (event) => void damaged.push(event));

  async function store(bytes: Buffer, algorithm: Algorithm = 'sha256'): Promise<Digest> {
    const digest = digestOf(bytes, algorithm);
    const spool = await wired.storage.spools.open(digest);
    await spool.append(bytes);
    const link = {type: 'blob.link' as const, repository, digest, size: bytes.length, at: clock.now()};
    await wired.content.lifecycle.publish(digest, spool, [{...link, origin: 'local'}]);
    return digest;
  }

  /** A day in this many steps, after the step that begins the schedule. */
  async function day(steps: number): Promise<void> {
    for (let step = 0; step < steps; step++) {
      await clock.advance(DAY / steps);
      await wired.maintenance.scrub.step(NEVER);
    }
  }
  return {...wired, clock, verified, damaged, store, day};
}

const sumOf = (events: EventMap['content.verified'][0][]) => ({
  blobs: events.reduce((sum, {blobs}) => sum + blobs, 0),
  manifests: events.reduce((sum, {manifests}) => sum + manifests, 0),
  bad: events.reduce((sum, {bad}) => sum + bad, 0),
});

const fileOf = ({folder}: InProcess<never>, digest: Digest): string =>
  join(folder, 'blobs', algorithmOf(digest), encodedOf(digest).slice(0, 2), encodedOf(digest));

test('in each period everything is hashed once, whatever the number of steps', async (t) => {
  const {metadata, clock, verified, store, day, maintenance} = await setUp(t).then((parts) => ({
    ...parts,
    metadata: parts.storage.metadata,
  }));
  for (let index = 0; index < 20; index++)
    await store(Buffer.from(`blob ${index}`), index % 4 === 0 ? 'sha512' : 'sha256');
  for (let index = 0; index < 7; index++) {
    const bytes = Buffer.from(`{"manifest": ${index}}`);
    const manifest = {mediaType: 'application/json', bytes, edge: undefined, references: [], at: clock.now()};
    await metadata.commit([
      {type: 'manifest.put', repository, digest: digestOf(bytes), origin: 'local', ...manifest},
    ]);
  }
  await maintenance.scrub.step(NEVER);
  for (const steps of [24, 7, 1]) {
    verified.length = 0;
    await day(steps);
    t.deepEqual(sumOf(verified), {blobs: 20, manifests: 7, bad: 0}, `${steps} steps`);
  }
});

test('a damaged pushed blob is found within a period, reported and kept aside', async (t) => {
  const parts = await setUp(t);
  const {storage, maintenance, damaged, store, day, folder} = parts;
  const digest = await store(Buffer.from('as it was pushed'));
  await writeFile(fileOf(parts as never, digest), 'as it is damaged');
  await maintenance.scrub.step(NEVER);
  await day(3);
  t.deepEqual(damaged, [{digest, origin: 'local', problem: 'damaged'}]);
  t.is(await storage.store.stat(digest), undefined);
  const [name = ''] = await readdir(join(folder, 'blobs', 'quarantine', 'local'));
  t.is((await readFile(join(folder, 'blobs', 'quarantine', 'local', name))).toString(), 'as it is damaged');
});

test('reading is limited to a rate', async (t) => {
  const {maintenance, clock, store, day} = await setUp(t);
  const {bytes} = randomBlob(16 * 1024 * 1024);
  await store(bytes);
  await maintenance.scrub.step(NEVER);
  const before = clock.monotonic();
  await day(1);
  // 32 MiB a second, apart from the last tenth of a second.
  t.true(clock.monotonic() - before - DAY >= 400);
});

test('while the blob store is missing nothing is bad, and what was due is hashed once it is back', async (t) => {
  const {maintenance, clock, verified, damaged, store, folder} = await setUp(t);
  await store(Buffer.from('on a disk that comes and goes'));
  await maintenance.scrub.step(NEVER);
  await clock.advance(DAY / 2);
  const path = join(folder, 'blobs');
  await rename(path, `${path}.away`);
  await t.throwsAsync(maintenance.scrub.step(NEVER), {name: 'StoreMissing'});
  await rename(`${path}.away`, path);
  await clock.advance(DAY / 2);
  await maintenance.scrub.step(NEVER);
  t.deepEqual(damaged, []);
  t.is(sumOf(verified).blobs, 1);
});

test('an aborted step ends, and what it left is hashed by the next one', async (t) => {
  const {maintenance, clock, verified, store} = await setUp(t);
  await store(Buffer.from('one'));
  await maintenance.scrub.step(NEVER);
  await clock.advance(DAY);
  await t.throwsAsync(maintenance.scrub.step(AbortSignal.abort(new Error('stopping'))), {
    message: 'stopping',
  });
  await maintenance.scrub.step(NEVER);
  t.is(sumOf(verified).blobs, 1);
});

const total = (ranges: readonly DigestRange[]): number =>
  ranges.reduce((sum, {from, to}) => sum + to - from, 0);

test('a period covers all digests once, in parts that meet', (t) => {
  for (let period = 700; period < 1000; period++) {
    const [first, second] = rangesDue(period, period + 1);
    t.is(first?.to, 1);
    t.is(second?.from, 0);
    t.is(first?.from, second?.to);
  }
});

test('between any two times, the share of the period that has passed is the share that is due', (t) => {
  for (const [from, to] of [
    [700.1, 700.2],
    [700.9, 701.1],
    [700.5, 701.5],
    [701, 701],
  ] as const)
    t.true(Math.abs(total(rangesDue(from, to)) - (to - from)) < 1e-9, `${from} to ${to}`);
});

test('a machine that is off for half of each period still has everything hashed in a few periods', (t) => {
  const places = Array.from({length: 1000}, (_, index) => (index + 0.5) / 1000);
  const seen = Array.from({length: 4}, (_, period) => rangesDue(700 + period, 700.5 + period)).flat();
  t.true(places.every((place) => seen.some(({from, to}) => from <= place && place < to)));
});
