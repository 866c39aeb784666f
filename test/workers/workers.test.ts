import {once} from 'node:events';
import {connect, type Socket} from 'node:net';
import {setImmediate as nextTurn} from 'node:timers/promises';
import {connect as connectTls} from 'node:tls';
import test, {type ExecutionContext} from 'ava';
import {ownPort} from '../../rig/port.ts';
import {createServer} from '../../src/server.ts';
import {type BareConnection, openBare, shared} from '../http/ways.ts';
import {type Backref, type BackrefOptions, configOf, LIMITS, startBackref} from '../support/backref.ts';
import {AUTHORITY} from '../support/certificates.ts';
import {imageManifest, randomBlob} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {pusherTo} from '../support/pusher.ts';
import {openRaw} from '../support/raw-http.ts';
import {writeTls} from '../support/tls-files.ts';

const images = [imageManifest(), imageManifest()] as const;
const blob = randomBlob(1000);
/** So many connections that no thread of four is left without one. */
const MANY = 24;
const PING = 'GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n';
const get = (path: string, fields = ''): string => `GET ${path} HTTP/1.1\r\nHost: a\r\n${fields}\r\n`;
const TAG = '/v2/app/manifests/1';
const BY_DIGEST = `/v2/app/manifests/${images[0].digest}`;

/** A hosted registry whose requests four threads answer. */
async function start(t: ExecutionContext, options: Partial<BackrefOptions> = {}): Promise<Backref> {
  const config = {workers: 4, ...options.config};
  const validate = {blobs: false, children: false, sizes: false};
  const proxy = await startBackref(t, {registries: [{validate}], ...options, config});
  const pusher = pusherTo(proxy, 'app');
  if (!options.listener?.tls) {
    await pusher.blob(blob);
    await pusher.manifest(images[0], '1');
  }
  return proxy;
}

const openMany = (t: ExecutionContext, {port}: Backref): Promise<BareConnection[]> =>
  Promise.all(Array.from({length: MANY}, () => openBare(t, port)));

const askAll = (connections: readonly BareConnection[], text: string): Promise<string[]> =>
  Promise.all(connections.map(({ask}) => ask(text)));

/** What differs in an answer from an equal one. */
const distinct = (answers: readonly string[]): string[] => [
  ...new Set(answers.map((answer) => shared(answer).replace(/\b[0-9a-f]{32}\b/g, 'ID'))),
];

