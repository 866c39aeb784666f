import test from 'ava';
import type {Digest} from '../../../src/oci/digest.ts';
import {parseName} from '../../../src/oci/name.ts';
import {type OutgoingChunk, UpstreamRefusal} from '../../../src/upstream/port.ts';
import {
  createScriptedUpstream,
  type Expectation,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';
import {at, caller, createClient, digest, failureOf, repository} from '../../support/upstream.ts';

const UPLOADS = '/v2/team/app/blobs/uploads/';
const SESSION = `${UPLOADS}7?_state=a%2Fb~`;
const encoded = encodeURIComponent(digest);
const created = {status: 201};
const json = {'content-type': 'application/json'};
const credentials = {kind: 'basic', username: 'u', password: 'p'} as const;

async function* bytesOf(text: string): AsyncGenerator<Uint8Array> {
  for (const character of text) yield Buffer.from(character);
}

const chunkOf = (text: string, start?: number): OutgoingChunk => ({
  length: text.length,
  range: start === undefined ? undefined : {start, end: start + text.length - 1},
  bytes: bytesOf(text),
});

/** The probe before the first bytes of an upload, sent once while nothing is known about the upstream. */
const ping: Expectation = {request: 'GET /v2/'};

const accepted = (headers: ScriptedAnswer['headers'] = {}): ScriptedAnswer => ({
  status: 202,
  headers: {location: SESSION, ...headers},
});

async function refusalOf(work: Promise<unknown>): Promise<UpstreamRefusal> {
  const failure = await failureOf(work);
  if (failure instanceof UpstreamRefusal) return failure;
  throw failure;
}

test('an upload begins empty, at its Location made absolute', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: `POST ${UPLOADS}`,
      sends: {'content-length': '0'},
      answer: accepted({range: '0-0', 'oci-chunk-min-length': '1024'}),
    },
    {request: `POST ${UPLOADS}`, answer: accepted()},
    {request: `POST ${UPLOADS}?digest-algorithm=sha512`, answer: accepted()},
  ]);
  const {client} = createClient(t, upstream.url);
  const location = `${upstream.url}${SESSION}`;
  t.deepEqual(await client.beginUpload(repository, {}, caller), {location, offset: 0, minChunk: 1024});
  t.deepEqual(await client.beginUpload(repository, {}, caller), {location, offset: 0, minChunk: undefined});
  t.like(await client.beginUpload(repository, {algorithm: 'sha512'}, caller), {location});
});

test('a mount is requested with and without a source, and becomes a session when it is not granted', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${UPLOADS}?mount=${encoded}&from=team%2Fbase`, answer: created},
    {request: `POST ${UPLOADS}?mount=${encoded}`, answer: accepted()},
  ]);
  const {client} = createClient(t, upstream.url);
  const from = parseName('team/base');
  t.is(await client.beginUpload(repository, {mount: {digest, from}}, caller), 'mounted');
  t.like(await client.beginUpload(repository, {mount: {digest}}, caller), {offset: 0});
});

test('a mount obtains a token for both repositories, a plain upload for one', async (t) => {
  const challenge = (scope: string) => ({
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${upstream.url}/token"${scope}`},
  });
  const push = 'repository:team/app:pull,push';
  const both = `${push} repository:team/base:pull`;
  const token = (scopes: string[], value: string): Expectation => ({
    request: `GET /token?${scopes.map((scope) => `scope=${encodeURIComponent(scope)}`).join('&')}`,
    answer: {body: JSON.stringify({token: value})},
  });
  const mount = `POST ${UPLOADS}?mount=${encoded}&from=team%2Fbase`;
  const upstream = await createScriptedUpstream(t);
  upstream.expect(
    {request: mount, sends: {authorization: undefined}, answer: () => challenge('')},
    token(both.split(' '), 'both'),
    {request: mount, sends: {authorization: 'Bearer both'}, answer: created},
    {
      request: `POST ${UPLOADS}`,
      sends: {authorization: undefined},
      answer: () => challenge(`,scope="${push}"`),
    },
    token([push], 'one'),
    {request: `POST ${UPLOADS}`, sends: {authorization: 'Bearer one'}, answer: accepted()},
    {request: mount, sends: {authorization: 'Bearer both'}, answer: created},
  );
  const {client} = createClient(t, upstream.url);
  const options = {mount: {digest, from: parseName('team/base')}};
  t.is(await client.beginUpload(repository, options, caller), 'mounted');
  t.like(await client.beginUpload(repository, {}, caller), {offset: 0});
  t.is(await client.beginUpload(repository, options, caller), 'mounted');
});

