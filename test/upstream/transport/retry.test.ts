import test from 'ava';
import {createManualClock} from '../../support/clock.ts';
import {BREAK, createScriptedUpstream, HANG} from '../../support/scripted-upstream.ts';
import {
  BLOB_PATH,
  bytesOf,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  MANIFEST_PATH,
  MANIFEST_TEXT,
  repository,
} from '../../support/upstream.ts';

const HEAD = `HEAD ${MANIFEST_PATH}`;

for (const status of [500, 502, 503, 504]) {
  test(`retries after a ${status}`, async (t) => {
    const upstream = await createScriptedUpstream(t, [{request: HEAD, answer: {status}}, {request: HEAD}]);
    const {client} = createClient(t, upstream.url);
    t.truthy(await client.headManifest(repository, latest, caller));
  });
}

test('retries a connection that breaks before an answer', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {before: BREAK}},
    {request: HEAD},
  ]);
  const {client} = createClient(t, upstream.url);
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('an upstream that keeps failing is asked four times, then it is a status failure', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: HEAD, answer: {status: 503}, times: 4}]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'status');
});

test('a refused connection is "unreachable", and the message says what happened', async (t) => {
  const upstream = await createScriptedUpstream(t);
  await upstream.stop();
  const {client} = createClient(t, upstream.url);
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.is(failure.kind, 'unreachable');
  t.is(failure.message, `${upstream.host}: refuses connections (ECONNREFUSED)`);
});

test('retries a 429 after its Retry-After when the budget allows', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 429, headers: {'retry-after': '2'}}},
    {request: HEAD},
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const head = client.headManifest(repository, latest, caller);
  await clock.sleeping(2); // The budget, and the wait before the second attempt.
  await clock.advance(1999);
  t.is(upstream.requests.length, 1);
  await clock.advance(1);
  t.truthy(await head);
});

test('a 429 whose Retry-After exceeds the budget fails at once, with its Retry-After', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 429, headers: {'retry-after': '60'}}},
    {request: HEAD, answer: {status: 429}},
  ]);
  const clock = createManualClock();
  const {client, heard} = createClient(t, upstream.url, {}, {clock});
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.like(failure, {kind: 'throttled', retryAfter: 60_000});
  await clock.advance(60_000);
  const event = {host: upstream.host, retryAfter: 60_000};
  t.true(heard.some((one) => one.name === 'upstream.throttled' && one.event.retryAfter === event.retryAfter));
  t.like(await failureOf(client.headManifest(repository, latest, caller)), {
    kind: 'throttled',
    retryAfter: undefined,
  });
});

test('an upstream that sends nothing times out when the budget is spent', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [{request: HEAD, answer: {before: HANG}}]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const failure = failureOf(client.headManifest(repository, latest, caller));
  await upstream.received(1);
  await clock.advance(5000);
  t.like(await failure, {kind: 'timeout', message: `${upstream.host}: sent no response headers for 5000 ms`});
});

test('the budget covers all attempts together', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 503, headers: {'retry-after': '3'}}},
    {request: HEAD, answer: {status: 503, headers: {'retry-after': '3'}}},
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const failure = failureOf(client.headManifest(repository, latest, caller));
  await clock.sleeping(2);
  await clock.advance(3000);
  t.like(await failure, {kind: 'status', retryAfter: 3000});
});

test('the budget ends with the headers: a body may take longer', async (t) => {
  const clock = createManualClock();
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: {body: ['a', {wait: gate}, 'b']}},
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const blob = await client.getBlob(repository, digest, caller);
  await clock.advance(60_000);
  open();
  t.is(String(await bytesOf(blob)), 'ab');
});

test('waiting for a connection slot is part of the budget', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: {body: ['a', HANG]}},
  ]);
  const {client, heard} = createClient(
    t,
    upstream.url,
    {concurrency: {heads: 1, manifests: 1, bodies: 1}},
    {clock},
  );
  const held = await client.getBlob(repository, digest, caller);
  const failure = failureOf(client.getBlob(repository, digest, caller));
  await clock.advance(5000);
  t.regex((await failure).message, /upstream\.concurrency\.bodies/);
  t.false(heard.some(({name}) => name === 'upstream.circuit'));
  held?.close();
});

test('HEADs do not wait for bodies, and a slot is held until its body ends', async (t) => {
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: {body: ['a', {wait: gate}, 'b']}},
    {request: HEAD, times: 3},
    {request: `GET ${BLOB_PATH}`, answer: {body: 'second'}},
  ]);
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 1, manifests: 1, bodies: 1}});
  const first = await client.getBlob(repository, digest, caller);
  const second = client.getBlob(repository, digest, caller);
  await Promise.all([1, 2, 3].map(() => client.headManifest(repository, latest, caller)));
  t.is(upstream.requests.length, 4);
  open();
  t.is(String(await bytesOf(first)), 'ab');
  t.is(String(await bytesOf(await second)), 'second');
});

