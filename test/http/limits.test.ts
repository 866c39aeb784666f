import {createHash} from 'node:crypto';
import {once} from 'node:events';
import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../src/caller.ts';
import type {Config} from '../../src/config.ts';
import {createEvents} from '../../src/events.ts';
import {createLimits, holderOf, networkOf} from '../../src/http/limits.ts';
import {OciError} from '../../src/oci/errors.ts';
import {type Backref, createMovableClock, LIMITS, startBackref} from '../support/backref.ts';
import {imageManifest, manifestAnswer} from '../support/content.ts';
import {errorOf} from '../support/pusher.ts';
import {openRaw} from '../support/raw-http.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const HOST = 'Host: 127.0.0.1\r\n';
const image = imageManifest();
const from = (address: string) => ({headers: {'x-forwarded-for': address}});
const TAG = '/v2/app/manifests/slow';

/** A server behind a trusted proxy, whose clients wait for the tag `slow` until `release` is called. */
async function startSlow(
  t: ExecutionContext,
  limits: Partial<Config['limits']>,
  access: Partial<Config['access']> = {},
) {
  const {promise: before, resolve: release} = Promise.withResolvers<void>();
  t.teardown(release);
  const upstream = await createScriptedUpstream(t, [
    {
      request: 'GET /v2/library/app/manifests/slow',
      answer: {...manifestAnswer(image), before},
      optional: true,
    },
  ]);
  const config = {limits: {...LIMITS, ...limits}, access, shutdown: {grace: 50}};
  const proxy = await startBackref(t, {
    registries: [upstream, {}],
    config,
    trustedProxies: ['127.0.0.1'],
  });
  /** Begins requests, and resolves when all of them run. */
  async function begin(count: number, address = '192.0.2.1') {
    const answers: ReturnType<Backref['ask']>[] = [];
    for (let index = 0; index < count; index++) {
      const started = once(proxy.server.events, 'request.start');
      answers.push(proxy.ask(TAG, from(address)));
      await started;
    }
    // The door is reached in the same turn as the start.
    await new Promise(setImmediate);
    return answers;
  }
  return {proxy, begin, release};
}

const refusals = async ({ask}: Backref): Promise<string[]> => {
  const {body} = await ask('/metrics');
  return [...body.toString().matchAll(/^backref_refused_total\{limit="(.*)"\} (.*)$/gm)].map(
    ([, limit, count]) => `${limit} ${count}`,
  );
};

test('requests in total: the last one allowed is served, and the next one is 503 with Retry-After', async (t) => {
  const {proxy, begin, release} = await startSlow(t, {requests: {total: 2, perCaller: 9, pipelined: 9}});
  const running = await begin(2);
  const refused = await proxy.ask('/v2/', from('192.0.2.9'));
  t.is(refused.status, 503);
  t.is(refused.headers['retry-after'], '5');
  t.like(errorOf(refused), {
    code: 'TOOMANYREQUESTS',
    message:
      'this server has 2 requests at the same time, which is the most that limits.requests.total allows: try again in 5 s, or raise the limit',
  });
  t.is(errorOf(refused).detail?.['limit'], 'limits.requests.total');
  t.deepEqual(await refusals(proxy), ['limits.requests.total 1']);
  release();
  for (const answer of running) t.is((await answer).status, 200);
  t.is((await proxy.ask('/v2/')).status, 200);
});

test('requests per caller: the one too many of an address is 429, and other addresses are served', async (t) => {
  const {proxy, begin, release} = await startSlow(t, {requests: {total: 9, perCaller: 2, pipelined: 9}});
  const running = await begin(2);
  const refused = await proxy.ask('/v2/', from('192.0.2.1'));
  t.is(refused.status, 429);
  t.is(refused.headers['retry-after'], '5');
  t.regex(errorOf(refused).message, /^192\.0\.2\.1 has 2 requests .* limits\.requests\.perCaller allows/);
  t.is((await proxy.ask('/v2/', from('192.0.2.2'))).status, 200);
  t.deepEqual(await refusals(proxy), ['limits.requests.perCaller 1']);
  release();
  for (const answer of running) t.is((await answer).status, 200);
  t.is((await proxy.ask('/v2/', from('192.0.2.1'))).status, 200);
});

test('a client cannot evade the limit by a made-up address: without a trusted proxy its own one counts', async (t) => {
  const limits = {...LIMITS, requests: {total: 9, perCaller: 1, pipelined: 9}};
  const {promise: before, resolve: release} = Promise.withResolvers<void>();
  t.teardown(release);
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/slow', answer: {...manifestAnswer(image), before}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], config: {limits}});
  const running = proxy.ask(TAG, from('192.0.2.1'));
  await upstream.received(1);
  t.is((await proxy.ask('/v2/', from('192.0.2.2'))).status, 429);
  release();
  t.is((await running).status, 200);
});

