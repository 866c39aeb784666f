import {rm} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {encodedOf} from '../../../src/oci/digest.ts';
import {OciError} from '../../../src/oci/errors.ts';
import {parseTag} from '../../../src/oci/name.ts';
import {takeInventory} from '../../../src/registry/maintenance/inventory.ts';
import {type Backref, createMovableClock, DAY, startBackref} from '../../support/backref.ts';
import {blobAnswer, imageManifest, manifestAnswer, randomBlob} from '../../support/content.ts';
import {createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';
import {wireInProcess, withState} from '../../support/wired.ts';

const MIB = 2 ** 20;
const IMAGES = 8;

const imageWith = (name: string) => {
  const layer = randomBlob(4 * MIB);
  return {name, layer, manifest: imageManifest([layer])};
};
type Image = ReturnType<typeof imageWith>;

const answersOf = ({name, layer, manifest}: Image): Expectation[] => [
  {request: `GET /v2/library/${name}/manifests/1`, answer: manifestAnswer(manifest), always: true},
  {request: `GET /v2/library/${name}/blobs/${layer.digest}`, answer: blobAnswer(layer), always: true},
];

test('a small cache keeps to its limit while images are pulled, and what it serves is whole', async (t) => {
  const images = Array.from({length: IMAGES}, (_, index) => imageWith(`app${index}`));
  const upstream = await createScriptedUpstream(t, images.flatMap(answersOf));
  const clock = createMovableClock();
  // Room for the database with its log, and for half of the images.
  const maxSize = {bytes: 24 * MIB};
  const {verbs, route, content, maintenance, events} = await wireInProcess(t, {
    clock,
    registries: [{url: upstream.url, tags: {ttl: DAY}}],
    config: {cache: {maxSize}, pins: ['docker.io/library/app0']},
  });
  t.teardown(() => maintenance.evictor.close());
  const unwanted: string[] = [];
  events.on('cache.broken-promise', ({digest}) => void unwanted.push(digest));
  events.on('background.failed', ({task}) => void unwanted.push(task));
  const pull = async ({name, layer, manifest}: Image) => {
    const {bytes} = await verbs.manifests.get(route(name), parseTag('1'), ANONYMOUS, {noCache: false});
    t.deepEqual(bytes, manifest.bytes);
    const got = await verbs.blobs.get(route(name), layer.digest, ANONYMOUS);
    t.true(
      Buffer.concat(await Array.fromAsync(await got.open(), (chunk) => Buffer.from(chunk))).equals(
        layer.bytes,
      ),
    );
    await content.fills.running(layer.digest)?.done;
    return got.report.how;
  };
  await maintenance.evictor.step(new AbortController().signal);
  for (const image of images) {
    t.is(await pull(image), 'uri-miss');
    const {used, limit} = await maintenance.capacity.measure();
    t.true(used <= limit);
    await content.uses.flush();
    clock.move(2 * 60_000);
  }
  const metrics = await verbs.metrics.text();
  t.regex(metrics, /^backref_evictions_total\{reason="probation"\} [1-9]/m);
  t.regex(metrics, /^backref_pulls_total\{upstream="asked"\} 16$/m);

  await upstream.stop();
  for (const index of [0, IMAGES - 1]) t.is(await pull(images[index] as Image), 'hit');
  t.deepEqual(unwanted, []);
});

/** Resolves when the cache is counted, and so limited to 1 MiB. */
async function untilLimited({ask}: Backref): Promise<void> {
  const isLimited = async () =>
    /^backref_cache_limit_bytes 1048576$/m.test((await ask('/metrics')).body.toString());
  while (!(await isLimited())) await new Promise(setImmediate);
}

test('a blob that has no room in the cache is served without being kept, and says so', async (t) => {
  const image = imageWith('large');
  const {layer} = image;
  const path = `/v2/library/large/blobs/${layer.digest}`;
  const upstream = await createScriptedUpstream(
    t,
    [
      ...answersOf(image),
      {request: `HEAD ${path}`, answer: {headers: {'Content-Length': String(4 * MIB)}, body: []}},
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {
    registries: [upstream],
    config: {cache: {maxSize: {bytes: MIB}, minFree: {bytes: 0}}},
  });
  await untilLimited(proxy);
  await proxy.ask('/v2/large/manifests/1');
  const got = await proxy.ask(`/v2/large/blobs/${layer.digest}`);
  t.true(got.body.equals(layer.bytes));
  t.is(got.headers['cache-status'], 'backref;fwd=uri-miss;detail=uncached');
});

test('a blob that has no room in the cache is served whole when its upstream names no length', async (t) => {
  const blob = randomBlob(4 * MIB);
  const request = `GET /v2/library/app/blobs/${blob.digest}`;
  const upstream = await createScriptedUpstream(t, [{request, answer: {body: [blob.bytes]}, times: 2}]);
  const proxy = await startBackref(t, {
    registries: [upstream],
    config: {cache: {maxSize: {bytes: MIB}, minFree: {bytes: 0}}},
  });
  await untilLimited(proxy);
  const got = await proxy.ask(`/v2/app/blobs/${blob.digest}`);
  t.is(got.status, 200);
  t.true(got.body.equals(blob.bytes));
});

test('a manifest that arrives while a blob that it names is being evicted promises nothing', async (t) => {
  const {layer, manifest} = imageWith('app');
  const later = imageManifest([layer, randomBlob(1)]);
  const repository = '/v2/library/app';
  const blob = {request: `GET ${repository}/blobs/${layer.digest}`, answer: blobAnswer(layer)};
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${repository}/manifests/1`, answer: manifestAnswer(manifest)},
    blob,
    {request: `GET ${repository}/manifests/2`, answer: manifestAnswer(later)},
    blob,
  ]);
  const clock = createMovableClock();
  const deleted = Promise.withResolvers<void>();
  const arrived = Promise.withResolvers<void>();
  const {verbs, route, storage, content, maintenance, events} = await wireInProcess(t, {
    clock,
    registries: [{url: upstream.url}],
    metadata: (real) => ({
      ...real,
      async commit(changes, preconditions) {
        if (changes.some(({type}) => type === 'blob.delete')) {
          deleted.resolve();
          await arrived.promise;
        }
        return real.commit(changes, preconditions);
      },
    }),
  });
  const broken: string[] = [];
  events.on('cache.broken-promise', ({digest}) => void broken.push(digest));
  const pull = async () => {
    const {open, report} = await verbs.blobs.get(route('app'), layer.digest, ANONYMOUS);
    for await (const _chunk of await open());
    await content.fills.running(layer.digest)?.done;
    return report.how;
  };
  const get = (tag: string) => verbs.manifests.get(route('app'), parseTag(tag), ANONYMOUS, {noCache: false});
  await get('1');
  t.is(await pull(), 'uri-miss');

  clock.move(2 * 60_000);
  const {evictor} = maintenance;
  const inventory = await takeInventory(storage.metadata, await evictor.protection(), clock.now());
  const [root] = inventory.roots;
  if (!root) throw new Error('no image is stored');
  const evicting = evictor.evict(inventory, root, {signal: new AbortController().signal});
  await deleted.promise;
  await get('2');
  clock.move(1000);
  arrived.resolve();
  t.like(await evicting, {bytes: 4 * MIB});
  t.is(await pull(), 'uri-miss');
  t.deepEqual(broken, []);
});

test('a blob whose file is evicted under a pull that has found it comes from the upstream', async (t) => {
  const image = imageWith('app');
  const upstream = await createScriptedUpstream(t, answersOf(image));
  const proxy = await startBackref(t, {registries: [upstream]});
  const path = `/v2/app/blobs/${image.layer.digest}`;
  await proxy.ask('/v2/app/manifests/1');
  await proxy.ask(path);
  await proxy.idle();
  const encoded = encodedOf(image.layer.digest);
  const file = join(proxy.folder, 'blobs', 'sha256', encoded.slice(0, 2), encoded);
  const gone: Promise<void>[] = [];
  proxy.server.events.on('blob.served', () => void gone.push(rm(file)));
  const got = await proxy.ask(path);
  t.is(got.status, 200);
  t.true(got.body.equals(image.layer.bytes));
  await Promise.all(gone);
});

test('an upload that declares more bytes than the disk has left is 507 before its body is read', async (t) => {
  const {verbs, route} = await wireInProcess(t, {
    clock: createMovableClock(),
    registries: [{}],
    disk: (real) => withState(real, async () => ({size: 1e9, free: 5 * MIB, database: 0, isShared: false})),
  });
  const target = route('app');
  const upload = await verbs.push.begin(target, {algorithm: undefined, mount: undefined}, ANONYMOUS);
  if (upload === 'mounted') throw new Error('nothing was to be mounted');
  const read: Buffer[] = [];
  const append = async (content: Buffer, length: number) => {
    const bytes = (async function* () {
      read.push(content);
      yield content;
    })();
    return verbs.push.append(target, upload.id, {length, range: undefined, bytes}, ANONYMOUS);
  };
  await t.throwsAsync(append(Buffer.alloc(1), 6 * MIB), {instanceOf: OciError, message: /has no space/});
  t.deepEqual(read, []);
  t.like(await append(Buffer.alloc(MIB), MIB), {offset: MIB});
});
