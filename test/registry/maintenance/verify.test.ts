import {readdir, readFile, rename, truncate, unlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import test, {type ExecutionContext} from 'ava';
import type {EventMap} from '../../../src/events.ts';
import type {VerifyProgress} from '../../../src/registry/maintenance/verify.ts';
import {type Backref, startBackref} from '../../support/backref.ts';
import {
  blobAnswer,
  type Content,
  contentOf,
  imageManifest,
  randomBlob,
  sameBytes,
} from '../../support/content.ts';
import {pusherTo} from '../../support/pusher.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';

const HOSTED = {registries: [{library: false}]};
const SOUND = {unrecorded: 0, sizes: 0, copies: 0, local: 0, bad: []};
const config = contentOf(Buffer.from('{}'));
/** Too large to be kept in memory. */
const layer = randomBlob(200_000);
const image = imageManifest([layer]);

const fileOf = ({folder}: Backref, {digest}: Content): string => {
  const encoded = digest.slice('sha256:'.length);
  return join(folder, 'blobs', 'sha256', encoded.slice(0, 2), encoded);
};

async function flipByte(proxy: Backref, blob: Content): Promise<void> {
  const file = fileOf(proxy, blob);
  const bytes = await readFile(file);
  bytes[7] = (bytes[7] ?? 0) ^ 1;
  await writeFile(file, bytes);
}

async function verify({server}: Backref, {dryRun = false, states = [] as VerifyProgress[]} = {}) {
  const {signal} = new AbortController();
  const progress = (state: VerifyProgress) => void states.push(state);
  return (await server.commands()).verify({dryRun, signal, progress});
}

const quarantined = ({folder}: Backref, origin: string): Promise<string[]> =>
  readdir(join(folder, 'blobs', 'quarantine', origin)).catch(() => []);

function damagesOf({server}: Backref): EventMap['blob.damaged'][0][] {
  const damages: EventMap['blob.damaged'][0][] = [];
  server.events.on('blob.damaged', (event) => void damages.push(event));
  return damages;
}

async function pushedImage(t: ExecutionContext) {
  const proxy = await startBackref(t, HOSTED);
  const pusher = pusherTo(proxy, 'team/app');
  await pusher.image(image, [config, layer], 'v1');
  return {proxy, pusher};
}

/** A mirror that holds a copy; its upstream expects `times` downloads of it in all. */
async function copied(t: ExecutionContext, content: Content, times: number) {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${content.digest}`, answer: blobAnswer(content), times},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  const get = () => proxy.ask(`/v2/app/blobs/${content.digest}`);
  await get();
  await proxy.idle();
  return {proxy, get};
}

/** The database of a server that does not run. */
function change({folder}: Backref, statement: string, ...values: (string | Buffer)[]): void {
  using database = new DatabaseSync(join(folder, 'meta.db'));
  database.prepare(statement).run(...values);
}

test('everything is hashed, and nothing is bad in a sound store', async (t) => {
  const {proxy} = await pushedImage(t);
  const states: VerifyProgress[] = [];
  const bytes = layer.bytes.length + config.bytes.length;
  t.deepEqual(await verify(proxy, {states}), {...SOUND, blobs: 2, manifests: 1, bytes});
  t.is(states.at(-1)?.done, 1);
  t.true(states.every(({done}, index) => done >= (states[index - 1]?.done ?? 0)));
});

const DAMAGES: Record<string, (proxy: Backref, blob: Content) => Promise<void>> = {
  'has a flipped byte': flipByte,
  'is too short': (proxy, blob) => truncate(fileOf(proxy, blob), 100),
  'is too long': (proxy, blob) => truncate(fileOf(proxy, blob), blob.bytes.length + 1),
};

for (const [state, damage] of Object.entries(DAMAGES)) {
  test(`a copy that ${state} is quarantined, and fetched again by the next pull`, async (t) => {
    const {proxy, get} = await copied(t, layer, 2);
    const damages = damagesOf(proxy);
    await damage(proxy, layer);
    const damaged = await readFile(fileOf(proxy, layer));
    const found = {digest: layer.digest, origin: 'upstream', problem: 'damaged'} as const;
    t.like(await verify(proxy), {copies: 1, local: 0, bad: [{kind: 'blob', ...found}]});
    t.deepEqual(damages, [found]);
    const [name = ''] = await quarantined(proxy, 'upstream');
    t.true(name.startsWith(layer.digest.replace(':', '-')));
    sameBytes(t, await readFile(join(proxy.folder, 'blobs', 'quarantine', 'upstream', name)), damaged);

    sameBytes(t, (await get()).body, layer.bytes);
    await proxy.idle();
    t.like(await verify(proxy), {...SOUND, blobs: 1});
  });

  test(`a pushed blob that ${state} is kept aside and missing until it is pushed again`, async (t) => {
    const {proxy, pusher} = await pushedImage(t);
    const damages = damagesOf(proxy);
    await damage(proxy, layer);
    const found = {digest: layer.digest, origin: 'local', problem: 'damaged'} as const;
    t.like(await verify(proxy), {copies: 0, local: 1, bad: [{kind: 'blob', ...found}]});
    t.deepEqual(damages, [found]);
    t.is((await quarantined(proxy, 'local')).length, 1);
    t.is((await pusher.get(`blobs/${layer.digest}`)).status, 404);
    t.is((await pusher.head(`blobs/${layer.digest}`)).status, 404);
    t.like(await verify(proxy), {local: 1, bad: [{digest: layer.digest, problem: 'missing'}]});

    t.is((await pusher.blob(layer)).status, 201);
    sameBytes(t, (await pusher.get(`blobs/${layer.digest}`)).body, layer.bytes);
    t.like(await verify(proxy), {...SOUND, blobs: 2});
    t.is((await quarantined(proxy, 'local')).length, 1, 'what was pushed is never removed');
  });

  test(`a dry run reports a pushed blob that ${state}, and changes nothing`, async (t) => {
    const {proxy} = await pushedImage(t);
    await damage(proxy, layer);
    const before = await readFile(fileOf(proxy, layer));
    t.like(await verify(proxy, {dryRun: true}), {local: 1});
    sameBytes(t, await readFile(fileOf(proxy, layer)), before);
    t.deepEqual(await quarantined(proxy, 'local'), []);
  });
}

test('a dry run leaves a damaged copy and its row', async (t) => {
  const {proxy} = await copied(t, layer, 1);
  await flipByte(proxy, layer);
  t.like(await verify(proxy, {dryRun: true}), {copies: 1});
  t.like(await verify(proxy, {dryRun: true}), {copies: 1});
  t.deepEqual(await quarantined(proxy, 'upstream'), []);
});

test('a copy whose file is gone is forgotten, and fetched again by the next pull', async (t) => {
  const {proxy, get} = await copied(t, layer, 2);
  await unlink(fileOf(proxy, layer));
  t.like(await verify(proxy), {copies: 1, bad: [{digest: layer.digest, problem: 'missing'}]});
  t.like(await verify(proxy), {...SOUND, blobs: 0});
  sameBytes(t, (await get()).body, layer.bytes);
});

test('a wrong size in the metadata is corrected, and the blob is served again', async (t) => {
  const {proxy} = await pushedImage(t);
  await proxy.server.close();
  change(proxy, 'update blob set size = 5 where digest = ?', layer.digest);
  const next = await proxy.restart();
  const {get} = pusherTo(next, 'team/app');
  t.is((await get(`blobs/${layer.digest}`)).status, 404);
  t.like(await verify(next, {dryRun: true}), {...SOUND, sizes: 1});
  t.like(await verify(next), {...SOUND, sizes: 1});
  sameBytes(t, (await get(`blobs/${layer.digest}`)).body, layer.bytes);
  t.like(await verify(next), {...SOUND, blobs: 2});
});

test('a file that the metadata do not know is counted and left to garbage collection', async (t) => {
  const {proxy} = await copied(t, layer, 1);
  await proxy.server.close();
  change(proxy, 'delete from blob where digest = ?', layer.digest);
  const next = await proxy.restart();
  t.like(await verify(next), {...SOUND, unrecorded: 1});
  sameBytes(t, await readFile(fileOf(next, layer)), layer.bytes);
});

test('a damaged manifest is reported, not served, and repaired by a push', async (t) => {
  const {proxy} = await pushedImage(t);
  await proxy.server.close();
  const damaged = Buffer.from(image.bytes);
  damaged[damaged.length - 2] = 0x20;
  change(proxy, 'update manifest set bytes = ? where digest = ?', damaged, image.digest);
  const next = await proxy.restart();
  const pusher = pusherTo(next, 'team/app');
  t.like(await verify(next), {
    local: 1,
    bad: [{kind: 'manifest', digest: image.digest, origin: 'local', repository: 'docker.io/team/app'}],
  });
  t.is((await pusher.get(`manifests/${image.digest}`)).status, 404);
  t.is((await pusher.get('manifests/v1')).status, 404);
  t.is((await pusher.manifest(image, 'v1')).status, 201);
  sameBytes(t, (await pusher.get('manifests/v1')).body, image.bytes);
  t.like(await verify(next), {...SOUND, manifests: 1});
});

test('a damaged copy of a manifest is fetched again by the next pull', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/library/app/manifests/${image.digest}`,
      answer: {headers: {'Content-Type': image.mediaType}, body: image.bytes},
      times: 2,
    },
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  const path = `/v2/app/manifests/${image.digest}`;
  t.is((await proxy.ask(path)).status, 200);
  await proxy.server.close();
  const damaged = Buffer.from(image.bytes);
  damaged[damaged.length - 2] = 0x20;
  change(proxy, 'update manifest set bytes = ? where digest = ?', damaged, image.digest);
  const next = await proxy.restart();
  t.like(await verify(next), {copies: 1, bad: [{kind: 'manifest', origin: 'upstream'}]});
  sameBytes(t, (await next.ask(path)).body, image.bytes);
  t.like(await verify(next), {...SOUND, manifests: 1});
});