test('a mount from a repository that we may not read becomes a plain upload', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${UPLOADS}?mount=${encoded}&from=secret`, answer: {status: 403}},
    {request: `POST ${UPLOADS}`, answer: accepted()},
  ]);
  const {client} = createClient(t, upstream.url);
  const options = {mount: {digest, from: parseName('secret')}};
  t.like(await client.beginUpload(repository, options, caller), {offset: 0});
});

test('bytes are sent with Content-Range and Content-Length, or chunked when the length is unknown', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${UPLOADS}`, answer: accepted()},
    {
      request: `PATCH ${SESSION}`,
      sends: {
        'content-type': 'application/octet-stream',
        'content-range': '0-4',
        'content-length': '5',
        'transfer-encoding': undefined,
      },
      answer: accepted({range: '0-4', location: '/next'}),
    },
    {
      request: 'PATCH /next',
      sends: {'content-range': undefined, 'content-length': undefined, 'transfer-encoding': 'chunked'},
      answer: accepted({range: 'bytes=0-10', 'oci-chunk-min-length': '7'}),
    },
  ]);
  const {client} = createClient(t, upstream.url);
  const begun = await client.beginUpload(repository, {}, caller);
  if (begun === 'mounted') return t.fail();
  const first = await client.appendUpload(repository, begun, chunkOf('hello', 0), caller);
  t.deepEqual(first, {location: `${upstream.url}/next`, offset: 5, minChunk: undefined});
  const chunk = {length: undefined, range: undefined, bytes: bytesOf(' world')};
  const second = await client.appendUpload(repository, first, chunk, caller);
  t.like(second, {offset: 11, minChunk: 7});
  t.deepEqual(
    upstream.requests.slice(1).map(({body}) => String(body)),
    ['hello', ' world'],
  );
});

test('when Range is 0-0 or missing, the bytes that were sent are counted', async (t) => {
  const patch = (range: string | undefined): Expectation => ({
    request: `PATCH ${SESSION}`,
    answer: accepted(range === undefined ? {} : {range}),
  });
  const upstream = await createScriptedUpstream(t, [
    ping,
    patch('0-0'),
    patch('0-0'),
    patch('0-0'),
    patch(undefined),
    patch(undefined),
    patch(undefined),
  ]);
  const {client} = createClient(t, upstream.url);
  const location = `${upstream.url}${SESSION}`;
  const offsets = [];
  for (const [known, chunk] of [
    [0, chunkOf('a')],
    [1, chunkOf('')],
    [0, chunkOf('')],
    [0, chunkOf('abc')],
    [3, chunkOf('def', 3)],
    [6, chunkOf('gh')],
  ] as const) {
    offsets.push((await client.appendUpload(repository, at(location, known), chunk, caller)).offset);
  }
  t.deepEqual(offsets, [1, 1, 0, 3, 6, 8]);
});

test('a chunk out of order is a refusal with the offset that the upstream reports', async (t) => {
  const error = {errors: [{code: 'BLOB_UPLOAD_INVALID', message: 'out\nof order'}]};
  const upstream = await createScriptedUpstream(t, [
    ping,
    {
      request: `PATCH ${SESSION}`,
      answer: {status: 416, headers: {...json, range: '0-9'}, body: JSON.stringify(error)},
    },
  ]);
  const {client} = createClient(t, upstream.url);
  const sent = client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunkOf('x', 20), caller);
  t.like(await refusalOf(sent), {
    kind: 'status',
    status: 416,
    code: 'BLOB_UPLOAD_INVALID',
    offset: 10,
    message: `${upstream.host}: refuses bytes of an upload (416 BLOB_UPLOAD_INVALID: out of order)`,
  });
});

test('4xx except 401, 403 and 429 is a refusal, and 5xx is a failure; neither is retried', async (t) => {
  const statuses = [400, 404, 405, 409, 413, 422, 403, 429, 500, 503];
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${UPLOADS}`, answer: accepted()},
    ...statuses.map((status) => ({request: `PATCH ${SESSION}`, answer: {status}})),
  ]);
  const {client} = createClient(t, upstream.url);
  await client.beginUpload(repository, {}, caller);
  const seen = [];
  for (const _ of statuses) {
    const sent = client.appendUpload(repository, at(`${upstream.url}${SESSION}`), chunkOf('x'), caller);
    const failure = await failureOf(sent);
    seen.push(failure instanceof UpstreamRefusal ? failure.status : failure.kind);
  }
  t.deepEqual(seen, [400, 404, 405, 409, 413, 422, 'denied', 'throttled', 'status', 'status']);
});

test('the state of an upload is requested, and is undefined when there is no such upload', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${SESSION}`, answer: {status: 204, headers: {location: '/next', range: '0-9'}}},
    {request: `GET ${SESSION}`, answer: {status: 202, headers: {range: '0-0'}}},
    {request: `GET ${SESSION}`, answer: {status: 202, headers: {range: '0-0'}}},
    {request: `GET ${SESSION}`, answer: {status: 204}},
    {request: `GET ${SESSION}`, answer: {status: 404}},
    {request: `GET ${SESSION}`, answer: {status: 400}},
  ]);
  const {client} = createClient(t, upstream.url);
  const location = `${upstream.url}${SESSION}`;
  const state = (known = 0) => client.uploadState(repository, at(location, known), caller);
  t.deepEqual(await state(), {location: `${upstream.url}/next`, offset: 10, minChunk: undefined});
  t.deepEqual(await state(7), {location, offset: 0, minChunk: undefined});
  t.like(await state(1), {offset: 1});
  // Without a Range, the known offset holds.
  t.like(await state(7), {offset: 7});
  t.is(await state(), undefined);
  t.is((await refusalOf(state())).status, 400);
});

