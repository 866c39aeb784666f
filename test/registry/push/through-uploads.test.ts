import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {
  type Backref,
  createMovableClock,
  type ProxyAnswer,
  type RegistryOverrides,
  startBackref,
} from '../../support/backref.ts';
import {blobAnswer, contentOf, randomBlob} from '../../support/content.ts';
import {endlessBody} from '../../support/endless-body.ts';
import {
  BREAK,
  createScriptedUpstream,
  type Expectation,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';
import {wireInProcess} from '../../support/wired.ts';

const UPLOADS = '/v2/library/app/blobs/uploads/';
const BEGIN = '/v2/app/blobs/uploads/';

async function start(t: ExecutionContext, script: Expectation[], overrides: Partial<RegistryOverrides> = {}) {
  const upstream = await createScriptedUpstream(t, script);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'through', ...overrides}]});
  return {upstream, proxy};
}

/** The upstream's answers to the begin of an upload and to its chunks. */
const begun = (query = '', headers: Record<string, string> = {}): Expectation => ({
  request: `POST ${UPLOADS}${query}`,
  answer: {status: 202, headers: {Location: `${UPLOADS}one?_state=a`, ...headers}},
});
const at = (state: string, offset: number, status = 202) => ({
  status,
  headers: {Location: `${UPLOADS}one?_state=${state}`, Range: `0-${Math.max(0, offset - 1)}`},
});

const codeOf = ({json}: ProxyAnswer) => (json() as {errors: {code: string; message: string}[]}).errors[0];
const pathOf = ({headers}: ProxyAnswer) => String(headers.location);

async function begin(proxy: Backref, query = ''): Promise<ProxyAnswer> {
  return proxy.ask(`${BEGIN}${query}`, {method: 'POST', headers: {'Content-Length': 0}});
}
const chunk = (bytes: Buffer, start: number) => ({
  method: 'PATCH',
  headers: {'Content-Length': bytes.length, 'Content-Range': `${start}-${start + bytes.length - 1}`},
  body: bytes,
});
const close = (proxy: Backref, path: string, digest: string, body: Buffer = Buffer.alloc(0)) =>
  proxy.ask(`${path}?digest=${digest}`, {method: 'PUT', headers: {'Content-Length': body.length}, body});

test('a chunked upload goes to the upstream, and the first pull does not ask it', async (t) => {
  const blob = randomBlob(3000);
  const {proxy, upstream} = await start(t, [
    begun('', {'OCI-Chunk-Min-Length': '100'}),
    {
      request: `PATCH ${UPLOADS}one?_state=a`,
      sends: {'content-range': '0-999', 'content-length': '1000'},
      answer: at('b', 1000),
    },
    {request: `PATCH ${UPLOADS}one?_state=b`, sends: {'content-range': '1000-1999'}, answer: at('c', 2000)},
    {
      request: `PUT ${UPLOADS}one?_state=c&digest=${encodeURIComponent(blob.digest)}`,
      answer: {status: 201, headers: {'Docker-Content-Digest': blob.digest}},
    },
  ]);
  const opened = await begin(proxy);
  t.is(opened.status, 202);
  t.is(opened.headers['oci-chunk-min-length'], '100');
  t.regex(pathOf(opened), /^\/v2\/app\/blobs\/uploads\/[0-9a-f-]{36}$/);
  const path = pathOf(opened);
  const first = await proxy.ask(path, chunk(blob.bytes.subarray(0, 1000), 0));
  t.is(first.status, 202);
  t.is(first.headers['range'], '0-999');
  t.is((await proxy.ask(path, chunk(blob.bytes.subarray(1000, 2000), 1000))).headers['range'], '0-1999');
  const done = await close(proxy, path, blob.digest, blob.bytes.subarray(2000));
  t.is(done.status, 201);
  t.is(done.headers['docker-content-digest'], blob.digest);
  t.is(pathOf(done), `/v2/app/blobs/${blob.digest}`);
  t.deepEqual(Buffer.concat(upstream.requests.slice(1).map(({body}) => body)), blob.bytes);
  const pulled = await proxy.ask(`/v2/app/blobs/${blob.digest}`);
  t.deepEqual(pulled.body, blob.bytes);
  t.is(pulled.headers['cache-status'], 'backref;hit');
});

