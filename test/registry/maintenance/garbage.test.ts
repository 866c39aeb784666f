import {rename} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {createEvents} from '../../../src/events.ts';
import {algorithmOf, type Digest, digestOf} from '../../../src/oci/digest.ts';
import {parseName, type Tag} from '../../../src/oci/name.ts';
import {createDamagedBlobs} from '../../../src/registry/blobs/damaged.ts';
import {createBlobLifecycle} from '../../../src/registry/blobs/lifecycle.ts';
import {createGarbage, type GarbageProgress} from '../../../src/registry/maintenance/garbage.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import {UNLIMITED} from '../../../src/registry/space.ts';
import {createProcessClaims} from '../../../src/storage/claims.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import type {Change} from '../../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createMovableClock} from '../../support/backref.ts';
import {createFolder} from '../../support/folder.ts';

const HOUR = 3_600_000;
const repository = {registry: 'hosted.test', name: parseName('team/app')};
const other = {registry: 'hosted.test', name: parseName('team/other')};

async function setUp(t: ExecutionContext) {
  const folder = await createFolder(t);
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const store = createFsBlobStore({path: join(folder, 'blobs'), metadata});
  const spools = createSpools({path: join(folder, 'spool')});
  const clock = createMovableClock();
  const memory = createMemory(2 ** 20);
  const damaged = createDamagedBlobs(createEvents());
  const lifecycle = createBlobLifecycle({store, metadata, space: UNLIMITED, memory, damaged, clock});
  const expired: number[] = [];
  /** Uploads expire at once, unless a test sets what is waited for. */
  const expiry: {end: Promise<void> | undefined} = {end: undefined};
  const garbage = createGarbage({
    metadata,
    store,
    lifecycle,
    memory,
    coordination: createProcessClaims(),
    async expireUploads(before) {
      expired.push(before);
      await expiry.end;
      return 0;
    },
    uploadLife: 24 * HOUR,
    clock,
    events: createEvents(),
  });

  /** Stores a blob, linked to these repositories with this origin. */
  async function blob(text: string, links: (typeof repository)[], origin: 'local' | 'upstream' = 'local') {
    const bytes = Buffer.from(text);
    const digest = digestOf(bytes);
    const spool = await spools.open(digest);
    await spool.append(bytes);
    const size = bytes.length;
    const also = links.map(
      (to): Change => ({type: 'blob.link', repository: to, digest, size, origin, at: clock.now()}),
    );
    await lifecycle.publish(digest, spool, also);
    return digest;
  }

  async function manifest(blobs: readonly Digest[], extra: {expiresAt?: number; tag?: string} = {}) {
    const bytes = Buffer.from(JSON.stringify({blobs, salt: Math.random()}));
    const digest = digestOf(bytes);
    const {expiresAt, tag} = extra;
    const origin = expiresAt === undefined ? ('local' as const) : ('upstream' as const);
    const at = clock.now();
    const put: Change = {
      type: 'manifest.put',
      repository,
      digest,
      mediaType: 'application/json',
      bytes,
      edge: undefined,
      references: blobs.map((child) => ({digest: child, size: 1, kind: 'blob' as const})),
      origin,
      at,
      ...(expiresAt === undefined ? {} : {expiresAt}),
    };
    const tagged: Change[] =
      tag === undefined ? [] : [{type: 'tag.put', repository, name: tag as Tag, digest, origin, at}];
    await metadata.commit([put, ...tagged]);
    return digest;
  }

  const run = (grace = HOUR, states: GarbageProgress[] = []) =>
    garbage.run({grace, signal: new AbortController().signal, progress: (state) => states.push(state)});
  const isStored = async (digest: Digest) => (await store.stat(digest)) !== undefined;
  return {
    folder,
    metadata,
    store,
    spools,
    clock,
    lifecycle,
    memory,
    garbage,
    expired,
    expiry,
    blob,
    manifest,
    run,
    isStored,
  };
}

