import {once} from 'node:events';
import {readdir, readFile} from 'node:fs/promises';
import type {IncomingMessage} from 'node:http';
import {type AddressInfo, connect, createServer as createTcpServer, type Socket} from 'node:net';
import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import {setImmediate as nextTurn} from 'node:timers/promises';
import test, {type ExecutionContext} from 'ava';
import {createServer} from '../src/server.ts';
import {MIGRATIONS} from '../src/storage/sqlite/migrations.ts';
import {
  type Backref,
  configOf,
  createMovableClock,
  type MovableClock,
  startBackref,
} from './support/backref.ts';
import {startProgram} from './support/command.ts';
import {
  type Content,
  headAnswer,
  imageManifest,
  manifestAnswer,
  randomBlob,
  sameBytes,
} from './support/content.ts';
import {createFolder} from './support/folder.ts';
import {connectRaw, openRaw} from './support/raw-http.ts';
import {createScriptedUpstream} from './support/scripted-upstream.ts';

const KiB = 1024;
const GRACE = 123_456;
const HOST = 'Host: 127.0.0.1\r\n';
const image = imageManifest();
/** Larger than what is held back until it is verified. */
const blob = randomBlob(1100 * KiB);
const MANIFEST = '/v2/app/manifests/1';
const BLOB = `/v2/app/blobs/${blob.digest}`;
const GET_MANIFEST = 'GET /v2/library/app/manifests/1';
const GET_BLOB = `GET /v2/library/app/blobs/${blob.digest}`;

const read = async (message: IncomingMessage): Promise<Buffer> => Buffer.concat(await message.toArray());

/** An upstream's answer that stops after `first` bytes until the test continues it. */
function inTwo({bytes}: Content, first: number) {
  const {promise, resolve} = Promise.withResolvers<void>();
  const headers = {'Content-Length': String(bytes.length)};
  return {
    answer: {headers, body: [bytes.subarray(0, first), {wait: promise}, bytes.subarray(first)]},
    resume: resolve,
  };
}

/** Real time, except for the grace of a shutdown, which the test ends. */
function createGraceClock(): {clock: MovableClock; end: () => void} {
  const clock = createMovableClock();
  const {promise: over, resolve: end} = Promise.withResolvers<void>();
  const after: MovableClock['after'] = (ms, call) => {
    if (ms !== GRACE) return clock.after(ms, call);
    let wanted = true;
    over.then(() => wanted && call());
    return () => {
      wanted = false;
    };
  };
  return {clock: {...clock, after}, end};
}

const withGrace = {config: {shutdown: {grace: GRACE}}};

/** A TCP port that forwards to another one: an address that a server cannot recognise as its own. */
async function forwarder(t: ExecutionContext): Promise<{url: string; leadTo(port: number): void}> {
  let target = 0;
  const sockets = new Set<Socket>();
  const server = createTcpServer((socket) => {
    const other = connect(target, '127.0.0.1');
    for (const [from, to] of [
      [socket, other],
      [other, socket],
    ] as const) {
      sockets.add(from);
      from.on('error', () => {}).once('close', () => to.destroy());
      from.pipe(to);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    leadTo: (port) => {
      target = port;
    },
  };
}

/** The error that a new connection to the port ends with; undefined when it is accepted. */
async function refusal(port: number): Promise<unknown> {
  try {
    (await connectRaw(port)).socket.destroy();
    return undefined;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code;
  }
}

test('it starts and answers /v2/ while no upstream can be reached', async (t) => {
  const upstream = await createScriptedUpstream(t);
  await upstream.stop();
  const proxy = await startBackref(t, {registries: [upstream, {url: 'http://does-not-exist.invalid'}]});
  t.is((await proxy.ask('/v2/')).status, 200);
  const miss = await proxy.ask(MANIFEST);
  t.is(miss.status, 503);
  t.regex(miss.body.toString(), /refuses connections/);
});

test('it asks no upstream when it starts or closes', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is((await proxy.ask('/v2/')).status, 200);
  t.is((await proxy.ask('/v2/_catalog')).status, 200);
  await proxy.server.close();
  t.is(upstream.requests.length, 0);
});

test('listen returns the address', async (t) => {
  const proxy = await startBackref(t, {registries: [await createScriptedUpstream(t)]});
  t.is(proxy.url, `http://127.0.0.1:${proxy.port}`);
  t.is((await fetch(`${proxy.url}/v2/`)).status, 200);
});

test('a second listen throws, and close still works', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [upstream]});
  await t.throwsAsync(proxy.server.listen(), {
    code: 'ERR_SERVER_ALREADY_LISTEN',
  });
  await proxy.server.close();
  t.is(await refusal(proxy.port), 'ECONNREFUSED');
});

