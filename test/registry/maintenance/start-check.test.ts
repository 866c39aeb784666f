import {rename} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createEvents, type EventMap} from '../../../src/events.ts';
import {type Digest, digestOf} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {createUploadId} from '../../../src/oci/upload.ts';
import {createDamagedBlobs} from '../../../src/registry/blobs/damaged.ts';
import {createBlobLifecycle} from '../../../src/registry/blobs/lifecycle.ts';
import {createStartCheck} from '../../../src/registry/maintenance/start-check.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import {UNLIMITED} from '../../../src/registry/space.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import {DiskFull, type Metadata} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createMovableClock, startBackref} from '../../support/backref.ts';
import {createFolder} from '../../support/folder.ts';

const repository = {registry: 'hosted.test', name: parseName('team/app')};
const NOTHING = {blobs: 0, copies: 0, local: 0, deletions: 0, unrecorded: 0, spoolBytes: 0, isComplete: true};
const {signal} = new AbortController();

async function setUp(t: ExecutionContext, replaced: (real: Metadata) => Metadata = (real) => real) {
  const folder = await createFolder(t);
  const real = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => real.close());
  const metadata = replaced(real);
  const store = createFsBlobStore({path: join(folder, 'blobs'), metadata: real});
  await store.check();
  const spools = createSpools({path: join(folder, 'spool')});
  const events = createEvents();
  const checks: EventMap['store.checked'][0][] = [];
  const reports: EventMap['blob.damaged'][0][] = [];
  events.on('store.checked', (found) => void checks.push(found));
  events.on('blob.damaged', (report) => void reports.push(report));
  const movable = createMovableClock();
  /** What each look at the clock takes. */
  const pace = {ms: 0};
  const waits: (() => void)[] = [];
  const clock = {
    ...movable,
    monotonic() {
      movable.move(pace.ms);
      return movable.monotonic();
    },
    after(_ms: number, call: () => void) {
      waits.push(call);
      return () => {};
    },
  };
  const memory = createMemory(0);
  const damaged = createDamagedBlobs(events);
  const lifecycle = createBlobLifecycle({store, metadata, space: UNLIMITED, memory, damaged, clock});
  const check = createStartCheck({metadata, store, spools, lifecycle, clock, events});
  async function publish(text: string, ...links: ('local' | 'upstream')[]): Promise<Digest> {
    const bytes = Buffer.from(text);
    const digest = digestOf(bytes);
    const spool = await spools.open(digest);
    await spool.append(bytes);
    const changes = links.map((origin) => ({
      type: 'blob.link' as const,
      repository,
      digest,
      size: bytes.length,
      origin,
      at: 1,
    }));
    await lifecycle.publish(digest, spool, changes);
    return digest;
  }
  return {folder, metadata: real, store, spools, pace, waits, check, checks, reports, publish};
}

test('after a sound stop a start finds nothing', async (t) => {
  const {check, checks, publish} = await setUp(t);
  await publish('a copy', 'upstream');
  await publish('pushed', 'local');
  await check.run(signal);
  t.deepEqual(checks, [{...NOTHING, blobs: 2}]);
});

test('a start forgets lost copies, and reports lost pushed blobs', async (t) => {
  const {metadata, store, check, checks, reports, publish} = await setUp(t);
  const copy = await publish('a copy', 'upstream');
  const short = await publish('a copy that is cut short', 'upstream');
  const pushed = await publish('pushed', 'local');
  await publish('sound', 'local');
  await store.delete(copy);
  await store.delete(pushed);
  await metadata.commit([{type: 'blob.put', digest: short, size: 99, at: 1}]);
  await check.run(signal);
  t.deepEqual(checks, [{...NOTHING, blobs: 4, copies: 2, local: 1}]);
  t.is(await metadata.blob(copy), undefined);
  t.is(await metadata.blob(short), undefined);
  t.is(await store.stat(short), undefined);
  t.like(await metadata.blob(pushed), {state: 'ready'});
  t.deepEqual(reports, [{digest: pushed, origin: 'local', problem: 'missing'}]);
});

test('a start ends the deletions that had begun, and counts files without a row and partial spools', async (t) => {
  const {metadata, store, spools, check, checks, publish} = await setUp(t);
  const marked = await publish('being deleted');
  const fileGone = await publish('its file is gone');
  const unrecorded = await publish('without a row');
  await metadata.commit([marked, fileGone].map((digest) => ({type: 'blob.deleting', digest})));
  await store.delete(fileGone);
  await metadata.commit([{type: 'blob.delete', digest: unrecorded}]);
  const spool = await spools.open(createUploadId());
  await spool.append(Buffer.from('the beginning'));
  await spool.close();
  await check.run(signal);
  const [{spoolBytes = 0, ...found} = {}] = checks;
  t.deepEqual({...found, spoolBytes: 0}, {...NOTHING, deletions: 2, unrecorded: 1});
  t.true(spoolBytes > 0);
  t.is(await metadata.blob(marked), undefined);
  t.is(await store.stat(marked), undefined);
  t.is(await metadata.blob(fileGone), undefined);
  t.truthy(await store.stat(unrecorded), 'it waits for garbage collection');
});

test('a start looks for 30 seconds, and says that it did not come to the end', async (t) => {
  const {pace, check, checks, publish} = await setUp(t);
  for (const text of ['one', 'two', 'three', 'four']) await publish(text, 'local');
  pace.ms = 10_000;
  await check.run(signal);
  t.deepEqual(checks, [{...NOTHING, blobs: 2, isComplete: false}]);
});

test('a start waits for a store that is missing, and nothing counts as lost', async (t) => {
  const {folder, waits, check, checks, reports, publish} = await setUp(t);
  await publish('pushed', 'local');
  await rename(join(folder, 'blobs'), join(folder, 'unmounted'));
  const run = check.run(signal);
  while (waits.length === 0) await new Promise(setImmediate);
  t.deepEqual([checks.length, reports.length], [0, 0]);
  await rename(join(folder, 'unmounted'), join(folder, 'blobs'));
  waits[0]?.();
  await run;
  t.deepEqual(checks, [{...NOTHING, blobs: 1}]);
});

test('a disk that refuses a deletion does not end the check', async (t) => {
  const {metadata, check, checks, publish} = await setUp(t, (real) => ({
    ...real,
    async commit(changes, preconditions) {
      if (changes.some(({type}) => type === 'blob.delete')) throw new DiskFull('full', 'no room');
      return real.commit(changes, preconditions);
    },
  }));
  const marked = await publish('being deleted');
  await publish('pushed', 'local');
  await metadata.commit([{type: 'blob.deleting', digest: marked}]);
  await check.run(signal);
  t.deepEqual(checks, [{...NOTHING, blobs: 1}]);
});

test('a server checks its store when it starts', async (t) => {
  const first = await startBackref(t, {registries: [{library: false}]});
  const second = await first.restart();
  const {promise, resolve} = Promise.withResolvers<EventMap['store.checked'][0]>();
  second.server.events.once('store.checked', resolve);
  t.deepEqual(await promise, NOTHING);
});