test('probes are answered while the limits of requests are reached', async (t) => {
  const {proxy, begin, release} = await startSlow(t, {requests: {total: 1, perCaller: 1, pipelined: 9}});
  const running = await begin(1);
  for (const path of ['/healthz', '/readyz', '/metrics'])
    t.is((await proxy.ask(path, from('192.0.2.1'))).status, 200);
  t.is((await proxy.ask('/v2/', from('192.0.2.1'))).status, 503);
  release();
  await Promise.all(running);
});

test('unfinished uploads: a caller begins no more than it may, until one has ended, and others do', async (t) => {
  const rules = [{who: ['*'], where: ['**'], may: ['push' as const, 'admin' as const]}];
  const {proxy} = await startSlow(t, {uploads: {total: 9, perCaller: 9, unfinished: 2}}, {rules});
  const path = '/v2/app/blobs/uploads/?ns=registry-1.example';
  const begin = (address: string) => proxy.ask(path, {method: 'POST', ...from(address)});
  const body = Buffer.from('a blob');
  const digest = `sha256:${createHash('sha256').update(body).digest('hex')}`;
  const begun = await Promise.all([1, 2, 3, 4].map(() => begin('192.0.2.1')));
  const refused = begun.filter(({status}) => status === 429);
  const locations = begun.filter(({status}) => status === 202).map(({headers}) => String(headers.location));
  t.is(refused.length, 2, 'in parallel as well');
  for (const answer of refused) {
    t.is(answer.headers['retry-after'], '60');
    t.regex(errorOf(answer).message, /^192\.0\.2\.1 has 2 uploads that have begun and not ended/);
    t.is(errorOf(answer).detail?.['limit'], 'limits.uploads.unfinished');
  }
  t.deepEqual(await refusals(proxy), ['limits.uploads.unfinished 2']);
  t.is((await begin('192.0.2.2')).status, 202);
  const whole = `${path}&digest=${digest}`;
  t.is((await proxy.ask(whole, {method: 'POST', body, ...from('192.0.2.1')})).status, 429);
  const [one = '', other = ''] = locations;
  t.is((await proxy.ask(`${one}&digest=${digest}`, {method: 'PUT', body})).status, 201);
  t.is((await begin('192.0.2.1')).status, 202);
  t.is((await begin('192.0.2.1')).status, 429);
  t.is((await proxy.ask(other, {method: 'DELETE'})).status, 204);
  t.is((await proxy.ask(whole, {method: 'POST', body, ...from('192.0.2.1')})).status, 201);
  t.is((await begin('192.0.2.1')).status, 202, 'a whole blob in one request has ended with it');
});

test('unfinished uploads: an upstream is not asked to begin one too many', async (t) => {
  const answer = {status: 202, headers: {Location: '/v2/app/blobs/uploads/1', Range: '0-0'}};
  const upstream = await createScriptedUpstream(t, [{request: 'POST /v2/app/blobs/uploads/', answer}]);
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, library: false, push: 'through'}],
    config: {limits: {...LIMITS, uploads: {total: 9, perCaller: 9, unfinished: 1}}},
  });
  const begin = () => proxy.ask('/v2/app/blobs/uploads/', {method: 'POST'});
  t.is((await begin()).status, 202);
  const refused = await begin();
  t.is(refused.status, 429);
  t.is(errorOf(refused).detail?.['limit'], 'limits.uploads.unfinished');
  t.is(upstream.requests.length, 1);
});

test('uploads per caller: one too many is 429, while its other requests are served', async (t) => {
  const {proxy} = await startSlow(t, {uploads: {total: 9, perCaller: 1, unfinished: 9}});
  const path = '/v2/app/blobs/uploads/?ns=registry-1.example';
  const post = () => proxy.ask(path, {method: 'POST'});
  const location = String((await post()).headers.location);
  const {send, socket, answer} = await openRaw(t, proxy.port);
  const started = once(proxy.server.events, 'request.start');
  send(`PATCH ${location} HTTP/1.1\r\n${HOST}Content-Length: 10\r\n\r\nhello`);
  await started;
  await new Promise(setImmediate);
  const refused = await post();
  t.is(refused.status, 429);
  t.is(errorOf(refused).detail?.['limit'], 'limits.uploads.perCaller');
  t.is((await proxy.ask('/v2/')).status, 200);
  // Another client is not allowed to push, but it is not one too many.
  t.is((await proxy.ask(path, {method: 'POST', ...from('192.0.2.2')})).status, 403);
  send('world');
  t.is((await answer('PATCH'))?.status, 202);
  socket.destroy();
  t.is((await post()).status, 202);
});

test('uploads in total: one too many is 503', async (t) => {
  const {proxy} = await startSlow(t, {uploads: {total: 1, perCaller: 1, unfinished: 9}});
  const path = '/v2/app/blobs/uploads/?ns=registry-1.example';
  const location = String((await proxy.ask(path, {method: 'POST'})).headers.location);
  const {send} = await openRaw(t, proxy.port);
  const started = once(proxy.server.events, 'request.start');
  send(`PATCH ${location} HTTP/1.1\r\n${HOST}Content-Length: 10\r\n\r\nhello`);
  await started;
  await new Promise(setImmediate);
  const refused = await proxy.ask(path, {method: 'POST', ...from('192.0.2.2')});
  t.is(refused.status, 503);
  t.is(errorOf(refused).detail?.['limit'], 'limits.uploads.total');
});

