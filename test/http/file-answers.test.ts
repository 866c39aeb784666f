import {once} from 'node:events';
import {rename, rm, truncate, writeFile} from 'node:fs/promises';
import {connect} from 'node:net';
import {join} from 'node:path';
import {setImmediate as nextTurn} from 'node:timers/promises';
import test, {type ExecutionContext} from 'ava';
import type {EventMap} from '../../src/events.ts';
import {type Backref, type BackrefOptions, LIMITS, startBackref} from '../support/backref.ts';
import {fileOf, get, openFiles, passedOn, pathOf, untilClosed} from '../support/blob-files.ts';
import {blobAnswer, type Content, randomBlob} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {pusherTo} from '../support/pusher.ts';
import {askRaw, openRaw} from '../support/raw-http.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const MIB = 2 ** 20;
const blob = randomBlob(3 * MIB + 17);
/** More than the system takes for a client that reads nothing: on Linux, up to 4 MiB to send and 32 MiB that have arrived. */
const large = randomBlob(40 * MIB);
/** A hosted registry with these blobs, each of which has been pulled once. */
async function start(
  t: ExecutionContext,
  contents: readonly Content[],
  config: BackrefOptions['config'] = {},
): Promise<Backref> {
  const proxy = await startBackref(t, {registries: [{}], config});
  for (const content of contents) {
    await pusherTo(proxy, 'app').blob(content);
    await askRaw(t, proxy.port, get(content));
  }
  return proxy;
}

const ends = async ({server}: Backref): Promise<EventMap['request.end'][0]> =>
  (await once(server.events, 'request.end'))[0];

for (const size of [MIB - 1, MIB, MIB + 1, 2 * MIB, 5 * MIB + 3])
  test(`a blob of ${size} bytes is given from its file, below node's HTTP server`, async (t) => {
    const content = randomBlob(size);
    const proxy = await start(t, [content], {cache: {memory: 64 * 1024}});
    const before = passedOn(content);
    const {send, answer} = await openRaw(t, proxy.port);
    for (let time = 0; time < 3; time += 1) {
      send(get(content));
      const given = await answer();
      t.true(given?.body.equals(content.bytes));
      t.is(given?.headers['content-length'], String(size));
      t.is(given?.headers['docker-content-digest'], content.digest);
    }
    t.is(passedOn(content), before);
    await untilClosed(proxy);
  });

test('HEAD, ranges, what is not known and conditions go the ordinary way', async (t) => {
  const blob = randomBlob(3 * MIB);
  const proxy = await start(t, [blob]);
  const before = passedOn(blob);
  const head = await askRaw(t, proxy.port, get(blob).replace('GET', 'HEAD'), 'HEAD');
  t.is(head?.headers['content-length'], String(blob.bytes.length));
  const part = await askRaw(t, proxy.port, get(blob, `Range: bytes=${MIB}-${2 * MIB}\r\n`));
  t.is(part?.status, 206);
  t.true(part?.body.equals(blob.bytes.subarray(MIB, 2 * MIB + 1)));
  t.true((await askRaw(t, proxy.port, get(blob, 'X-Nothing: 1\r\n')))?.body.equals(blob.bytes));
  t.is((await askRaw(t, proxy.port, get(blob, `If-None-Match: "${blob.digest}"\r\n`)))?.status, 304);
  t.is(passedOn(blob) - before, 4);
});