test('two servers in one process share neither events, nor cache, nor tokens', async (t) => {
  const upstream = await createScriptedUpstream(t, [], {anyOrder: true});
  const challenge = `Bearer realm="${upstream.url}/token",service="registry"`;
  upstream.expect(
    {
      request: GET_MANIFEST,
      sends: {authorization: undefined},
      answer: {status: 401, headers: {'WWW-Authenticate': challenge}},
      times: 2,
    },
    {request: /^GET \/token\?/, answer: {body: '{"token":"first"}'}},
    {request: /^GET \/token\?/, answer: {body: '{"token":"second"}'}},
    {request: GET_MANIFEST, sends: {authorization: 'Bearer first'}, answer: manifestAnswer(image)},
    {request: GET_MANIFEST, sends: {authorization: 'Bearer second'}, answer: manifestAnswer(image)},
  );
  const heard = {first: 0, second: 0};
  const first = await startBackref(t, {registries: [upstream]});
  const second = await startBackref(t, {registries: [upstream]});
  first.server.events.on('request.end', () => void heard.first++);
  second.server.events.on('request.end', () => void heard.second++);

  t.is((await first.ask(MANIFEST)).headers['cache-status'], 'backref;fwd=uri-miss;stored;ttl=60');
  t.is((await second.ask('/v2/_catalog')).body.toString(), '{"repositories":[]}');
  t.is((await second.ask(MANIFEST)).headers['cache-status'], 'backref;fwd=uri-miss;stored;ttl=60');
  t.is((await second.ask(MANIFEST)).headers['cache-status'], 'backref;hit;ttl=60');
  await first.server.close();
  t.is((await second.ask(MANIFEST)).status, 200);
  t.deepEqual(heard, {first: 1, second: 4});
});

test('close lets a running response end, accepts no new connection, and waits for nothing else', async (t) => {
  t.timeout(60_000, 'close waited for a connection without a request, which stays open for 75 s');
  const {answer, resume} = inTwo(blob, 100);
  const upstream = await createScriptedUpstream(t, [{request: GET_BLOB, answer}]);
  const {clock} = createGraceClock();
  const proxy = await startBackref(t, {registries: [upstream], clock, ...withGrace});
  const message = await proxy.open(BLOB);
  const closed = proxy.server.close();
  // The listener is closed a few microtasks later. A connection from before would be reset.
  await nextTurn();
  t.is(await refusal(proxy.port), 'ECONNREFUSED');
  resume();
  sameBytes(t, await read(message), blob.bytes);
  await closed;
});

