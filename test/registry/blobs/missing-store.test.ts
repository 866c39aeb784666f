import {once} from 'node:events';
import {mkdir, readdir, rename, rm, symlink, unlink} from 'node:fs/promises';
import {connect} from 'node:net';
import {dirname, join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import test, {type ExecutionContext} from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {failureReason} from '../../../src/registry/failure.ts';
import {StoreMissing} from '../../../src/storage/blob-store.ts';
import {type Backref, DAY, startBackref} from '../../support/backref.ts';
import {contentOf, imageManifest, randomBlob, sameBytes} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {errorOf, pusherTo} from '../../support/pusher.ts';
import {createScriptedUpstream, HANG} from '../../support/scripted-upstream.ts';

const HOSTED = {registries: [{library: false}]};
/** Too large to be kept in memory. */
const layer = randomBlob(200_000);
const config = contentOf(Buffer.from('{}'));
const image = imageManifest([layer]);

const blobsOf = ({folder}: Pick<Backref, 'folder'>): string => join(folder, 'blobs');
const fileOf = (proxy: Pick<Backref, 'folder'>, digest: string): string => {
  const encoded = digest.slice('sha256:'.length);
  return join(blobsOf(proxy), 'sha256', encoded.slice(0, 2), encoded);
};

/** As when the disk of the blobs is unmounted: the folder that it was mounted on is empty. */
async function unmount(proxy: Pick<Backref, 'folder'>): Promise<() => Promise<void>> {
  const path = blobsOf(proxy);
  await rename(path, `${path}.away`);
  await mkdir(path);
  return async () => {
    await rm(path, {recursive: true});
    await rename(`${path}.away`, path);
  };
}

async function collect({server}: Backref) {
  const {signal} = new AbortController();
  return (await server.commands()).collect({grace: DAY, signal, progress: () => {}});
}

async function pushedImage(t: ExecutionContext) {
  const proxy = await startBackref(t, HOSTED);
  const pusher = pusherTo(proxy, 'team/app');
  await pusher.image(image, [config, layer], 'v1');
  return {proxy, pusher};
}

test('while the blob store is missing, reads are 503 and nothing is collected; everything is there once it is back', async (t) => {
  const {proxy, pusher} = await pushedImage(t);
  const remount = await unmount(proxy);

  const refused = await pusher.get(`blobs/${layer.digest}`);
  t.is(refused.status, 503);
  t.is(errorOf(refused).code, 'UNAVAILABLE');
  t.regex(errorOf(refused).message, /^the blob store of this registry is missing at the moment/);
  t.is(refused.headers['retry-after'], '5');
  t.is((await pusher.head(`blobs/${layer.digest}`)).status, 503);
  proxy.clock.move(2 * DAY);
  await t.throwsAsync(() => collect(proxy), {name: 'StoreMissing'});

  await remount();
  t.like(await collect(proxy), {blobs: 0, links: 0});
  sameBytes(t, (await pusher.get(`blobs/${layer.digest}`)).body, layer.bytes);
});

test('while the blob store is missing, pushes are refused and leave nothing on the disk below', async (t) => {
  const {proxy, pusher} = await pushedImage(t);
  const begun = await proxy.ask('/v2/team/app/blobs/uploads/', {
    method: 'POST',
    headers: {'Content-Length': 0},
  });
  const remount = await unmount(proxy);
  const location = String(begun.headers.location);
  for (const answer of [
    await pusher.blob(randomBlob(1000)),
    await proxy.ask('/v2/team/app/blobs/uploads/', {method: 'POST', headers: {'Content-Length': 0}}),
    await proxy.ask(location),
    await proxy.ask(location, {method: 'PATCH', headers: {'Content-Length': 1}, body: 'x'}),
    await pusher.manifest(image, 'v2'),
  ]) {
    t.is(answer.status, 503);
    t.regex(errorOf(answer).message, /blob store of this registry is missing/);
  }
  t.deepEqual(await readdir(blobsOf(proxy)), []);

  await remount();
  const [body, digest] = [Buffer.from('x'), digestOf(Buffer.from('x'))];
  const finish = {method: 'PUT', headers: {'Content-Length': 1}, body};
  t.is((await proxy.ask(`${location}?digest=${digest}`, finish)).status, 201);
  t.is((await pusher.manifest(image, 'v2')).status, 201);
});

test('a server that starts while the blob store is missing serves again once it is back', async (t) => {
  const {proxy} = await pushedImage(t);
  const remount = await unmount(proxy);
  const next = await proxy.restart();
  const path = `/v2/team/app/blobs/${layer.digest}`;
  t.is((await next.ask(path)).status, 503);
  t.deepEqual(await readdir(blobsOf(proxy)), []);
  await remount();
  sameBytes(t, (await next.ask(path)).body, layer.bytes);
});

test('while the blob store is missing, a mirror passes on what it does not have, and keeps nothing', async (t) => {
  const cold = randomBlob(1000);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${layer.digest}`, answer: {body: layer.bytes}},
    {
      request: `HEAD /v2/library/app/blobs/${cold.digest}`,
      answer: {headers: {'Content-Length': '1000'}, body: []},
    },
    {request: `GET /v2/library/app/blobs/${cold.digest}`, answer: {body: cold.bytes}},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  await proxy.ask(`/v2/app/blobs/${layer.digest}`);
  await proxy.idle();
  const spooled = await readdir(join(proxy.folder, 'spool'));
  const remount = await unmount(proxy);
  t.is((await proxy.ask(`/v2/app/blobs/${layer.digest}`)).status, 503, 'what it has is on that disk');
  sameBytes(t, (await proxy.ask(`/v2/app/blobs/${cold.digest}`)).body, cold.bytes);
  t.deepEqual(await readdir(join(proxy.folder, 'spool')), spooled);
  await remount();
  t.is((await proxy.ask(`/v2/app/blobs/${layer.digest}`)).status, 200);
});

test('a pushed blob whose file alone is gone is 404, keeps its row, and is served again once the file is back', async (t) => {
  const {proxy, pusher} = await pushedImage(t);
  const file = fileOf(proxy, layer.digest);
  await rename(file, `${file}.away`);
  t.is((await pusher.get(`blobs/${layer.digest}`)).status, 404);
  t.is((await pusher.manifest(image, 'v2')).status, 404, 'nor is it promised by another manifest');
  proxy.clock.move(2 * DAY);
  t.like(await collect(proxy), {blobs: 0, links: 0});
  await rename(`${file}.away`, file);
  sameBytes(t, (await pusher.get(`blobs/${layer.digest}`)).body, layer.bytes);
});

test('a pushed blob whose file alone is gone comes back with the next push', async (t) => {
  const {proxy, pusher} = await pushedImage(t);
  await unlink(fileOf(proxy, layer.digest));
  t.is((await pusher.get(`blobs/${layer.digest}`)).status, 404);
  t.is((await pusher.blob(layer)).status, 201);
  sameBytes(t, (await pusher.get(`blobs/${layer.digest}`)).body, layer.bytes);
});

test('a data folder from a version without markers is served and gets its marker', async (t) => {
  const {proxy} = await pushedImage(t);
  await proxy.server.close();
  await rm(join(blobsOf(proxy), 'backref-store'));
  {
    using database = new DatabaseSync(join(proxy.folder, 'meta.db'));
    database.exec('delete from blob_store');
  }
  const next = await startBackref(t, {...HOSTED, folder: proxy.folder, clock: proxy.clock});
  sameBytes(t, (await next.ask(`/v2/team/app/blobs/${layer.digest}`)).body, layer.bytes);
  t.like(await collect(next), {blobs: 0, links: 0});
  t.true((await readdir(blobsOf(proxy))).includes('backref-store'));
});

test('new metadata beside a blob store with blobs, as when the old ones are missing, do not cost a blob', async (t) => {
  const {proxy} = await pushedImage(t);
  await proxy.server.close();
  const away = join(proxy.folder, 'away');
  const metadata = (await readdir(proxy.folder)).filter((name) => name.startsWith('meta.db'));
  await mkdir(away);
  for (const name of metadata) await rename(join(proxy.folder, name), join(away, name));

  const without = await startBackref(t, {...HOSTED, folder: proxy.folder, clock: proxy.clock});
  proxy.clock.move(2 * DAY);
  await t.throwsAsync(() => collect(without), {name: 'StoreMissing'});
  t.is((await pusherTo(without, 'team/app').blob(randomBlob(1000))).status, 503);
  await without.server.close();

  for (const name of await readdir(proxy.folder)) {
    if (name.startsWith('meta.db')) await rm(join(proxy.folder, name));
  }
  for (const name of metadata) await rename(join(away, name), join(proxy.folder, name));
  const next = await startBackref(t, {...HOSTED, folder: proxy.folder, clock: proxy.clock});
  sameBytes(t, (await next.ask(`/v2/team/app/blobs/${layer.digest}`)).body, layer.bytes);
});

test('a push is 507 while there is no space for the marker of a new blob store', async (t) => {
  const folder = await createFolder(t);
  const draft = join(folder, 'blobs', 'backref-store.new');
  await mkdir(dirname(draft));
  await symlink('/dev/full', draft);
  const proxy = await startBackref(t, {...HOSTED, folder});
  const pusher = pusherTo(proxy, 'team/app');
  t.is((await pusher.blob(layer)).status, 507);
  await rm(draft);
  t.is((await pusher.blob(layer)).status, 201);
});

test('a response that breaks because the store went missing is logged with that reason, not as a bug', (t) => {
  t.is(failureReason(new StoreMissing('the blob store is missing')), 'the blob store is missing');
});

const SMALL = 1000;
const LARGE = 3 * 1024 * 1024;
/** When a client leaves; its upstream has sent half of the blob and says nothing more. */
const DEPARTURES = [
  {when: 'before the verification', size: SMALL},
  {when: 'after the first half', size: LARGE},
];

for (const {when, size} of DEPARTURES) {
  test(`no defect is reported when a client leaves ${when} of a blob that is passed on`, async (t) => {
    const half = Buffer.alloc(size / 2);
    const length = {headers: {'Content-Length': String(size)}};
    const blobs = '/v2/library/app/blobs';
    const upstream = await createScriptedUpstream(t, [
      {request: `GET ${blobs}/${layer.digest}`, answer: {body: layer.bytes}},
      {request: `HEAD ${blobs}/${config.digest}`, answer: {...length, body: []}},
      {request: `GET ${blobs}/${config.digest}`, answer: {...length, body: [half, HANG]}},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
    const faults: unknown[] = [];
    proxy.server.events.on('request.fault', ({error}) => void faults.push(error));
    await proxy.ask(`/v2/app/blobs/${layer.digest}`);
    await proxy.idle();
    await unmount(proxy);

    const client = connect(proxy.port, '127.0.0.1');
    client.write(`GET /v2/app/blobs/${config.digest} HTTP/1.1\r\nHost: a\r\n\r\n`);
    await upstream.received(3);
    while (size === LARGE && client.bytesRead < half.length) await once(client, 'data');
    const ended = once(proxy.server.events, 'request.end');
    client.destroy();
    t.like((await ended)[0], {outcome: 'aborted'});
    await proxy.server.close();
    t.deepEqual(faults, []);
  });
}