test('each HEAD looks whether the file of a blob is there', async (t) => {
  const blob = randomBlob(3 * MIB);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
    {request: `HEAD /v2/library/app/blobs/${blob.digest}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}]});
  await proxy.ask(pathOf(blob));
  await proxy.idle();
  const head = async () => (await askRaw(t, proxy.port, get(blob).replace('GET', 'HEAD'), 'HEAD'))?.status;
  t.deepEqual([await head(), await head()], [200, 200]);
  await rm(fileOf(proxy, blob));
  t.is(await head(), 404);
});

test('requests that come while an answer is given are answered after it', async (t) => {
  const other = randomBlob(2 * MIB);
  const proxy = await start(t, [large, other]);
  const {send, answer, socket} = await openRaw(t, proxy.port);
  socket.pause();
  const begun = once(proxy.server.events, 'request.start');
  send(get(large));
  await begun;
  send(get(other));
  await nextTurn();
  send(get(other, 'Range: bytes=0-9\r\n'));
  t.true((await answer())?.body.equals(large.bytes));
  t.true((await answer())?.body.equals(other.bytes));
  t.true((await answer())?.body.equals(other.bytes.subarray(0, 10)));
});

test('a client that ends its side after its request gets all of the answer, and the connection ends', async (t) => {
  const proxy = await start(t, [blob]);
  const {socket, answer} = await openRaw(t, proxy.port);
  socket.end(get(blob));
  t.true((await answer())?.body.equals(blob.bytes));
  t.is(await answer(), undefined);
});

test('a client that leaves is reported as aborted, with what it was sent, and nothing stays open', async (t) => {
  const proxy = await start(t, [large]);
  const {socket, send} = await openRaw(t, proxy.port);
  const ended = ends(proxy);
  socket.pause();
  const begun = once(proxy.server.events, 'request.start');
  send(get(large));
  await begun;
  socket.resetAndDestroy();
  const {outcome, reason, bytes, status} = await ended;
  t.deepEqual({outcome, reason, status}, {outcome: 'aborted', reason: undefined, status: 200});
  t.true(bytes < large.bytes.length);
  await untilClosed(proxy);
  t.true((await askRaw(t, proxy.port, get(large)))?.body.equals(large.bytes));
});

test('a client that is gone before anything is sent is reported as aborted, also where one write is all', async (t) => {
  const blob = randomBlob(MIB);
  const proxy = await start(t, [blob], {cache: {memory: 64 * 1024}});
  const {socket, send} = await openRaw(t, proxy.port);
  const ended = ends(proxy);
  proxy.server.events.once('request.start', () => resetAtOnce(socket));
  send(get(blob));
  t.is((await ended).outcome, 'aborted');
  await untilClosed(proxy);
});

test('a client that reads nothing is disconnected after the time that it has', async (t) => {
  const proxy = await startBackref(t, {registries: [{}], listener: {sendTimeout: 400}});
  await pusherTo(proxy, 'app').blob(large);
  await askRaw(t, proxy.port, get(large));
  const {socket, send} = await openRaw(t, proxy.port);
  socket.pause();
  const [stalled, ended] = [once(proxy.server.events, 'client.stalled'), ends(proxy)];
  send(get(large));
  t.is((await stalled)[0].ms, 400);
  t.is((await ended).outcome, 'aborted');
  await untilClosed(proxy);
});

test('an answer takes a place among the running requests until it has ended', async (t) => {
  const limits = {...LIMITS, requests: {...LIMITS.requests, perCaller: 1}};
  const proxy = await start(t, [large, blob], {limits});
  const slow = await openRaw(t, proxy.port);
  slow.socket.pause();
  const begun = once(proxy.server.events, 'request.start');
  slow.send(get(large));
  await begun;
  for (const fields of ['', 'X-Nothing: 1\r\n'])
    t.is((await askRaw(t, proxy.port, get(blob, fields)))?.status, 429);
  t.regex((await proxy.ask('/metrics')).body.toString(), /^backref_requests_in_flight 2$/m);
  t.true((await slow.answer())?.body.equals(large.bytes));
  t.true((await askRaw(t, proxy.port, get(blob)))?.body.equals(blob.bytes));
});

/** A socket's own part of Node, which has no public name for this. */
interface WithHandle {
  readonly _handle: {reset(ended: () => void): number};
}

/** Resets a connection before this returns. */
const resetAtOnce = (socket: object): void => void (socket as WithHandle)._handle.reset(() => {});

/** Begins an answer to a client that reads nothing yet. */
async function begin(t: ExecutionContext, proxy: Backref) {
  const slow = await openRaw(t, proxy.port);
  slow.socket.pause();
  const begun = once(proxy.server.events, 'request.start');
  slow.send(get(large));
  await begun;
  return slow;
}

test('a deletion ends what is given, and not an answer that has begun', async (t) => {
  const proxy = await start(t, [large]);
  const slow = await begin(t, proxy);
  t.is((await proxy.ask(pathOf(large), {method: 'DELETE'})).status, 202);
  t.is((await askRaw(t, proxy.port, get(large)))?.status, 404);
  t.true((await slow.answer())?.body.equals(large.bytes));
  slow.send(get(large));
  t.is((await slow.answer())?.status, 404);
  await pusherTo(proxy, 'app').blob(large);
  t.true((await askRaw(t, proxy.port, get(large)))?.body.equals(large.bytes));
});

test('rules that change hold for the next request', async (t) => {
  const proxy = await start(t, [large]);
  const slow = await begin(t, proxy);
  proxy.reload({config: {access: {rules: []}}});
  t.is((await askRaw(t, proxy.port, get(large)))?.status, 403);
  t.true((await slow.answer())?.body.equals(large.bytes));
  slow.send(get(large));
  t.is((await slow.answer())?.status, 403);
});

const BEHIND: [title: string, change: (path: string) => Promise<void>][] = [
  ['removed', (path) => rm(path)],
  ['cut short', (path) => truncate(path, MIB)],
  ['emptied', (path) => truncate(path, 0)],
  ['replaced by a longer one', (path) => writeFile(path, Buffer.alloc(blob.bytes.length + 1))],
];
for (const [title, change] of BEHIND) {
  test(`a file that was ${title} behind the server's back is left to the ordinary way`, async (t) => {
    const [proxy, other] = [await start(t, [blob]), await start(t, [blob])];
    for (const one of [proxy, other]) await change(fileOf(one, blob));
    const front = await openRaw(t, proxy.port);
    front.send(get(blob));
    const ordinary = await askRaw(t, other.port, get(blob, 'X-Nothing: 1\r\n'));
    const answer = await front.answer();
    t.is(answer?.status, ordinary?.status);
    t.not(answer?.status, 200);
    // A push of the blob repairs it.
    await pusherTo(proxy, 'app').blob(blob);
    for (let time = 0; time < 3; time += 1)
      t.true((await askRaw(t, proxy.port, get(blob)))?.body.equals(blob.bytes));
    await untilClosed(proxy);
  });
}