test('manifests do not wait for bodies, and have their own limit', async (t) => {
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const MANIFEST = `GET ${MANIFEST_PATH}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: {body: ['a', HANG]}},
    {request: MANIFEST, answer: {body: [MANIFEST_TEXT.slice(0, 5), {wait: gate}, MANIFEST_TEXT.slice(5)]}},
    {request: HEAD},
    {request: MANIFEST, answer: {body: MANIFEST_TEXT}},
  ]);
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 1, manifests: 1, bodies: 1}});
  const held = await client.getBlob(repository, digest, caller);
  const first = client.getManifest(repository, latest, caller);
  await upstream.received(2);
  const second = client.getManifest(repository, latest, caller);
  await client.headManifest(repository, latest, caller);
  t.is(upstream.requests.length, 3);
  open();
  t.is(String((await first)?.bytes), MANIFEST_TEXT);
  t.is(String((await second)?.bytes), MANIFEST_TEXT);
  held?.close();
});

test('bodies that are read at a client’s pace have their own limit, half of that of other bodies', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: {body: ['a', HANG]}, times: 7},
  ]);
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 1, manifests: 5, bodies: 5}}, {clock});
  const stream = () => client.streamBlob(repository, digest, caller);
  const body = () => client.getBlob(repository, digest, caller);
  const held = await Promise.all([stream(), stream(), body(), body()]);
  const refused = failureOf(stream());
  held.push(await body());
  await clock.advance(5000);
  t.regex((await refused).message, /upstream\.concurrency\.bodies .*clients/);
  held[0]?.close();
  held.push(await stream(), await body());
  for (const one of held) one?.close();
});

test('an upstream of one download at a time streams to one client at a time', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: {body: ['a', HANG]}, times: 2},
  ]);
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 1, manifests: 1, bodies: 1}});
  const held = await client.getBlob(repository, digest, caller);
  const streamed = await client.streamBlob(repository, digest, caller);
  t.is(streamed?.start, 0);
  streamed?.close();
  held?.close();
});

test('no more requests are under way than the limit allows', async (t) => {
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {before: gate}, times: 2},
    {request: HEAD, times: 3},
  ]);
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 2, manifests: 1, bodies: 1}});
  const heads = [1, 2, 3, 4, 5].map(() => client.headManifest(repository, latest, caller));
  await upstream.received(2);
  t.is(upstream.requests.length, 2);
  open();
  await Promise.all(heads);
  t.is(upstream.requests.length, 5);
});

test('a kept-alive connection that the upstream has closed causes neither a failure nor a wait', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD},
    {request: HEAD, answer: {before: BREAK}},
    {request: HEAD},
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  await client.headManifest(repository, latest, caller);
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('the circuit opens, refuses at once, and lets one probe through after its time', async (t) => {
  const clock = createManualClock(undefined, {skipBelow: 1000});
  const upstream = await createScriptedUpstream(t, [{request: HEAD, answer: {status: 500}, times: 8}]);
  const {client, heard} = createClient(t, upstream.url, {breaker: {failures: 2, openFor: 30_000}}, {clock});
  for (const _ of [1, 2]) await failureOf(client.headManifest(repository, latest, caller));
  await clock.advance(10_000);
  t.like(await failureOf(client.headManifest(repository, latest, caller)), {
    kind: 'open',
    retryAfter: 20_000,
  });
  t.is(upstream.requests.length, 8);

  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  upstream.expect({request: HEAD, answer: {before: gate}}, {request: HEAD});
  await clock.advance(20_000);
  const probe = client.headManifest(repository, latest, caller);
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'open');
  open();
  t.truthy(await probe);
  t.truthy(await client.headManifest(repository, latest, caller));
  const states = heard.flatMap((one) => (one.name === 'upstream.circuit' ? [one.event.state] : []));
  t.deepEqual(states, ['open', 'half-open', 'closed']);
});

test('refusals do not open the circuit', async (t) => {
  const statuses = [404, 403, 429, 400, 501];
  const upstream = await createScriptedUpstream(
    t,
    statuses.map((status) => ({request: `GET ${BLOB_PATH}`, answer: {status}})),
  );
  const {client, heard} = createClient(t, upstream.url, {breaker: {failures: 1, openFor: 30_000}});
  for (const _ of statuses) await client.getBlob(repository, digest, caller).catch(() => undefined);
  t.false(heard.some(({name}) => name === 'upstream.circuit'));
});

test('an outage that ends is noticed on the same client', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: HEAD, times: 2}]);
  const {client} = createClient(t, upstream.url);
  t.truthy(await client.headManifest(repository, latest, caller));
  await upstream.stop();
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'unreachable');
  await upstream.start();
  t.truthy(await client.headManifest(repository, latest, caller));
});
