import {once} from 'node:events';
import {rm, truncate} from 'node:fs/promises';
import {setImmediate as nextTurn} from 'node:timers/promises';
import {connect as connectTls} from 'node:tls';
import test, {type ExecutionContext} from 'ava';
import type {EventMap} from '../../src/events.ts';
import {type Backref, type BackrefOptions, LIMITS, startBackref} from '../support/backref.ts';
import {fileOf, get, passedOn, pathOf, untilClosed} from '../support/blob-files.ts';
import {AUTHORITY} from '../support/certificates.ts';
import {blobAnswer, type Content, randomBlob} from '../support/content.ts';
import {pusherTo} from '../support/pusher.ts';
import {openRaw, overSocket, type RawConnection} from '../support/raw-http.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {writeTls} from '../support/tls-files.ts';

const MIB = 2 ** 20;
/** So many connections that no thread of two is left without one. */
const MANY = 16;
interface Started {
  proxy: Backref;
  /** Of every thread, each of which has the prepared answer. Nothing was sent on them yet, so that they buffer little. */
  connections: RawConnection[];
}

/** A hosted registry with a blob, and two threads that give it from its file. */
async function start(
  t: ExecutionContext,
  content: Content,
  {config, ...options}: Partial<BackrefOptions> = {},
): Promise<Started> {
  const proxy = await startBackref(t, {registries: [{}], ...options, config: {workers: 2, ...config}});
  await pusherTo(proxy, 'app').blob(content);
  return {proxy, connections: await open(t, proxy, content)};
}

async function open(t: ExecutionContext, {port}: Backref, content: Content): Promise<RawConnection[]> {
  for (let time = 0; time < MANY; time += 1) {
    const {send, answer, socket} = await openRaw(t, port);
    send(get(content));
    t.true((await answer())?.body.equals(content.bytes));
    socket.destroy();
  }
  return Promise.all(Array.from({length: MANY}, () => openRaw(t, port)));
}

const askAll = (connections: readonly RawConnection[], content: Content) =>
  Promise.all(
    connections.map(async ({send, answer}) => {
      send(get(content));
      return answer();
    }),
  );

/** Has every client begin to get an answer, of which it reads nothing yet. */
async function beginAll({proxy, connections}: Started, content: Content): Promise<void> {
  let count = 0;
  const all = Promise.withResolvers<void>();
  const heard = () => {
    count += 1;
    if (count === connections.length) all.resolve();
  };
  proxy.server.events.on('request.start', heard);
  for (const {socket, send} of connections) {
    socket.pause();
    send(get(content));
  }
  await all.promise;
  proxy.server.events.off('request.start', heard);
}

test.serial('every thread gives a blob from its file, and the owner counts all', async (t) => {
  const content = randomBlob(5 * MIB + 1);
  const {proxy, connections} = await start(t, content);
  const before = passedOn(content);
  for (let time = 0; time < 3; time += 1)
    for (const answer of await askAll(connections, content)) {
      t.true(answer?.body.equals(content.bytes));
      t.is(answer?.headers['cache-status'], 'backref;hit');
    }
  t.is(passedOn(content), before);
  const metrics = (await proxy.ask('/metrics')).body.toString();
  const served = /^backref_served_total\{kind="blob",registry="docker.io",outcome="hit"\} (\d+)$/m;
  t.is(Number(served.exec(metrics)?.[1]), 4 * MANY);
  t.regex(metrics, /^backref_requests_in_flight 1$/m);
  await untilClosed(proxy);
});

test.serial('what the owner has answered on a connection is counted once', async (t) => {
  const content = randomBlob(2 * MIB);
  const {proxy, connections} = await start(t, content);
  const counted: number[] = [];
  proxy.server.events.on('request.end', ({bytes}) => void counted.push(bytes));
  for (const {send, answer} of connections)
    for (const fields of ['', 'X-Nothing: 1\r\n', '', 'X-Nothing: 1\r\n', '']) {
      send(get(content, fields));
      t.true((await answer())?.body.equals(content.bytes));
    }
  while (counted.length < 5 * MANY) await nextTurn();
  t.true(counted.every((bytes) => bytes > content.bytes.length && bytes < content.bytes.length + 1024));
});

test.serial('a deletion and other rules hold for the next request of every thread', async (t) => {
  const content = randomBlob(2 * MIB);
  const {proxy, connections} = await start(t, content);
  const statuses = async () => new Set((await askAll(connections, content)).map((answer) => answer?.status));
  t.deepEqual(await statuses(), new Set([200]));
  proxy.reload({config: {workers: 2, access: {rules: []}}});
  t.deepEqual(await statuses(), new Set([403]));
  proxy.reload({config: {workers: 2}});
  t.deepEqual(await statuses(), new Set([200]));
  t.is((await proxy.ask(pathOf(content), {method: 'DELETE'})).status, 202);
  t.deepEqual(await statuses(), new Set([404]));
  await pusherTo(proxy, 'app').blob(content);
  for (let time = 0; time < 2; time += 1)
    t.true((await askAll(connections, content)).every((answer) => answer?.body.equals(content.bytes)));
  await untilClosed(proxy);
});

test.serial('a deletion does not end an answer that has begun', async (t) => {
  const content = randomBlob(16 * MIB);
  const started = await start(t, content);
  await beginAll(started, content);
  t.is((await started.proxy.ask(pathOf(content), {method: 'DELETE'})).status, 202);
  for (const {answer} of started.connections) t.true((await answer())?.body.equals(content.bytes));
  await untilClosed(started.proxy);
});