test('an upload continues after a restart, and its copy is complete', async (t) => {
  const blob = randomBlob(2000);
  const {proxy} = await start(t, [
    begun(),
    {request: `PATCH ${UPLOADS}one?_state=a`, answer: at('b', 1000)},
    {request: `GET ${UPLOADS}one?_state=b`, answer: at('c', 1000, 204)},
    {request: `PATCH ${UPLOADS}one?_state=c`, answer: at('d', 2000)},
    {request: new RegExp(`^PUT ${UPLOADS}one\\?_state=d&digest=`), answer: {status: 201}},
  ]);
  const path = pathOf(await begin(proxy));
  await proxy.ask(path, chunk(blob.bytes.subarray(0, 1000), 0));
  const next = await proxy.restart();
  const state = await next.ask(path);
  t.is(state.status, 204);
  t.is(state.headers['range'], '0-999');
  t.is((await next.ask(path, chunk(blob.bytes.subarray(1000), 1000))).status, 202);
  t.is((await close(next, path, blob.digest)).status, 201);
  t.deepEqual((await next.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
});

test('a chunk out of order is 416 with the offset, and the upload continues', async (t) => {
  const blob = randomBlob(20);
  const {proxy} = await start(t, [
    begun(),
    {request: `PATCH ${UPLOADS}one?_state=a`, answer: at('b', 10)},
    // The upstream is asked for its offset: some registries append whatever comes.
    {request: `GET ${UPLOADS}one?_state=b`, answer: at('b', 10, 204)},
    {request: `PATCH ${UPLOADS}one?_state=b`, answer: at('c', 20)},
    {request: /^PUT /, answer: {status: 201}},
  ]);
  const path = pathOf(await begin(proxy));
  await proxy.ask(path, chunk(blob.bytes.subarray(0, 10), 0));
  const early = await proxy.ask(path, chunk(blob.bytes.subarray(15), 15));
  t.is(early.status, 416);
  t.is(early.headers['range'], '0-9');
  t.is(codeOf(early)?.code, 'BLOB_UPLOAD_INVALID');
  t.is((await proxy.ask(path, chunk(blob.bytes.subarray(10), 10))).status, 202);
  t.is((await close(proxy, path, blob.digest)).status, 201);
  t.deepEqual((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
});

test("the upstream's own 416 reaches the client with its range", async (t) => {
  const {proxy} = await start(t, [
    begun(),
    {
      request: `PATCH ${UPLOADS}one?_state=a`,
      answer: {
        status: 416,
        headers: {Range: '0-4', 'Content-Type': 'application/json'},
        body: '{"errors":[{"code":"RANGE_INVALID","message":"behind"}]}',
      },
    },
    {request: `GET ${UPLOADS}one?_state=a`, answer: at('b', 5, 204)},
  ]);
  const path = pathOf(await begin(proxy));
  const refused = await proxy.ask(path, {method: 'PATCH', body: Buffer.from('abc')});
  t.is(refused.status, 416);
  t.is(refused.headers['range'], '0-4');
  t.is(pathOf(refused), path);
  t.is(codeOf(refused)?.code, 'BLOB_UPLOAD_INVALID');
  t.regex(String(codeOf(refused)?.message), /behind/);
  t.is((await proxy.ask(path)).headers['range'], '0-4');
});

test('a copy that differs from what the upstream has is given up; the upload continues', async (t) => {
  const blob = randomBlob(30);
  const {proxy, upstream} = await start(t, [
    begun(),
    {request: `PATCH ${UPLOADS}one?_state=a`, answer: {before: BREAK}},
    // It received more of the broken request than we know.
    {request: `GET ${UPLOADS}one?_state=a`, answer: at('b', 7, 204)},
    {request: `PATCH ${UPLOADS}one?_state=b`, sends: {'content-range': '7-29'}, answer: at('c', 30)},
    {request: /^PUT /, answer: {status: 201, headers: {'Docker-Content-Digest': blob.digest}}},
    {
      request: `HEAD /v2/library/app/blobs/${blob.digest}`,
      answer: {headers: {'Content-Length': '30'}, body: []},
    },
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
  ]);
  const path = pathOf(await begin(proxy));
  const broken = await proxy.ask(path, {method: 'PATCH', body: blob.bytes.subarray(0, 10)});
  t.is(broken.status, 503);
  t.regex(codeOf(broken)?.message ?? '', /^changes to library\/app are written to the upstream first, /);
  t.truthy(broken.headers['retry-after']);
  t.is((await proxy.ask(path)).headers['range'], '0-6');
  t.is((await proxy.ask(path, chunk(blob.bytes.subarray(7), 7))).status, 202);
  t.is((await close(proxy, path, blob.digest)).status, 201);
  t.deepEqual((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
  t.is(upstream.requests.length, 7);
});

test('bytes with another digest are refused by the upstream, and nothing of them is stored', async (t) => {
  const {digest} = randomBlob(10);
  const {proxy} = await start(t, [
    begun(),
    {
      request: /^PUT /,
      answer: {
        status: 400,
        headers: {'Content-Type': 'application/json'},
        body: '{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match"}]}',
      },
    },
    {request: `HEAD /v2/library/app/blobs/${digest}`, answer: {status: 404}},
  ]);
  const path = pathOf(await begin(proxy));
  const refused = await close(proxy, path, digest, Buffer.from('something else'));
  t.is(refused.status, 400);
  t.is(codeOf(refused)?.code, 'DIGEST_INVALID');
  t.is((await proxy.ask(`/v2/app/blobs/${digest}`, {method: 'HEAD'})).status, 404);
});

test('an upload that the upstream no longer knows is unknown here too', async (t) => {
  for (const [method, body] of [
    ['GET', undefined],
    ['PATCH', 'abc'],
  ] as const) {
    const {proxy} = await start(t, [
      begun(),
      {request: `${method} ${UPLOADS}one?_state=a`, answer: {status: 404}},
    ]);
    const path = pathOf(await begin(proxy));
    const gone = await proxy.ask(path, {method, ...(body ? {body} : {})});
    t.is(gone.status, 404);
    t.is(codeOf(gone)?.code, 'BLOB_UPLOAD_UNKNOWN');
    t.is((await proxy.ask(path)).status, 404);
  }
});

test('a cancelled upload is ended at the upstream and here', async (t) => {
  const {proxy} = await start(t, [
    begun(),
    {request: `DELETE ${UPLOADS}one?_state=a`, answer: {status: 204}},
  ]);
  const path = pathOf(await begin(proxy));
  t.is((await proxy.ask(path, {method: 'DELETE'})).status, 204);
  t.is((await proxy.ask(path)).status, 404);
});

test('a mount from the same registry is passed on; the mounted blob is found at once', async (t) => {
  const blob = randomBlob(50);
  const {proxy} = await start(t, [
    {
      request: `POST ${UPLOADS}?mount=${encodeURIComponent(blob.digest)}&from=library%2Fbase`,
      answer: {status: 201},
    },
    {
      request: `HEAD /v2/library/app/blobs/${blob.digest}`,
      answer: {headers: {'Content-Length': '50'}, body: []},
      times: 2,
    },
  ]);
  const mounted = await begin(proxy, `?mount=${blob.digest}&from=base`);
  t.is(mounted.status, 201);
  t.is(mounted.headers['docker-content-digest'], blob.digest);
  t.is(pathOf(mounted), `/v2/app/blobs/${blob.digest}`);
  const head = await proxy.ask(`/v2/app/blobs/${blob.digest}`, {method: 'HEAD'});
  t.is(head.headers['content-length'], '50');
});

test('a mount without a source is requested from a repository that has the blob', async (t) => {
  const blob = randomBlob(50);
  const {proxy} = await start(t, [
    {request: `GET /v2/library/base/blobs/${blob.digest}`, answer: blobAnswer(blob)},
    {
      request: `POST ${UPLOADS}?mount=${encodeURIComponent(blob.digest)}&from=library%2Fbase`,
      answer: {status: 201},
    },
    {
      request: `POST ${UPLOADS}?mount=${encodeURIComponent(contentOf(Buffer.from('x')).digest)}`,
      answer: at('a', 0),
    },
  ]);
  t.is((await proxy.ask(`/v2/base/blobs/${blob.digest}`)).status, 200);
  await proxy.idle();
  t.is((await begin(proxy, `?mount=${blob.digest}`)).status, 201);
  t.is((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).headers['cache-status'], 'backref;hit');
  const unknown = await begin(proxy, `?mount=${contentOf(Buffer.from('x')).digest}`);
  t.is(unknown.status, 202);
  t.truthy(unknown.headers.location);
});

test('a blob that the upstream stores under another digest only is an error, and is not linked', async (t) => {
  const blob = randomBlob(20, 'sha512');
  const {proxy} = await start(t, [
    begun('?digest-algorithm=sha512'),
    {
      request: /^PUT /,
      answer: {status: 201, headers: {'Docker-Content-Digest': contentOf(blob.bytes).digest}},
    },
    {request: `HEAD /v2/library/app/blobs/${blob.digest}`, answer: {status: 404}, times: 2},
  ]);
  const path = pathOf(await begin(proxy, '?digest-algorithm=sha512'));
  const refused = await close(proxy, path, blob.digest, blob.bytes);
  t.is(refused.status, 400);
  t.is(codeOf(refused)?.code, 'DIGEST_INVALID');
  t.regex(String(codeOf(refused)?.message), /stored the content as sha256:/);
  t.is((await proxy.ask(`/v2/app/blobs/${blob.digest}`, {method: 'HEAD'})).status, 404);
});

test('a blob that the upstream names by another digest is accepted if it also knows ours', async (t) => {
  const blob = randomBlob(20, 'sha512');
  const {proxy} = await start(t, [
    begun(),
    {
      request: /^PUT /,
      answer: {status: 201, headers: {'Docker-Content-Digest': contentOf(blob.bytes).digest}},
    },
    {
      request: `HEAD /v2/library/app/blobs/${blob.digest}`,
      answer: {headers: {'Content-Length': '20'}, body: []},
    },
  ]);
  const path = pathOf(await begin(proxy));
  const done = await close(proxy, path, blob.digest, blob.bytes);
  t.is(done.status, 201);
  t.is(done.headers['docker-content-digest'], blob.digest);
  t.deepEqual((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
});

test('a blob that was absent before its push is found right after it', async (t) => {
  const blob = randomBlob(20);
  const {proxy} = await start(t, [
    {request: `HEAD /v2/library/app/blobs/${blob.digest}`, answer: {status: 404}},
    begun(),
    {request: /^PUT /, answer: {status: 201}},
  ]);
  const path = `/v2/app/blobs/${blob.digest}`;
  t.is((await proxy.ask(path, {method: 'HEAD'})).status, 404);
  await close(proxy, pathOf(await begin(proxy)), blob.digest, blob.bytes);
  t.is((await proxy.ask(path, {method: 'HEAD'})).status, 200);
});

test('a deleted blob is deleted at the upstream and no longer linked here', async (t) => {
  const blob = randomBlob(20);
  const PATH = `/v2/library/app/blobs/${blob.digest}`;
  const {proxy} = await start(t, [
    begun(),
    {request: /^PUT /, answer: {status: 201}},
    {request: `DELETE ${PATH}`, answer: {status: 405}},
    {request: `DELETE ${PATH}`, answer: {status: 202}},
    {request: `HEAD ${PATH}`, answer: {status: 404}},
  ]);
  const path = `/v2/app/blobs/${blob.digest}`;
  await close(proxy, pathOf(await begin(proxy)), blob.digest, blob.bytes);
  const refused = await proxy.ask(path, {method: 'DELETE'});
  t.is(refused.status, 405);
  t.is(codeOf(refused)?.code, 'UNSUPPORTED');
  t.truthy(refused.headers.allow);
  t.is((await proxy.ask(path, {method: 'HEAD'})).status, 200);
  t.is((await proxy.ask(path, {method: 'DELETE'})).status, 202);
  t.is((await proxy.ask(path, {method: 'HEAD'})).status, 404);
});

test('deleting a blob that is gone at the upstream removes its link here', async (t) => {
  const blob = randomBlob(20);
  const PATH = `/v2/library/app/blobs/${blob.digest}`;
  const {proxy} = await start(t, [
    begun(),
    {request: /^PUT /, answer: {status: 201}},
    {request: `DELETE ${PATH}`, answer: {status: 404}},
    {request: `HEAD ${PATH}`, answer: {status: 404}},
  ]);
  const path = `/v2/app/blobs/${blob.digest}`;
  await close(proxy, pathOf(await begin(proxy)), blob.digest, blob.bytes);
  t.is((await proxy.ask(path, {method: 'DELETE'})).status, 404);
  t.is((await proxy.ask(path, {method: 'HEAD'})).status, 404);
});

test('the client gets 403, never 401, when the upstream refuses our credentials', async (t) => {
  const {proxy} = await start(t, [{request: `POST ${UPLOADS}`, answer: {status: 403}}]);
  const refused = await begin(proxy);
  t.is(refused.status, 403);
  t.is(codeOf(refused)?.code, 'DENIED');
});

test('an upstream that does not report its offset is assumed to have what was sent', async (t) => {
  const blob = randomBlob(30);
  const silent = (status: number) => ({status, headers: {Location: `${UPLOADS}one?_state=b`}});
  const {proxy} = await start(t, [
    begun(),
    {request: `PATCH ${UPLOADS}one?_state=a`, answer: silent(202)},
    {request: `PATCH ${UPLOADS}one?_state=b`, answer: silent(202)},
    {request: `GET ${UPLOADS}one?_state=b`, answer: silent(204)},
    {request: /^PUT /, answer: {status: 201}},
  ]);
  const path = pathOf(await begin(proxy));
  const ranges = [];
  for (const [from, to] of [
    [0, 10],
    [10, 20],
  ]) {
    const body = blob.bytes.subarray(from, to);
    ranges.push((await proxy.ask(path, {method: 'PATCH', body})).headers['range']);
  }
  ranges.push((await proxy.ask(path)).headers['range']);
  t.deepEqual(ranges, ['0-9', '0-19', '0-19']);
  t.is((await close(proxy, path, blob.digest, blob.bytes.subarray(20))).status, 201);
  t.deepEqual((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
});

test('a chunk that is sent again after it broke off is not appended twice', async (t) => {
  const blob = randomBlob(30);
  const {proxy} = await start(t, [
    begun(),
    {request: `PATCH ${UPLOADS}one?_state=a`, answer: {before: BREAK}},
    {request: `GET ${UPLOADS}one?_state=a`, answer: at('b', 7, 204)},
    {request: `GET ${UPLOADS}one?_state=b`, answer: at('b', 7, 204)},
    {request: `PATCH ${UPLOADS}one?_state=b`, sends: {'content-range': '7-19'}, answer: at('c', 20)},
    {request: `PATCH ${UPLOADS}one?_state=c`, sends: {'content-range': '20-29'}, answer: at('d', 30)},
  ]);
  const path = pathOf(await begin(proxy));
  t.is((await proxy.ask(path, chunk(blob.bytes.subarray(0, 10), 0))).status, 503);
  const again = await proxy.ask(path, chunk(blob.bytes.subarray(0, 10), 0));
  t.is(again.status, 416);
  t.is(again.headers['range'], '0-6');
  // So does the next process, whose copy has more bytes than the row says the upstream has.
  const next = await proxy.restart();
  t.is((await next.ask(path, chunk(blob.bytes.subarray(7, 20), 7))).status, 202);
  // From then on the offset is known.
  t.is((await next.ask(path, chunk(blob.bytes.subarray(20), 20))).status, 202);
});

test('a closing PUT that is not answered 201 succeeds only if the upstream has the blob', async (t) => {
  const blob = randomBlob(20);
  const head = (answer: ScriptedAnswer): Expectation => ({
    request: `HEAD /v2/library/app/blobs/${blob.digest}`,
    answer,
  });
  const closing = async (answer: ScriptedAnswer, ...script: Expectation[]) => {
    const {proxy} = await start(t, [begun(), {request: /^PUT /, answer}, ...script]);
    return close(proxy, pathOf(await begin(proxy)), blob.digest, blob.bytes);
  };
  const length = {headers: {'Content-Length': '20'}, body: []};
  const page = {headers: {'Content-Type': 'text/html'}, body: '<html>sign in</html>'};
  t.is((await closing({status: 200, body: '{}'}, head(length))).status, 201);
  const absent = await closing({status: 200, body: '{}'}, head({status: 404}));
  t.is(absent.status, 503);
  t.regex(absent.body.toString(), /without answering 201, and does not have the blob/);
  const pages = {...head({...length, headers: page.headers}), times: 4};
  t.is((await closing({status: 200, body: '{}'}, pages)).status, 503);
  t.is((await closing(page)).status, 503);
});

test('the body of an upload that is cancelled in the meantime is read no further', async (t) => {
  const upstream = await createScriptedUpstream(
    t,
    [
      begun(),
      {request: `PATCH ${UPLOADS}one?_state=a`, answer: at('b', 10), optional: true},
      {request: `DELETE ${UPLOADS}one?_state=a`, answer: {status: 204}},
    ],
    {anyOrder: true},
  );
  const registries = [{url: upstream.url, push: 'through' as const}];
  const {verbs, route} = await wireInProcess(t, {registries, clock: createMovableClock()});
  const app = route('app');
  const opened = await verbs.push.begin(app, {algorithm: undefined, mount: undefined}, ANONYMOUS);
  if (opened === 'mounted') throw new Error('nothing is to be mounted');
  let isCancelled = false;
  const body = endlessBody(async () => {
    if (!isCancelled) await verbs.push.cancel(app, opened.id, ANONYMOUS);
    isCancelled = true;
    return Buffer.alloc(10);
  });
  const sent = {length: undefined, range: undefined, bytes: body.bytes};
  await t.throwsAsync(verbs.push.append(app, opened.id, sent, ANONYMOUS));
  t.true(body.isReturned);
});
