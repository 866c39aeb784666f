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
  repository,
} from '../../support/upstream.ts';

const GET = `GET ${BLOB_PATH}`;
const HEAD = `HEAD ${BLOB_PATH}`;

test('a blob streams its bytes as they arrive', async (t) => {
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {headers: {'content-length': '6'}, body: ['one', {wait: gate}, 'two']}},
  ]);
  const {client} = createClient(t, upstream.url);
  const blob = await client.getBlob(repository, digest, caller);
  t.like(blob, {size: 6, start: 0});
  const chunks = blob?.body[Symbol.asyncIterator]();
  t.is(String((await chunks?.next())?.value), 'one');
  open();
  t.is(String((await chunks?.next())?.value), 'two');
  t.true((await chunks?.next())?.done);
});

test('a blob without a length has no size', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: {body: ['ab', 'cd']}}]);
  const {client} = createClient(t, upstream.url);
  const blob = await client.getBlob(repository, digest, caller);
  t.is(blob?.size, undefined);
  t.is(String(await bytesOf(blob)), 'abcd');
});

test('404 means that it does not exist', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {status: 404}},
    {request: HEAD, answer: {status: 404}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is(await client.getBlob(repository, digest, caller), undefined);
  t.is(await client.headBlob(repository, digest, caller), undefined);
});

test('a range returns its start and the whole size', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: GET,
      sends: {range: 'bytes=2-3'},
      answer: {status: 206, headers: {'content-range': 'bytes 2-3/6'}, body: 'cd'},
    },
    {
      request: GET,
      sends: {range: 'bytes=4-'},
      answer: {status: 206, headers: {'content-range': 'bytes 4-5/6'}, body: ['ef']},
    },
  ]);
  const {client} = createClient(t, upstream.url);
  const middle = await client.getBlob(repository, digest, caller, {start: 2, end: 3});
  t.like(middle, {size: 6, start: 2});
  t.is(String(await bytesOf(middle)), 'cd');
  const rest = await client.getBlob(repository, digest, caller, {start: 4});
  t.like(rest, {size: 6, start: 4});
  t.is(String(await bytesOf(rest)), 'ef');
});

test('an upstream that ignores the range starts at 0', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: {body: 'abcdef'}}]);
  const {client} = createClient(t, upstream.url);
  const blob = await client.getBlob(repository, digest, caller, {start: 2});
  t.like(blob, {size: 6, start: 0});
  blob?.close();
});

for (const contentRange of ['bytes 1-3/6', 'bytes 2-5/6', 'bytes */6', 'nonsense', undefined]) {
  test(`a 206 with Content-Range ${contentRange} to bytes=2-3 is a protocol failure`, async (t) => {
    const headers = contentRange === undefined ? {} : {'content-range': contentRange};
    const upstream = await createScriptedUpstream(t, [
      {request: GET, answer: {status: 206, headers, body: 'xx'}},
    ]);
    const {client} = createClient(t, upstream.url);
    const failure = await failureOf(client.getBlob(repository, digest, caller, {start: 2, end: 3}));
    t.is(failure.kind, 'protocol');
  });
}

test('a 206 without a requested range is a protocol failure', async (t) => {
  const headers = {'content-range': 'bytes 0-1/6'};
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {status: 206, headers, body: 'ab'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.getBlob(repository, digest, caller))).kind, 'protocol');
});

test('416 to a range is a protocol failure', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: {status: 416}}]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.getBlob(repository, digest, caller, {start: 9}))).kind, 'protocol');
});

test('a range that ends early is a failure even without Content-Length', async (t) => {
  const headers = {'content-range': 'bytes 0-5/6'};
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {status: 206, headers, body: ['abc']}},
  ]);
  const {client} = createClient(t, upstream.url);
  const blob = await client.getBlob(repository, digest, caller, {start: 0});
  t.is((await failureOf(bytesOf(blob))).kind, 'unreachable');
});

test('a blob HEAD gives the size', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {headers: {'content-length': '77'}}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.headBlob(repository, digest, caller), {size: 77});
});

const FIRST_BYTE = {request: GET, sends: {range: 'bytes=0-0'}};
const NO_LENGTH = {request: HEAD, answer: {body: []}};

test('a blob HEAD without a length is followed by a GET of one byte', async (t) => {
  const headers = {'content-range': 'bytes 0-0/99'};
  const upstream = await createScriptedUpstream(t, [
    NO_LENGTH,
    {...FIRST_BYTE, answer: {status: 206, headers, body: 'x'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.headBlob(repository, digest, caller), {size: 99});
});

test('a blob HEAD with a length of 0, which some servers send with every HEAD, is followed by a GET of one byte', async (t) => {
  const headers = {'content-range': 'bytes 0-0/99'};
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {headers: {'content-length': '0'}}},
    {...FIRST_BYTE, answer: {status: 206, headers, body: 'x'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.headBlob(repository, digest, caller), {size: 99});
});

test('a 416 to the GET of one byte gives the size of an empty blob', async (t) => {
  const headers = {'content-range': 'bytes */0'};
  const upstream = await createScriptedUpstream(t, [
    NO_LENGTH,
    {...FIRST_BYTE, answer: {status: 416, headers}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.headBlob(repository, digest, caller), {size: 0});
});

test('a blob HEAD that is 405 is followed by a GET of one byte, which gives the whole length', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 405}},
    {...FIRST_BYTE, answer: {body: 'abcdef'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.headBlob(repository, digest, caller), {size: 6});
});

test('a connection that breaks midway is a failure after the bytes that arrived', async (t) => {
  for (const headers of [{'content-length': '9'}, {'transfer-encoding': 'chunked'}]) {
    const upstream = await createScriptedUpstream(t, [
      {request: GET, answer: {headers, body: ['abc', BREAK]}},
    ]);
    const {client} = createClient(t, upstream.url);
    const blob = await client.getBlob(repository, digest, caller);
    const chunks = blob?.body[Symbol.asyncIterator]();
    t.is(String((await chunks?.next())?.value), 'abc');
    t.is((await failureOf(Promise.resolve(chunks?.next()))).kind, 'unreachable');
  }
});

test('a body that idles times out, however long it ran before', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {headers: {'content-length': '9'}, body: ['abc', HANG]}},
  ]);
  const timeouts = {connect: 60_000, headers: 5000, idle: 20_000};
  const {client} = createClient(t, upstream.url, {timeouts}, {clock});
  const blob = await client.getBlob(repository, digest, caller);
  const chunks = blob?.body[Symbol.asyncIterator]();
  t.is(String((await chunks?.next())?.value), 'abc');
  await clock.advance(3_600_000); // The reader takes an hour over it: no fault of the upstream.
  const next = failureOf(Promise.resolve(chunks?.next()));
  await clock.advance(19_999);
  await clock.advance(1);
  const failure = await next;
  t.is(failure.kind, 'timeout');
  t.regex(failure.message, /20000 ms/);
});

test('close ends a response whose body was never read, and may be called twice', async (t) => {
  const endless = {headers: {'content-length': '9'}, body: ['abc', HANG] as const};
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: endless, times: 3}]);
  const {client} = createClient(t, upstream.url, {concurrency: {heads: 1, manifests: 1, bodies: 1}});
  const first = await client.getBlob(repository, digest, caller);
  first?.close();
  first?.close();
  const second = await client.getBlob(repository, digest, caller);
  for await (const _ of second?.body ?? []) break;
  const third = await client.getBlob(repository, digest, caller);
  const reading = failureOf(bytesOf(third));
  third?.close();
  t.is((await reading).kind, 'unreachable');
});
