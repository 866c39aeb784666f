import {once} from 'node:events';
import {readFile} from 'node:fs/promises';
import type {IncomingMessage} from 'node:http';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {type Backref, startBackref} from '../../support/backref.ts';
import {
  blobAnswer,
  type Content,
  contentOf,
  imageManifest,
  manifestAnswer,
  plainManifest,
  randomBlob,
  sha256,
} from '../../support/content.ts';
import {pusherTo} from '../../support/pusher.ts';
import {openRaw} from '../../support/raw-http.ts';
import {
  createScriptedUpstream,
  type Expectation,
  HANG,
  type ScriptedUpstream,
} from '../../support/scripted-upstream.ts';

const MiB = 1024 * 1024;
const pathOf = ({digest}: Content, name = 'app') => `/v2/${name}/blobs/${digest}`;
const GET = (blob: Content) => `GET ${pathOf(blob, 'library/app')}`;

/** The first MiB of a blob, and the rest once it is released. */
const begins = ({bytes, ...blob}: Content, resume: Promise<void>): Expectation => ({
  request: GET({bytes, ...blob}),
  sends: {range: undefined},
  answer: {
    headers: {'Content-Length': String(bytes.length)},
    body: [bytes.subarray(0, MiB), {wait: resume}, bytes.subarray(MiB)],
  },
});

/** What follows the first MiB. */
const continues = ({bytes, ...blob}: Content): Expectation => ({
  request: GET({bytes, ...blob}),
  sends: {range: `bytes=${MiB - 1}-`},
  answer: {
    status: 206,
    headers: {'Content-Range': `bytes ${MiB - 1}-${bytes.length - 1}/${bytes.length}`},
    body: bytes.subarray(MiB - 1),
  },
});

const over = (t: ExecutionContext, upstream: ScriptedUpstream, bodies: number, settings: object = {}) =>
  startBackref(t, {
    registries: [{url: upstream.url, upstream: {concurrency: {heads: 8, manifests: 1, bodies}}, ...settings}],
    config: {shutdown: {grace: 50}},
  });

/** Reads the first MiB of an answer, and leaves it open. */
async function readBeginning(proxy: Backref, blob: Content): Promise<IncomingMessage> {
  const message = await proxy.open(pathOf(blob));
  let length = 0;
  message.on('data', (chunk: Buffer) => {
    length += chunk.length;
  });
  while (length < MiB) await once(message, 'data');
  return message;
}

async function abandon(proxy: Backref, blob: Content): Promise<void> {
  (await readBeginning(proxy, blob)).destroy();
}

const interrupted = async (proxy: Backref): Promise<string> =>
  (await once(proxy.server.events, 'fill.interrupted'))[0].digest;

test('abandoned downloads on all connections delay neither a manifest nor a blob, and finish later', async (t) => {
  const abandoned = [randomBlob(3 * MiB), randomBlob(3 * MiB)] as const;
  const other = randomBlob(2 * MiB);
  const manifest = plainManifest();
  const {promise, resolve} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(
    t,
    [
      ...abandoned.map((blob) => begins(blob, promise)),
      {request: 'GET /v2/library/app/manifests/v1', answer: manifestAnswer(manifest)},
      {request: GET(other), answer: blobAnswer(other)},
      continues(abandoned[0]),
    ],
    {anyOrder: true},
  );
  const proxy = await over(t, upstream, abandoned.length);
  for (const blob of abandoned) await abandon(proxy, blob);
  t.deepEqual((await proxy.ask('/v2/app/manifests/v1')).body, manifest.bytes);
  t.is(sha256((await proxy.ask(pathOf(other))).body), other.digest);
  resolve();
  await proxy.idle();
  await upstream.stop();
  for (const blob of abandoned) {
    const got = await proxy.ask(pathOf(blob));
    t.is(sha256(got.body), blob.digest);
    t.regex(String(got.headers['cache-status']), /hit/);
  }
});

