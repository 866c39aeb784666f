import {once} from 'node:events';
import {connect, type Socket} from 'node:net';
import test from 'ava';
import type {Clock} from '../../src/clock.ts';
import {createMovableClock, LIMITS, startBackref} from '../support/backref.ts';
import {imageManifest, manifestAnswer} from '../support/content.ts';
import {nodeServerAt} from '../support/node-servers.ts';
import {openRaw} from '../support/raw-http.ts';
import {createScriptedUpstream, HANG} from '../support/scripted-upstream.ts';

const HOST = 'Host: 127.0.0.1\r\n';
const CONNECT = `CONNECT example.com:443 HTTP/1.1\r\n${HOST}\r\n`;
const UPGRADE = `GET /v2/ HTTP/1.1\r\n${HOST}Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
const image = imageManifest();

const reset = async (socket: Socket): Promise<void> => {
  const closed = once(socket, 'close');
  socket.resetAndDestroy();
  await closed;
};

for (const [what, text] of [
  ['CONNECT', CONNECT],
  ['an upgrade', UPGRADE],
  ['half a request', `GET /v2/ HTTP/1.1\r\nHo`],
  ['no request at all', 'nonsense\r\n\r\n'],
] as const) {
  test(`the server survives a reset right after ${what}`, async (t) => {
    const proxy = await startBackref(t, {registries: [{}]});
    for (let count = 0; count < 20; count++) {
      const {socket, send} = await openRaw(t, proxy.port);
      send(text);
      await reset(socket);
    }
    t.is((await proxy.ask('/v2/')).status, 200);
  });
}

test('the server survives a reset after its answer to CONNECT', async (t) => {
  const proxy = await startBackref(t, {registries: [{}]});
  const {socket, send} = await openRaw(t, proxy.port);
  send(CONNECT);
  await once(socket, 'readable');
  await reset(socket);
  t.is((await proxy.ask('/v2/')).status, 200);
});

for (const [what, text] of [
  ['CONNECT', CONNECT],
  ['garbage', 'garbage\r\n\r\n'],
] as const) {
  test(`the refusal of ${what} after a request that is not answered yet is not sent as its answer`, async (t) => {
    const wait = Promise.withResolvers<void>();
    t.teardown(wait.resolve);
    const upstream = await createScriptedUpstream(t, [
      {
        request: 'GET /v2/library/app/manifests/1',
        answer: {...manifestAnswer(image), before: wait.promise},
      },
    ]);
    const proxy = await startBackref(t, {registries: [upstream]});
    const {send, answer} = await openRaw(t, proxy.port);
    send(`GET /v2/app/manifests/1 HTTP/1.1\r\n${HOST}\r\n${text}`);
    t.is(await answer(), undefined);
  });
}

test('a client that keeps the connection of its CONNECT is cut off after 5 s', async (t) => {
  const clock = createMovableClock();
  const timeouts: (() => void)[] = [];
  const after: Clock['after'] = (ms, call) => {
    if (ms !== 5000) return clock.after(ms, call);
    timeouts.push(call);
    return () => {};
  };
  const proxy = await startBackref(t, {registries: [{}], clock: {...clock, after}});
  const socket = connect({port: proxy.port, host: '127.0.0.1', allowHalfOpen: true});
  t.teardown(() => socket.destroy());
  const failed = new Promise<NodeJS.ErrnoException>((resolve) => socket.once('error', resolve));
  // What the server looks at every five seconds by itself is not of interest.
  timeouts.length = 0;
  socket.resume().write(CONNECT);
  await once(socket, 'end');
  t.is(timeouts.length, 1);
  for (const over of timeouts) over();
  // Only a write to a connection that the other side has dropped reveals that.
  while (!socket.destroyed) {
    socket.write('further bytes');
    await new Promise(setImmediate);
  }
  t.regex((await failed).code ?? '', /^(ECONNRESET|EPIPE)$/);
});

test('a failure to accept connections is reported, not fatal', async (t) => {
  const proxy = await startBackref(t, {registries: [{}]});
  const heard: string[] = [];
  proxy.server.events.on('listener.failed', ({error}) => heard.push(error.message));
  const server = await nodeServerAt({port: proxy.port});
  const error = Object.assign(new Error('accept EMFILE'), {code: 'EMFILE', syscall: 'accept'});
  for (let count = 0; count < 100; count++) server.emit('error', error);
  t.deepEqual(heard, ['accept EMFILE']);
  t.is((await proxy.ask('/v2/')).status, 200);
  t.regex((await proxy.ask('/metrics')).body.toString(), /^backref_listener_failures_total 1$/m);
});

test('a pipelined request begins when the one before it is answered, and never once its connection is gone', async (t) => {
  const wait = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/1', answer: {...manifestAnswer(image), before: wait.promise}},
    {request: 'GET /v2/library/app/manifests/2', answer: {before: HANG}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], config: {shutdown: {grace: 50}}});
  const begun: string[] = [];
  proxy.server.events.on('request.start', ({url}) => begun.push(url));
  const paths = [1, 2, 3].map((tag) => `/v2/app/manifests/${tag}`);
  const {socket, send, answer} = await openRaw(t, proxy.port);
  send(paths.map((path) => `GET ${path} HTTP/1.1\r\n${HOST}\r\n`).join(''));
  await upstream.received(1);
  t.deepEqual(begun, paths.slice(0, 1));
  wait.resolve();
  t.is((await answer())?.status, 200);
  await upstream.received(2);
  const ended = once(proxy.server.events, 'request.end');
  await reset(socket);
  await ended;
  t.deepEqual(begun, paths.slice(0, 2));
});

const GET_PING = `GET /v2/ HTTP/1.1\r\n${HOST}\r\n`;
const GET_SLOW = `GET /v2/app/manifests/1 HTTP/1.1\r\n${HOST}\r\n`;

for (const [limit, requests, count] of [
  ['pipelined', {total: 1000, perCaller: 1000, pipelined: 50}, 50],
  ['total', {total: 20, perCaller: 20, pipelined: 50}, 21],
] as const) {
  test(`a client whose requests wait for answers is cut off with one more than limits.requests.${limit} allows`, async (t) => {
    const {promise: before, resolve: release} = Promise.withResolvers<void>();
    t.teardown(release);
    const upstream = await createScriptedUpstream(t, [
      {
        request: 'GET /v2/library/app/manifests/1',
        answer: {...manifestAnswer(image), before},
        optional: true,
      },
    ]);
    const config = {limits: {...LIMITS, requests}, shutdown: {grace: 50}};
    const proxy = await startBackref(t, {registries: [upstream], config});
    const [allowed, tooMany] = [await openRaw(t, proxy.port), await openRaw(t, proxy.port)];
    const exceeded = once(proxy.server.events, 'limit.exceeded');
    tooMany.send(GET_SLOW + GET_PING.repeat(count));
    t.is(await tooMany.answer(), undefined);
    t.like(await exceeded, [{limit: `limits.requests.${limit}`, client: '127.0.0.1'}]);
    // Those that waited for the client that was cut off wait no longer.
    allowed.send(GET_SLOW + GET_PING.repeat(count - 1));
    await upstream.received(1);
    release();
    for (let index = 0; index < count; index++) t.is((await allowed.answer())?.status, 200);
  });
}