const UNKNOWN = 'X-Nothing: 1\r\n';
const TEXTS: [title: string, text: string][] = [
  ['a ping', PING],
  ['a manifest by digest', get(BY_DIGEST)],
  ['HEAD', get(BY_DIGEST).replace('GET', 'HEAD')],
  ['a manifest that the client has', get(BY_DIGEST, `If-None-Match: "${images[0].digest}"\r\n`)],
  ['a tag', get(TAG)],
  ['a small blob', get(`/v2/app/blobs/${blob.digest}`)],
  ['a range', get(`/v2/app/blobs/${blob.digest}`, 'Range: bytes=1-3\r\n')],
  ['what does not exist', get('/v2/app/manifests/2')],
  ['a field that is not known', get(BY_DIGEST, UNKNOWN)],
  ['an older version', `GET ${BY_DIGEST} HTTP/1.0\r\nHost: a\r\n\r\n`],
  ['a body', `POST /v2/app/blobs/uploads/?digest=bad HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx`],
  ['no host', `GET ${BY_DIGEST} HTTP/1.1\r\n\r\n`],
  ['a tunnel', 'CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['what is no request', 'hello\r\n\r\n'],
  ['two hosts', get(BY_DIGEST, 'Host: b\r\n')],
  ['the end of the connection', get(BY_DIGEST, 'Connection: close\r\n')],
];
for (const [title, text] of TEXTS) {
  test(`${title}: all threads answer the same bytes, also the second time`, async (t) => {
    const proxy = await start(t);
    t.is(distinct(await askAll(await openMany(t, proxy), text)).length, 1);
    const connections = await openMany(t, proxy);
    const first = distinct(await askAll(connections, PING));
    t.is(first.length, 1);
    const again = distinct(await askAll(connections, text));
    t.is(again.length, 1, again.join('\n'));
  });
}

test('a connection that begins with what is not prepared gets prepared answers afterwards, and all are counted', async (t) => {
  const proxy = await start(t);
  const connections = await openMany(t, proxy);
  for (const text of [PING, get(BY_DIGEST), get(BY_DIGEST), PING, get(BY_DIGEST)])
    t.is(distinct(await askAll(connections, text)).length, 1);
  const metrics = (await proxy.ask('/metrics')).body.toString();
  const count = (line: RegExp) => Number(line.exec(metrics)?.[1]);
  t.is(
    count(/^backref_served_total\{kind="manifest",registry="docker.io",outcome="hit"\} (\d+)$/m),
    3 * MANY,
  );
  t.is(count(/^backref_requests_total\{method="GET",status="200",registry=""\} (\d+)$/m), 2 * MANY);
});

test('a push, a deletion and a reload are seen by the next request on every connection', async (t) => {
  const proxy = await start(t);
  const connections = await openMany(t, proxy);
  const seen = async (text: string) =>
    distinct(await askAll(connections, text)).map((one) => one.split('\r\n')[0]);
  const digests = async () =>
    new Set(
      (await askAll(connections, get(TAG))).map((one) => /^Docker-Content-Digest: (\S+)\r$/m.exec(one)?.[1]),
    );
  for (let time = 0; time < 6; time += 1) {
    const image = images[time % 2 === 0 ? 1 : 0];
    if (!image) return t.fail();
    await pusherTo(proxy, 'app').manifest(image, '1');
    t.deepEqual(await digests(), new Set([image.digest]));
    t.deepEqual(await digests(), new Set([image.digest]));
  }
  t.deepEqual(await seen(get(BY_DIGEST)), ['HTTP/1.1 200 OK']);
  proxy.reload({config: {workers: 4, access: {rules: []}}});
  t.deepEqual(await seen(get(BY_DIGEST)), ['HTTP/1.1 403 Forbidden']);
  proxy.reload({config: {workers: 4}});
  t.deepEqual(await seen(get(BY_DIGEST)), ['HTTP/1.1 200 OK']);
  t.is((await proxy.ask(BY_DIGEST, {method: 'DELETE'})).status, 202);
  t.deepEqual(await seen(get(BY_DIGEST)), ['HTTP/1.1 404 Not Found']);
});

test('uploads and large downloads go through every thread', async (t) => {
  const proxy = await start(t);
  const large = randomBlob(3 * 2 ** 20);
  await Promise.all(Array.from({length: 6}, () => pusherTo(proxy, 'app').blob(large)));
  const path = `/v2/app/blobs/${large.digest}`;
  const answers = await Promise.all(
    Array.from({length: 8}, () => proxy.ask(path, {headers: {connection: 'close'}})),
  );
  t.true(answers.every(({status, body}) => status === 200 && body.equals(large.bytes)));
});

test('connections of all threads count together', async (t) => {
  const limits = {...LIMITS, connections: {total: 1000, perAddress: 10}};
  const proxy = await start(t, {config: {limits}});
  const connections = await openMany(t, proxy);
  const answers = await Promise.all(connections.map(({ask}) => ask(PING).catch(() => 'ended')));
  const served = answers.filter((one) => one.startsWith('HTTP/1.1 200'));
  t.true(served.length === 9 || served.length === 10, String(served.length));
  t.true(answers.filter((one) => !served.includes(one)).every((one) => one.startsWith('HTTP/1.1 429')));
});

test('over TLS, with and without a client certificate', async (t) => {
  const {paths: tls} = await writeTls(t);
  const proxy = await start(t, {listener: {tls}});
  const ask = async () => {
    const socket = connectTls({host: '127.0.0.1', port: proxy.port, ca: AUTHORITY});
    t.teardown(() => socket.destroy());
    await once(socket, 'secureConnect');
    socket.write(PING);
    const [first] = (await once(socket, 'data')) as [Buffer];
    socket.write(PING);
    const [second] = (await once(socket, 'data')) as [Buffer];
    return [first, second].map(String);
  };
  const answers = (await Promise.all(Array.from({length: 12}, ask))).flat();
  t.is(distinct(answers).length, 1);
  t.regex(answers[0] ?? '', /^HTTP\/1\.1 200 OK/);
});

test('a server that stops lets running answers end, and reports everything', async (t) => {
  const proxy = await start(t, {config: {shutdown: {grace: 10_000}}});
  const large = randomBlob(20 * 2 ** 20);
  await pusherTo(proxy, 'app').blob(large);
  let ended = 0;
  proxy.server.events.on('requests.counted', (all) => {
    for (const {count, kind} of all) if (kind === 'manifest') ended += count;
  });
  const connections = await openMany(t, proxy);
  for (let time = 0; time < 3; time += 1) await askAll(connections, get(BY_DIGEST));
  const downloads = await Promise.all(
    Array.from({length: 6}, () =>
      proxy.open(`/v2/app/blobs/${large.digest}`, {headers: {connection: 'close'}}),
    ),
  );
  const closed = proxy.server.close();
  const bodies = await Promise.all(downloads.map(async (message) => Buffer.concat(await message.toArray())));
  t.true(bodies.every((body) => body.equals(large.bytes)));
  await closed;
  t.is(ended, 3 * MANY);
});

test('a server that stops lets clients of every thread read the answers that wait for them', async (t) => {
  const proxy = await start(t, {config: {shutdown: {grace: 30_000}}});
  const long = imageManifest(Array.from({length: 400}, () => randomBlob(8)));
  await pusherTo(proxy, 'app').manifest(long, 'long');
  const path = `/v2/app/manifests/${long.digest}`;
  const connections = await Promise.all(Array.from({length: 8}, () => openRaw(t, proxy.port)));
  // More than the system takes for a client that reads nothing, one after the other.
  for (let time = 0; time < 100; time += 1) {
    for (const {send} of connections) send(get(path, UNKNOWN));
    await nextTurn();
  }
  // A request that nobody has read ends with its connection.
  const waits = ({readableLength, destroyed}: Socket) => readableLength === 0 && !destroyed;
  for (const {socket} of connections) while (waits(socket)) await nextTurn();
  const closed = proxy.server.close();
  const counts = await Promise.all(
    connections.map(async ({answer}) => {
      for (let count = 0; ; count += 1) {
        const answered = await answer();
        if (!answered) return count;
        t.true(answered.body.equals(long.bytes), `answer ${count} has ${answered.body.length} bytes`);
      }
    }),
  );
  t.true(counts.every((count) => count > 0));
  await closed;
});

/** A server whose workers a test can end, by the numbers of their threads. */
async function startMortal(t: ExecutionContext) {
  const channel = new BroadcastChannel('mortal workers');
  t.teardown(() => channel.close());
  const numbers: number[] = [];
  let heard = Promise.withResolvers<void>();
  channel.onmessage = (message) => {
    const {listens} = (message as MessageEvent).data as {listens: number};
    numbers.push(listens);
    heard.resolve();
    heard = Promise.withResolvers();
  };
  const proxy = await start(t, {workerProgram: new URL('./mortal-thread.ts', import.meta.url)});
  const listening = async (count: number) => {
    while (numbers.length < count) await heard.promise;
  };
  await listening(3);
  return {proxy, channel, numbers, listening};
}

test.serial('a worker that ends is replaced, while the others go on', async (t) => {
  const {proxy, channel, numbers, listening} = await startMortal(t);
  const connections = await openMany(t, proxy);
  await askAll(connections, get(BY_DIGEST));
  const ended = once(proxy.server.events, 'worker.ended');
  channel.postMessage(numbers[0]);
  const [{reason}] = await ended;
  t.is(reason, 'its thread ended with code 7');
  const answers = await Promise.all(connections.map(({ask}) => ask(get(BY_DIGEST)).catch(() => undefined)));
  t.true(answers.some((one) => one?.startsWith('HTTP/1.1 200')));
  t.true(answers.includes(undefined));
  await listening(4);
  t.is(distinct(await askAll(await openMany(t, proxy), get(BY_DIGEST))).length, 1);
});

test.serial('a defect in a worker is reported, and its connections go on', async (t) => {
  const {proxy, channel, numbers} = await startMortal(t);
  const connections = await openMany(t, proxy);
  await askAll(connections, get(BY_DIGEST));
  const reported = once(proxy.server.events, 'server.fault');
  channel.postMessage(-(numbers[0] ?? 0));
  const [{origin, error}] = await reported;
  t.is(origin, 'exception');
  t.is(error.message, 'planted');
  t.is(distinct(await askAll(connections, get(BY_DIGEST))).length, 1);
});

for (const workers of [1, 3])
  test(`a server that is closed before it listens does not listen, with ${workers} threads`, async (t) => {
    const port = await ownPort();
    const config = configOf({registries: [{}], config: {workers}}, await createFolder(t), port);
    const server = createServer(config, {env: {}});
    const listening = server.listen();
    await Promise.all([
      t.throwsAsync(listening, {message: 'the server was closed before it listened'}),
      server.close(),
    ]);
    const socket = connect(port, '127.0.0.1');
    const [error] = await once(socket, 'error');
    t.is(error.code, 'ECONNREFUSED');
  });