test('an unreferenced pushed blob is removed after its grace period, not before', async (t) => {
  const {clock, blob, run, isStored, metadata} = await setUp(t);
  const unreferenced = await blob('bytes', [repository]);

  t.like(await run(), {links: 0, blobs: 0});
  t.true(await isStored(unreferenced));

  clock.move(HOUR + 1);
  t.deepEqual(await run(), {uploads: 0, indexes: 0, links: 1, manifests: 0, blobs: 1, bytes: 5});
  t.false(await isStored(unreferenced));
  t.is(await metadata.blobLink(repository, unreferenced), undefined);
  t.is(await metadata.blob(unreferenced), undefined);
});

test('referenced content stays until its manifest is deleted', async (t) => {
  const {clock, blob, manifest, run, isStored, metadata} = await setUp(t);
  const named = await blob('named', [repository]);
  const image = await manifest([named], {tag: 'v1'});
  clock.move(2 * HOUR);

  t.like(await run(), {links: 0, manifests: 0, blobs: 0});
  t.true(await isStored(named));

  await metadata.commit([{type: 'manifest.delete', repository, digest: image}]);
  t.like(await run(), {links: 1, manifests: 1, blobs: 1});
  t.false(await isStored(named));
  t.is(await metadata.storedManifest(image), undefined);
});

test('an unreferenced blob that another repository is linked to loses its link and keeps its bytes', async (t) => {
  const {clock, blob, manifest, run, isStored, metadata} = await setUp(t);
  const shared = await blob('shared', [repository, other]);
  await manifest([shared]);
  clock.move(2 * HOUR);

  t.like(await run(), {links: 1, blobs: 0});
  t.is(await metadata.blobLink(other, shared), undefined);
  t.truthy(await metadata.blobLink(repository, shared));
  t.true(await isStored(shared));
});

test("copies of an upstream's content are not garbage", async (t) => {
  const {clock, blob, run, isStored} = await setUp(t);
  const copy = await blob('copy', [repository], 'upstream');
  clock.move(1000 * HOUR);

  t.like(await run(), {links: 0, blobs: 0});
  t.true(await isStored(copy));
});

test('a list that was synthesized for readers of a fallback tag is removed when it expires', async (t) => {
  const {clock, manifest, run, metadata} = await setUp(t);
  const made = await manifest([], {expiresAt: clock.now() + HOUR});
  const lasting = await manifest([]);

  t.like(await run(), {indexes: 0});
  clock.move(HOUR + 1);
  t.like(await run(), {indexes: 1, manifests: 1});
  t.is(await metadata.manifest(repository, made), undefined);
  t.truthy(await metadata.manifest(repository, lasting));
});

test('a blob whose deletion a process did not survive is removed by the next run', async (t) => {
  const {clock, blob, run, isStored, metadata} = await setUp(t);
  const half = await blob('half', []);
  await metadata.commit([{type: 'blob.deleting', digest: half}]);
  clock.move(2 * HOUR);

  t.like(await run(), {blobs: 1, bytes: 4});
  t.false(await isStored(half));
  t.is(await metadata.blob(half), undefined);
});

test('orphaned bytes of a process that died are removed after their grace period', async (t) => {
  const {clock, store, spools, blob, manifest, run, isStored} = await setUp(t);
  const kept = await blob('kept', [repository]);
  await manifest([kept]);
  const orphan = digestOf(Buffer.from('bytes'));
  const spool = await spools.open(orphan);
  await spool.append(Buffer.from('bytes'));
  await store.publish(orphan, spool);

  t.like(await run(), {blobs: 0});
  t.true(await isStored(orphan));

  clock.move(2 * HOUR);
  t.like(await run(), {blobs: 1, bytes: 5});
  t.false(await isStored(orphan));
  t.true(await isStored(kept));
  t.like(await run(), {blobs: 0});
});

test('orphaned bytes are looked for again a day later', async (t) => {
  const {clock, store, spools, run, isStored} = await setUp(t);
  clock.move(2 * HOUR);
  t.like(await run(), {blobs: 0});
  const orphan = digestOf(Buffer.from('bytes'));
  const spool = await spools.open(orphan);
  await spool.append(Buffer.from('bytes'));
  await store.publish(orphan, spool);

  clock.move(25 * HOUR);
  t.like(await run(), {blobs: 1});
  t.false(await isStored(orphan));
});