test('while the blob store is missing nothing is found bad', async (t) => {
  const {proxy, pusher} = await pushedImage(t);
  const damages = damagesOf(proxy);
  const path = join(proxy.folder, 'blobs');
  await rename(path, `${path}.away`);
  await t.throwsAsync(() => verify(proxy), {name: 'StoreMissing'});
  await rename(`${path}.away`, path);
  t.deepEqual(damages, []);
  t.like(await verify(proxy), {...SOUND, blobs: 2});
  sameBytes(t, (await pusher.get(`blobs/${layer.digest}`)).body, layer.bytes);
});

test('a blob that is pushed again while it is checked is not bad', async (t) => {
  const {proxy, pusher} = await pushedImage(t);
  await flipByte(proxy, layer);
  const [result] = await Promise.all([verify(proxy), pusher.blob(layer)]);
  t.true(result.local <= 1);
  await pusher.blob(layer);
  sameBytes(t, (await pusher.get(`blobs/${layer.digest}`)).body, layer.bytes);
  t.like(await verify(proxy), SOUND);
});

test('a second verification waits for the first, and an aborted one ends', async (t) => {
  const {proxy} = await pushedImage(t);
  const commands = await proxy.server.commands();
  const aborted = commands.verify({
    dryRun: false,
    signal: AbortSignal.abort(new Error('enough')),
    progress: () => {},
  });
  const second = verify(proxy);
  await t.throwsAsync(aborted, {message: 'enough'});
  t.like(await second, SOUND);
});