test('clients that vanish leave no request counted', async (t) => {
  const {proxy, begin, release} = await startSlow(t, {requests: {total: 20, perCaller: 20, pipelined: 9}});
  for (let round = 0; round < 3; round++) {
    for (let count = 0; count < 20; count++) {
      const {send, socket} = await openRaw(t, proxy.port);
      const started = once(proxy.server.events, 'request.start');
      send(`GET ${TAG} HTTP/1.1\r\n${HOST}\r\n`);
      await started;
      const ended = once(proxy.server.events, 'request.end');
      socket.resetAndDestroy();
      await ended;
    }
  }
  const running = await begin(20);
  t.is((await proxy.ask('/v2/')).status, 503);
  release();
  for (const answer of running) t.is((await answer).status, 200);
  t.deepEqual(await refusals(proxy), ['limits.requests.total 1']);
});

test('pipelined requests run one after the other, so they take one place', async (t) => {
  const {proxy} = await startSlow(t, {requests: {total: 2, perCaller: 1, pipelined: 9}});
  const {send, answer} = await openRaw(t, proxy.port);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}\r\n`.repeat(3));
  for (let count = 0; count < 3; count++) t.is((await answer())?.status, 200);
});

test('a reload changes the limits at once, and what runs stays counted', async (t) => {
  const {proxy, begin, release} = await startSlow(t, {requests: {total: 1, perCaller: 9, pipelined: 9}});
  const running = await begin(1);
  const withTotal = (total: number) => {
    const {left} = proxy.reload({
      config: {limits: {...LIMITS, requests: {total, perCaller: 9, pipelined: 9}}},
    });
    t.deepEqual(left, []);
  };
  t.is((await proxy.ask('/v2/')).status, 503);
  withTotal(2);
  t.is((await proxy.ask('/v2/')).status, 200);
  running.push(...(await begin(1)));
  t.is((await proxy.ask('/v2/')).status, 503);
  withTotal(1);
  t.is((await proxy.ask('/v2/')).status, 503);
  release();
  for (const answer of running) t.is((await answer).status, 200);
  t.is((await proxy.ask('/v2/')).status, 200);
});

test('a limit that refuses clients is counted each time, and logged once a minute', (t) => {
  const clock = createMovableClock();
  const events = createEvents();
  const limits = createLimits(LIMITS, {clock, events});
  const counted: string[] = [];
  const logged: string[] = [];
  events.on('limit.exceeded', ({limit, client}) => void counted.push(`${limit} ${client}`));
  events.on('limit.reached', ({reason}) => void logged.push(reason));
  const refuse = (limit: string) =>
    limits.report(new OciError('TOOMANYREQUESTS', {limit, message: `by ${limit}`}), '192.0.2.1');
  refuse('a');
  refuse('a');
  clock.move(59_999);
  refuse('a');
  refuse('b');
  clock.move(1);
  refuse('a');
  limits.report(new OciError('DENIED'), '192.0.2.1');
  limits.report(new Error('a'), '192.0.2.1');
  t.is(counted.length, 5);
  t.deepEqual(logged, ['by a', 'by b', 'by a']);
});

test('a request whose client left before it was admitted is not counted', (t) => {
  const parts = {clock: createMovableClock(), events: createEvents()};
  const limits = createLimits({...LIMITS, requests: {total: 1, perCaller: 1, pipelined: 9}}, parts);
  const gone = limits.slot('GET');
  gone.free();
  gone.take('blob', 'a');
  const running = limits.slot('GET');
  t.true(limits.admits('blob', 'a'));
  t.notThrows(() => running.take('blob', 'a'));
  t.false(limits.admits('blob', 'b'));
  t.true(limits.admits('probe', 'a'));
  t.throws(() => limits.slot('GET').take('blob', 'a'), {message: /limits\.requests\.total/});
  running.free();
  running.free();
  t.notThrows(() => limits.slot('GET').take('blob', 'a'));
  t.throws(() => limits.slot('GET').take('blob', 'a'));
});

test('a caller is known by its own name, and an anonymous one by its address', (t) => {
  t.is(holderOf(ANONYMOUS, '192.0.2.1'), '192.0.2.1');
  t.is(holderOf(ANONYMOUS, '2001:db8::1'), '2001:db8:0:0::/64');
  t.is(holderOf(ANONYMOUS, undefined), 'an unknown address');
  t.is(holderOf({names: ['user:alice', 'group:team']}, '192.0.2.1'), 'user:alice');
});

for (const [address, network] of [
  ['192.0.2.1', '192.0.2.1'],
  ['2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
  ['2001:db8:1:2::6', '2001:db8:1:2::/64'],
  ['2001:db8::3:4:5:6', '2001:db8:0:0::/64'],
  ['2001:db8::', '2001:db8:0:0::/64'],
  ['::1', '0:0:0:0::/64'],
  ['::', '0:0:0:0::/64'],
] as const) {
  test(`the network of ${address} is ${network}`, (t) => t.is(networkOf(address), network));
}