test('nothing is collected while the blob store is missing', async (t) => {
  const {clock, folder, blob, run, isStored, metadata} = await setUp(t);
  const unreferenced = await blob('bytes', [repository]);
  clock.move(2 * HOUR);
  await rename(join(folder, 'blobs'), join(folder, 'away'));
  await t.throwsAsync(() => run(), {name: 'StoreMissing'});
  t.truthy(await metadata.blobLink(repository, unreferenced));
  t.like(await metadata.blob(unreferenced), {state: 'ready'});

  await rename(join(folder, 'away'), join(folder, 'blobs'));
  t.true(await isStored(unreferenced));
  t.like(await run(), {links: 1, blobs: 1});
});

test('a blob that is pushed again while it is deleted exists afterwards', async (t) => {
  const {clock, blob, run, isStored, metadata} = await setUp(t);
  const again = await blob('again', [repository]);
  clock.move(2 * HOUR);

  for (let round = 0; round < 20; round++) {
    const [result] = await Promise.all([run(), blob('again', [repository])]);
    t.true(result.blobs <= 1);
    t.true(await isStored(again), `round ${round}`);
    t.like(await metadata.blob(again), {state: 'ready', size: 5});
    t.truthy(await metadata.blobLink(repository, again));
    clock.move(2 * HOUR);
  }
});

test('a manifest is never left without its blob, in whatever order things happen', async (t) => {
  const {clock, blob, run, isStored, metadata} = await setUp(t);
  for (let round = 0; round < 20; round++) {
    const digest = await blob(`blob ${round}`, [repository]);
    clock.move(2 * HOUR);
    const put: Change = {
      type: 'manifest.put',
      repository,
      digest: digestOf(Buffer.from(`manifest ${round}`)),
      mediaType: 'application/json',
      bytes: Buffer.from(`manifest ${round}`),
      edge: undefined,
      references: [{digest, size: 1, kind: 'blob'}],
      origin: 'local',
      at: clock.now(),
    };
    const [, taken] = await Promise.all([
      run(),
      metadata.commit([put], [{type: 'blob.held', repository, digest}]),
    ]);
    t.is(await isStored(digest), taken, `${algorithmOf(digest)} of round ${round}`);
  }
});

test('uploads expire when no request continues them', async (t) => {
  const {clock, run, expired} = await setUp(t);
  await run();
  t.deepEqual(expired, [clock.now() - 24 * HOUR]);
});

test('it reports its progress, and ends when it is aborted', async (t) => {
  const {clock, blob, run, garbage} = await setUp(t);
  for (let index = 0; index < 5; index++) await blob(`piece ${index}`, [repository]);
  clock.move(2 * HOUR);

  const stopping = new AbortController();
  const reason = new Error('enough');
  const half = garbage.run({
    grace: HOUR,
    signal: stopping.signal,
    progress: ({links}) => {
      if (links === 2) stopping.abort(reason);
    },
  });
  t.is(await t.throwsAsync(half), reason);

  const states: GarbageProgress[] = [];
  t.like(await run(HOUR, states), {links: 3, blobs: 5});
  t.deepEqual(
    states.map(({done}) => done),
    states.map(({done}) => done).toSorted((a, b) => a - b),
  );
  t.is(states.at(-1)?.done, 1);
});

test('a collection that waits for another one ends when it is aborted', async (t) => {
  const {garbage, expiry, run} = await setUp(t);
  const {promise, resolve} = Promise.withResolvers<void>();
  expiry.end = promise;
  const first = run();
  const stopping = new AbortController();
  const second = garbage.run({grace: HOUR, signal: stopping.signal, progress: () => {}});
  setImmediate(() => stopping.abort(new Error('the server is being stopped')));
  await t.throwsAsync(second, {message: 'the server is being stopped'});
  resolve();
  t.like(await first, {uploads: 0});
  t.like(await run(), {uploads: 0});
});