test('close ends idle connections at once', async (t) => {
  const {clock} = createGraceClock();
  const proxy = await startBackref(t, {registries: [await createScriptedUpstream(t)], clock, ...withGrace});
  const {socket, send, answer} = await openRaw(t, proxy.port);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}\r\n`);
  await answer();
  const ended = once(socket, 'close');
  await proxy.server.close();
  await ended;
  t.pass();
});

/** Fields that node's HTTP server answers by itself, and those that leave the request to the front door. */
for (const [way, field] of [
  ["node's HTTP server", 'X-Nothing: 1\r\n'],
  ['the front door', ''],
] as const)
  test(`close waits for a client that is slow to read the answers it was given: by ${way}`, async (t) => {
    const large = imageManifest(Array.from({length: 400}, () => randomBlob(8)));
    const path = `/v2/app/manifests/${large.digest}`;
    const upstream = await createScriptedUpstream(t, [
      {request: `GET /v2/library/app/manifests/${large.digest}`, answer: manifestAnswer(large)},
    ]);
    const {clock} = createGraceClock();
    const proxy = await startBackref(t, {registries: [upstream], clock, ...withGrace});
    for (let time = 0; time < 2; time += 1) await proxy.ask(path);
    let begun = 0;
    proxy.server.events.on('request.start', () => {
      begun += 1;
    });
    const {send, answer} = await openRaw(t, proxy.port);
    // One after the other, until the system takes no more of what the client does not read: none begins for a second.
    for (let sent = 0, pauses = 0; begun < 2 || pauses < 100; pauses += 1) {
      if (begun === sent) {
        send(`GET ${path} HTTP/1.1\r\n${HOST}${field}\r\n`);
        sent += 1;
        pauses = 0;
      }
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    // Those that begin while it closes have no such promise.
    const promised = begun;
    const closed = proxy.server.close();
    for (let count = 0; count < promised; count += 1) sameBytes(t, (await answer())?.body, large.bytes);
    await closed;
  });

test('a request that arrives on a connection in use during close is answered, with Connection: close', async (t) => {
  const wait = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: GET_MANIFEST, answer: {...manifestAnswer(image), before: wait.promise}},
  ]);
  const {clock} = createGraceClock();
  const proxy = await startBackref(t, {registries: [upstream], clock, ...withGrace});
  const {send, answer} = await openRaw(t, proxy.port);
  send(`GET ${MANIFEST} HTTP/1.1\r\n${HOST}\r\n`);
  await upstream.received(1);
  const closed = proxy.server.close();
  send(`GET /v2/ HTTP/1.1\r\n${HOST}\r\n`);
  wait.resolve();
  sameBytes(t, (await answer())?.body, image.bytes);
  const second = await answer();
  t.is(second?.status, 200);
  t.is(second?.headers['connection'], 'close');
  await closed;
});

test('close ends what exceeds the grace period and keeps the partial spool, which the next process resumes', async (t) => {
  const {answer, resume} = inTwo(blob, 10_000);
  t.teardown(resume);
  const upstream = await createScriptedUpstream(t, [
    {request: GET_BLOB, answer},
    {
      request: GET_BLOB,
      sends: {range: 'bytes=9999-'},
      answer: {
        status: 206,
        headers: {'Content-Range': `bytes 9999-${blob.bytes.length - 1}/${blob.bytes.length}`},
        body: blob.bytes.subarray(9999),
      },
    },
  ]);
  const grace = createGraceClock();
  const proxy = await startBackref(t, {registries: [upstream], clock: grace.clock, ...withGrace});
  const message = await proxy.open(BLOB);
  const some = Promise.withResolvers<void>();
  const reading = async () => {
    let received = 0;
    for await (const {length} of message) {
      received += length;
      if (received >= 9999) some.resolve();
    }
  };
  const cut = t.throwsAsync(reading(), {code: 'ECONNRESET'});
  await some.promise;
  const closed = proxy.server.close();
  grace.end();
  await closed;
  await cut;
  const folder = join(proxy.folder, 'spool');
  const spool = `${blob.digest.replace(':', '-')}.part`;
  t.deepEqual(await readdir(folder), [spool]);
  sameBytes(t, await readFile(join(folder, spool)), blob.bytes.subarray(0, 10_000));
  const next = await proxy.restart();
  sameBytes(t, (await next.ask(BLOB)).body, blob.bytes);
});

test('close ends a request that the upstream never answers', async (t) => {
  const wait = Promise.withResolvers<void>();
  t.teardown(wait.resolve);
  const upstream = await createScriptedUpstream(t, [{request: GET_MANIFEST, answer: {before: wait.promise}}]);
  const grace = createGraceClock();
  const proxy = await startBackref(t, {registries: [upstream], clock: grace.clock, ...withGrace});
  const unanswered = t.throwsAsync(proxy.ask(MANIFEST), {code: 'ECONNRESET'});
  await upstream.received(1);
  const closed = proxy.server.close();
  grace.end();
  await closed;
  await unanswered;
});

test('a server reports that it migrates a database of an older version before it listens', async (t) => {
  const folder = await createFolder(t);
  {
    using database = new DatabaseSync(join(folder, 'meta.db'));
    database.exec(MIGRATIONS[0]);
    database.exec(`pragma application_id = ${0x62726566}; pragma user_version = 1`);
  }
  const server = createServer(configOf({registries: [{}]}, folder, 0), {env: {}});
  t.teardown(() => server.close());
  const events: unknown[] = [];
  server.events.on('storage.migration', ({state, from, to}) =>
    events.push({state, from, to, listens: server.addresses.length > 0}),
  );
  await server.listen();
  const facts = {from: 1, to: MIGRATIONS.length, listens: false};
  t.deepEqual(events, [
    {state: 'begins', ...facts},
    {state: 'done', ...facts},
  ]);
});

test('close frees the port and the files', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET_MANIFEST, answer: manifestAnswer(image)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(MANIFEST);
  await proxy.server.close();
  const server = createTcpServer().listen(proxy.port, '127.0.0.1');
  await once(server, 'listening');
  server.close();
  const next = await startBackref(t, {registries: [upstream], folder: proxy.folder});
  sameBytes(t, (await next.ask(MANIFEST)).body, image.bytes);
});

test('a server that cannot be wired leaves nothing open that would keep its process alive', async (t) => {
  const cwd = await createFolder(t);
  const config = {...configOf({registries: []}, cwd, 0), cache: {memory: 'not a number'}};
  const program = `
    import {createServer} from ${JSON.stringify(new URL('../src/server.ts', import.meta.url).href)};
    const server = createServer(${JSON.stringify(config)});
    await server.commands().catch((error) => console.log(error.message));
  `;
  const command = startProgram(t, process.execPath, ['--eval', program], {cwd});
  t.is(await command.ended, 0);
  t.regex(command.printed().stdout, /maxSize/);
});

test('close may be called any number of times, at once and again', async (t) => {
  const proxy = await startBackref(t, {registries: [await createScriptedUpstream(t)]});
  await Promise.all([proxy.server.close(), proxy.server.close()]);
  await proxy.server.close();
  t.is(await refusal(proxy.port), 'ECONNREFUSED');
});

/** What a client sees of a proxy whose upstream leads back to it. */
async function assertRefused(t: ExecutionContext, proxy: Backref): Promise<void> {
  for (const path of [MANIFEST, `/v2/app/manifests/${image.digest}`, BLOB, '/v2/app/tags/list']) {
    const got = await proxy.ask(path);
    t.is(got.status, 508, path);
    t.like(got.json(), {errors: [{code: 'UNAVAILABLE'}]}, path);
    t.regex(got.body.toString(), /leads to this proxy/, path);
    t.is((await proxy.ask(path, {method: 'HEAD'})).status, 508, path);
  }
}

test('a server whose upstream leads back to it refuses its own request, and the client gets the error at once', async (t) => {
  const {url, leadTo} = await forwarder(t);
  const proxy = await startBackref(t, {registries: [{url}]});
  leadTo(proxy.port);
  let requests = 0;
  proxy.server.events.on('request.end', () => void requests++);
  t.is((await proxy.ask(MANIFEST)).status, 508);
  t.is(requests, 2);
  await assertRefused(t, proxy);
});

test('two servers whose upstreams are each other refuse such a request too', async (t) => {
  const {url, leadTo} = await forwarder(t);
  const second = await startBackref(t, {registries: [{url}]});
  const first = await startBackref(t, {registries: [{url: second.url, library: false}]});
  leadTo(first.port);
  await assertRefused(t, first);
});

test('in a chain of two, both add to Via, and what a client sent in Via is passed on', async (t) => {
  const VIA = /^1\.0 fred, 1\.1 backref-[\w-]+, 1\.1 backref-[\w-]+$/;
  const upstream = await createScriptedUpstream(t, [
    {request: GET_MANIFEST, sends: {via: VIA}, answer: manifestAnswer(image)},
    {request: GET_BLOB, sends: {via: VIA}, answer: {body: blob.bytes}},
    {
      request: 'GET /v2/library/app/tags/list?n=1000',
      sends: {via: VIA},
      answer: {body: '{"tags":["b","a"]}'},
    },
    {request: 'HEAD /v2/library/app/manifests/1', sends: {via: VIA}, answer: headAnswer(image)},
  ]);
  const inner = await startBackref(t, {registries: [upstream]});
  const outer = await startBackref(t, {registries: [{url: inner.url}]});
  const headers = {Via: '1.0 fred'};
  sameBytes(t, (await outer.ask(MANIFEST, {headers})).body, image.bytes);
  sameBytes(t, (await outer.ask(BLOB, {headers})).body, blob.bytes);
  t.deepEqual((await outer.ask('/v2/app/tags/list', {headers})).json(), {name: 'app', tags: ['a', 'b']});
  outer.clock.move(60_000);
  inner.clock.move(60_000);
  const revalidated = await outer.ask(MANIFEST, {headers});
  t.is(revalidated.headers['cache-status'], 'backref;fwd=stale;ttl=60;detail=unchanged');
});

test('a chain passes a miss on as what it is: 404 stays 404, a failure stays a failure', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET_MANIFEST, answer: {status: 404}},
    {request: GET_BLOB, answer: {status: 500}, always: true},
  ]);
  const inner = await startBackref(t, {registries: [upstream]});
  const outer = await startBackref(t, {registries: [{url: inner.url}]});
  t.is((await outer.ask(MANIFEST)).status, 404);
  t.is((await outer.ask(BLOB)).status, 503);
});