test.serial('answers of all threads take places among the running requests', async (t) => {
  const content = randomBlob(16 * MIB);
  const limits = {...LIMITS, requests: {...LIMITS.requests, perCaller: MANY}};
  const started = await start(t, content, {config: {limits}});
  const further = await openRaw(t, started.proxy.port);
  await beginAll(started, content);
  for (const text of [get(content), get(content), get(content, 'X-Nothing: 1\r\n')]) {
    further.send(text);
    t.is((await further.answer())?.status, 429);
  }
  for (const {answer} of started.connections) t.true((await answer())?.body.equals(content.bytes));
  further.send(get(content));
  t.is((await further.answer())?.status, 200);
});

test.serial('clients that leave are reported as aborted, and nothing stays open', async (t) => {
  const content = randomBlob(16 * MIB);
  const started = await start(t, content);
  const {proxy, connections} = started;
  await beginAll(started, content);
  const ended: EventMap['request.end'][0][] = [];
  proxy.server.events.on('request.end', (end) => void ended.push(end));
  for (const {socket} of connections) socket.resetAndDestroy();
  while (ended.length < MANY) await nextTurn();
  t.true(ended.every(({outcome, bytes, ms}) => outcome === 'aborted' && bytes > 0 && ms >= 0));
  await untilClosed(proxy);
});

test.serial('clients that read nothing are disconnected', async (t) => {
  const content = randomBlob(16 * MIB);
  const started = await start(t, content, {listener: {sendTimeout: 400}});
  let stalled = 0;
  started.proxy.server.events.on('client.stalled', () => {
    stalled += 1;
  });
  await beginAll(started, content);
  while (stalled < MANY) await nextTurn();
  await untilClosed(started.proxy);
  t.is(stalled, MANY);
});

test.serial(
  'a file that was removed is fetched again, and one that is cut short ends the connection',
  async (t) => {
    const content = randomBlob(16 * MIB);
    const upstream = await createScriptedUpstream(t, [
      {request: `GET /v2/library/app/blobs/${content.digest}`, answer: blobAnswer(content), always: true},
    ]);
    const proxy = await startBackref(t, {registries: [{url: upstream.url}], config: {workers: 2}});
    await proxy.ask(pathOf(content));
    await proxy.idle();
    const before = await open(t, proxy, content);
    await rm(fileOf(proxy, content));
    for (const answer of await askAll(before, content)) t.true(answer?.body.equals(content.bytes));
    await proxy.idle();
    const connections = await open(t, proxy, content);
    const faults: unknown[] = [];
    proxy.server.events.on('request.fault', ({error}) => void faults.push(error));
    await beginAll({proxy, connections}, content);
    await truncate(fileOf(proxy, content), 0);
    for (const {answer} of connections) t.false((await answer())?.isWhole);
    while (faults.length < MANY) await nextTurn();
    for (const fault of faults)
      t.regex(fault instanceof Error ? fault.message : '', /^the file ended at byte/);
    await untilClosed(proxy);
  },
);

test.serial('a server that closes lets answers of every thread end within its grace', async (t) => {
  const content = randomBlob(16 * MIB);
  const started = await start(t, content, {config: {shutdown: {grace: 30_000}}});
  const {proxy, connections} = started;
  let ended = 0;
  await beginAll(started, content);
  proxy.server.events.on('request.end', ({outcome}) => {
    if (outcome === 'hit') ended += 1;
  });
  const closed = proxy.server.close();
  await nextTurn();
  for (const {answer} of connections) {
    t.true((await answer())?.body.equals(content.bytes));
    t.is(await answer(), undefined);
  }
  await closed;
  t.is(ended, MANY);
});

test.serial('a server that closes cuts the answers that are left after its grace', async (t) => {
  const content = randomBlob(16 * MIB);
  const started = await start(t, content, {config: {shutdown: {grace: 50}}});
  let ended = 0;
  await beginAll(started, content);
  started.proxy.server.events.on('request.end', ({outcome}) => {
    if (outcome === 'aborted') ended += 1;
  });
  await started.proxy.server.close();
  for (const {answer} of started.connections) t.false((await answer())?.isWhole);
  while (ended < MANY) await nextTurn();
  await untilClosed(started.proxy);
  t.is(ended, MANY);
});

test.serial('over TLS', async (t) => {
  const content = randomBlob(3 * MIB + 5);
  const {paths: tls} = await writeTls(t);
  const proxy = await startBackref(t, {
    registries: [{url: (await upstreamOf(t, content)).url}],
    listener: {tls},
    config: {workers: 2},
  });
  const ask = async () => {
    const socket = connectTls({host: '127.0.0.1', port: proxy.port, ca: AUTHORITY});
    t.teardown(() => socket.destroy());
    await once(socket, 'secureConnect');
    const {send, answer} = overSocket(socket);
    for (let time = 0; time < 3; time += 1) {
      send(get(content));
      const given = await answer();
      t.is(given?.status, 200);
      t.true(given?.body.equals(content.bytes));
    }
  };
  await ask();
  await proxy.idle();
  await Promise.all(Array.from({length: 6}, ask));
  await untilClosed(proxy);
});

const upstreamOf = (t: ExecutionContext, content: Content) =>
  createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${content.digest}`, answer: blobAnswer(content)},
  ]);