test("the last bytes close the upload, and the digest is appended to the location's own query", async (t) => {
  const named = `sha256:${'b'.repeat(64)}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${UPLOADS}`, answer: accepted()},
    {
      request: `PUT ${SESSION}&digest=${encoded}`,
      sends: {'content-length': '5', 'content-range': '3-7'},
      answer: {status: 201, headers: {'docker-content-digest': named}},
    },
    {request: `PUT ${UPLOADS}8?digest=${encoded}`, sends: {'content-length': '0'}, answer: created},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.beginUpload(repository, {}, caller);
  const finish = (path: string, chunk: OutgoingChunk) =>
    client.finishUpload(repository, `${upstream.url}${path}`, digest, chunk, caller);
  t.deepEqual(await finish(SESSION, chunkOf('hello', 3)), {created: true, digest: named as Digest});
  t.deepEqual(await finish(`${UPLOADS}8`, chunkOf('')), {created: true, digest: undefined});
  t.is(String(upstream.requests[1]?.body), 'hello');
});

test('a session on another host gets its bytes without Authorization, and without a request before them', async (t) => {
  const storage = await createScriptedUpstream(t, [
    {
      request: 'PATCH /signed?s=1',
      sends: {authorization: undefined},
      answer: {status: 202, headers: {location: '/signed?s=2', range: '0-4'}},
    },
    {request: `PUT /signed?s=2&digest=${encoded}`, sends: {authorization: undefined}, answer: created},
  ]);
  const upstream = await createScriptedUpstream(t);
  const {client} = createClient(t, upstream.url, {credentials});
  const {location} = await client.appendUpload(
    repository,
    at(`${storage.url}/signed?s=1`),
    chunkOf('hello'),
    caller,
  );
  await client.finishUpload(repository, location, digest, chunkOf('!'), caller);
  t.deepEqual(
    storage.requests.map(({body}) => String(body)),
    ['hello', '!'],
  );
});

test('a session without a usable Location is a protocol failure', async (t) => {
  const locations = ['', 'http://', 'ftp://127.0.0.1/x'];
  const upstream = await createScriptedUpstream(
    t,
    locations.map((location) => ({request: `POST ${UPLOADS}`, answer: accepted({location})})),
  );
  const {client} = createClient(t, upstream.url);
  for (const location of locations) {
    t.is((await failureOf(client.beginUpload(repository, {}, caller))).kind, 'protocol', location);
  }
});

test('an upload is cancelled, and cancelling an unknown one succeeds', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `DELETE ${SESSION}`, answer: {status: 204}},
    {request: `DELETE ${SESSION}`, answer: {status: 404}},
    {request: `DELETE ${SESSION}`, answer: {status: 405}},
  ]);
  const {client} = createClient(t, upstream.url);
  const cancel = () => client.cancelUpload(repository, `${upstream.url}${SESSION}`, caller);
  await cancel();
  await cancel();
  t.is((await refusalOf(cancel())).status, 405);
});

test('beginning and cancelling uploads are retried while the upstream is overloaded', async (t) => {
  const blob = `DELETE /v2/team/app/blobs/${digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${UPLOADS}`, answer: {status: 503}},
    {request: `POST ${UPLOADS}`, answer: accepted()},
    {request: blob, answer: {status: 502}},
    {request: blob, answer: {status: 202}},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.beginUpload(repository, {}, caller);
  await client.deleteBlob(repository, digest, caller);
  t.pass();
});

test('the deletion of a missing blob is refused', async (t) => {
  const error = {errors: [{code: 'BLOB_UNKNOWN', message: 'blob unknown'}]};
  const upstream = await createScriptedUpstream(t, [
    {
      request: `DELETE /v2/team/app/blobs/${digest}`,
      answer: {status: 404, headers: json, body: JSON.stringify(error)},
    },
  ]);
  const {client} = createClient(t, upstream.url);
  t.like(await refusalOf(client.deleteBlob(repository, digest, caller)), {status: 404, code: 'BLOB_UNKNOWN'});
});