test('a download whose request was pipelined gives way once the connection is gone', async (t) => {
  const [first, other] = [randomBlob(3 * MiB), randomBlob(2 * MiB)];
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: 'GET /v2/library/app/manifests/v1', answer: {before: HANG}},
      {...begins(first, new Promise(() => {})), optional: true},
      {request: GET(other), answer: blobAnswer(other)},
    ],
    {anyOrder: true},
  );
  const proxy = await over(t, upstream, 1);
  const {socket, send} = await openRaw(t, proxy.port);
  const line = (path: string) => `GET ${path} HTTP/1.1\r\nHost: registry\r\n\r\n`;
  send(line('/v2/app/manifests/v1') + line(pathOf(first)));
  await upstream.received(1);
  const closed = once(socket, 'close');
  socket.resetAndDestroy();
  await closed;
  t.is(sha256((await proxy.ask(pathOf(other))).body), other.digest);
});

test('an interrupted download continues for the next client that asks for it', async (t) => {
  const [first, second] = [randomBlob(3 * MiB), randomBlob(3 * MiB)];
  const {promise, resolve} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {...begins(first, new Promise(() => {}))},
    begins(second, promise),
    continues(first),
  ]);
  const proxy = await over(t, upstream, 1);
  const paused = interrupted(proxy);
  await abandon(proxy, first);
  const reading = readBeginning(proxy, second);
  t.is(await paused, first.digest);
  const joined = await proxy.open(pathOf(first));
  t.regex(String(joined.headers['cache-status']), /collapsed/);
  await reading;
  resolve();
  t.is(sha256(Buffer.concat(await joined.toArray())), first.digest);
});

test('a download that somebody still waits for is not interrupted when another of its clients leaves', async (t) => {
  const [wanted, other] = [randomBlob(3 * MiB), randomBlob(2 * MiB)];
  const {promise, resolve} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    begins(wanted, promise),
    {request: GET(other), answer: blobAnswer(other)},
  ]);
  const proxy = await over(t, upstream, 1);
  const staying = proxy.ask(pathOf(wanted));
  await abandon(proxy, wanted);
  const waiting = proxy.ask(pathOf(other));
  // When it answers a later request, the server has seen one client leave and the other one ask.
  await proxy.ask('/v2/');
  t.is(upstream.requests.length, 1);
  resolve();
  t.is(sha256((await staying).body), wanted.digest);
  t.is(sha256((await waiting).body), other.digest);
});

test('a pushed manifest waits for its layer, whose download is not interrupted', async (t) => {
  const [layer, other, config] = [randomBlob(3 * MiB), randomBlob(2 * MiB), contentOf(Buffer.from('{}'))];
  const {promise, resolve} = Promise.withResolvers<void>();
  const length = {'Content-Length': String(layer.bytes.length)};
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${pathOf(layer, 'library/app')}`, answer: {headers: length, body: []}},
    begins(layer, promise),
    {request: GET(other), answer: blobAnswer(other)},
  ]);
  const proxy = await over(t, upstream, 1, {push: 'local', overlay: {tags: 'allow'}});
  const {blob, manifest} = pusherTo(proxy, 'app');
  await blob(config);
  const pushed = manifest(imageManifest([layer]), 'v1');
  await upstream.received(2);
  const waiting = proxy.ask(pathOf(other));
  await proxy.ask('/v2/');
  t.is(upstream.requests.length, 2);
  resolve();
  t.is((await pushed).status, 201);
  t.is(sha256((await waiting).body), other.digest);
});

test('a download that waits for its turn does not delay the end of the server, and keeps its spool', async (t) => {
  const [first, second] = [randomBlob(3 * MiB), randomBlob(3 * MiB)];
  const upstream = await createScriptedUpstream(t, [
    begins(first, new Promise(() => {})),
    {
      request: GET(second),
      answer: {headers: {'Content-Length': String(3 * MiB)}, body: [second.bytes.subarray(0, MiB), HANG]},
    },
    continues(first),
  ]);
  const proxy = await over(t, upstream, 1);
  const paused = interrupted(proxy);
  await abandon(proxy, first);
  await readBeginning(proxy, second);
  t.is(await paused, first.digest);
  const next = await proxy.restart();
  const spool = join(next.folder, 'spool', `${first.digest.replace(':', '-')}.part`);
  t.is((await readFile(spool)).length, MiB);
  t.is(sha256((await next.ask(pathOf(first))).body), first.digest);
});