test('a file that a person has replaced by a sound one is read anew, also while the one before is being given', async (t) => {
  const proxy = await start(t, [large]);
  const path = fileOf(proxy, large);
  const damaged = Buffer.alloc(large.bytes.length, 1);
  await writeFile(`${path}.1`, damaged);
  await rename(`${path}.1`, path);
  const slow = await begin(t, proxy);
  await writeFile(`${path}.2`, large.bytes);
  await rename(`${path}.2`, path);
  t.true((await askRaw(t, proxy.port, get(large)))?.body.equals(large.bytes));
  t.true((await slow.answer())?.body.equals(damaged));
});

test('the connection of a client that has ended its side ends as well where the ordinary way answers', async (t) => {
  const proxy = await start(t, [blob]);
  await rm(fileOf(proxy, blob));
  const {socket, answer} = await openRaw(t, proxy.port);
  socket.end(get(blob));
  t.not((await answer())?.status, 200);
  t.is(await answer(), undefined);
});

test('a file that is cut short while it is given ends the connection, and the failure is reported', async (t) => {
  const proxy = await start(t, [large]);
  const slow = await begin(t, proxy);
  const [ended, fault] = [ends(proxy), once(proxy.server.events, 'request.fault')];
  await truncate(fileOf(proxy, large), MIB);
  const answer = await slow.answer();
  t.false(answer?.isWhole);
  t.true(large.bytes.subarray(0, answer?.body.length).equals(answer?.body ?? Buffer.of(0)));
  t.regex((await fault)[0].error.message, /^the file ended at byte/);
  t.is((await ended).outcome, 'aborted');
  t.not((await askRaw(t, proxy.port, get(large)))?.status, 200);
  await untilClosed(proxy);
});

test('a server that closes lets an answer end within its grace', async (t) => {
  const proxy = await start(t, [large], {shutdown: {grace: 30_000}});
  const slow = await begin(t, proxy);
  const closed = proxy.server.close();
  await nextTurn();
  t.true((await slow.answer())?.body.equals(large.bytes));
  t.is(await slow.answer(), undefined);
  await closed;
  t.is(await openFiles(proxy), 0);
});

test('a server that closes cuts an answer after its grace', async (t) => {
  const proxy = await start(t, [large], {shutdown: {grace: 50}});
  const slow = await begin(t, proxy);
  const ended = ends(proxy);
  await proxy.server.close();
  t.is((await ended).outcome, 'aborted');
  t.false((await slow.answer())?.isWhole);
  await untilClosed(proxy);
});

test('behind a Unix socket', async (t) => {
  const blob = randomBlob(3 * MIB);
  const socket = join(await createFolder(t), 'backref.sock');
  const other = {
    address: {socket, socketMode: 0o600},
    ...{serve: 'main' as const, tls: undefined, sendTimeout: 60_000, trustedProxies: []},
  };
  const proxy = await startBackref(t, {registries: [{}], otherListeners: [other]});
  await pusherTo(proxy, 'app').blob(blob);
  const ask = async () => {
    const client = connect(socket);
    client.write(get(blob));
    let answer: Buffer = Buffer.alloc(0);
    for await (const bytes of client) {
      answer = Buffer.concat([answer, bytes]);
      if (answer.length > blob.bytes.length && answer.subarray(-blob.bytes.length).equals(blob.bytes)) break;
    }
    return answer.subarray(0, 12).toString();
  };
  t.is(await ask(), 'HTTP/1.1 200');
  const before = passedOn(blob);
  t.is(await ask(), 'HTTP/1.1 200');
  t.is(passedOn(blob), before);
});
