import {once} from 'node:events';
import test from 'ava';
import {errorAnswer} from '../../src/http/errors.ts';
import {ERRORS, type ErrorCode, OciError} from '../../src/oci/errors.ts';
import {startBackref} from '../support/backref.ts';
import {randomBlob} from '../support/content.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {errorOf, SPEC_CODES} from './spec-codes.ts';

const {digest} = randomBlob(1);
const zeros = `sha256:${'0'.repeat(64)}`;

test('the codes of 4xx answers are exactly those of the specification', (t) => {
  const codes = Object.keys(ERRORS) as ErrorCode[];
  t.deepEqual(codes.filter((code) => ERRORS[code].status < 500).sort(), [...SPEC_CODES].sort());
});

test('an error becomes status, headers and one entry with the request id', (t) => {
  const error = new OciError('NAME_UNKNOWN', {
    message: 'no',
    detail: {name: 'a'},
    headers: {'Retry-After': '1'},
  });
  t.deepEqual(errorAnswer(error, 'id'), {
    status: 404,
    headers: {'Retry-After': '1', 'Content-Type': 'application/json'},
    body: Buffer.from(
      '{"errors":[{"code":"NAME_UNKNOWN","message":"no","detail":{"name":"a","requestId":"id"}}]}',
    ),
    reason: 'no',
  });
});

test('an internal error reveals only the request id', (t) => {
  const {status, body} = errorAnswer(new TypeError('secret path /etc'), 'id');
  t.is(status, 500);
  t.is(
    body.toString(),
    '{"errors":[{"code":"UNKNOWN","message":"unexpected fault of this server","detail":{"requestId":"id"}}]}',
  );
});

const cases: [what: string, path: string, status: number, code: string][] = [
  ['an absent tag', '/v2/app/manifests/absent', 404, 'MANIFEST_UNKNOWN'],
  ['an absent manifest', `/v2/app/manifests/${digest}`, 404, 'MANIFEST_UNKNOWN'],
  ['an absent blob', `/v2/app/blobs/${digest}`, 404, 'BLOB_UNKNOWN'],
  ['an absent repository', '/v2/app/tags/list', 404, 'NAME_UNKNOWN'],
  ['an unknown registry', '/v2/app/tags/list?ns=x', 404, 'NAME_UNKNOWN'],
  ['a malformed name', '/v2/App/tags/list', 400, 'NAME_INVALID'],
  ['a malformed digest', '/v2/app/blobs/sha256:0', 400, 'DIGEST_INVALID'],
  ['a malformed tag', '/v2/app/manifests/-', 400, 'MANIFEST_INVALID'],
  ['a malformed n', '/v2/app/tags/list?n=x', 400, 'UNSUPPORTED'],
  ['a duplicated ns', '/v2/app/tags/list?ns=docker.io&ns=docker.io', 400, 'UNSUPPORTED'],
  ['an unknown path', '/v2/app', 404, 'UNSUPPORTED'],
  ['an upload', '/v2/app/blobs/uploads/x', 405, 'UNSUPPORTED'],
  ['an overlong target', `/v2/${'a/'.repeat(5000)}tags/list`, 414, 'NAME_INVALID'],
  ['a refused repository', '/v2/denied/app/manifests/x', 403, 'DENIED'],
];

for (const [what, path, status, code] of cases) {
  test(`${what} is ${status} ${code}: JSON with the request id of the header, and no body for HEAD`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: /\/denied\//, answer: {status: 403}, always: true, optional: true},
      {request: /./, answer: {status: 404}, always: true, optional: true},
    ]);
    const proxy = await startBackref(t, {registries: [upstream]});
    const got = await proxy.ask(path);
    t.is(got.status, status);
    const error = errorOf(got);
    t.is(error.code, code);
    t.true(SPEC_CODES.includes(error.code));
    t.regex(String(got.headers['x-request-id']), /^[0-9a-f]{32}$/);
    t.is(error.detail['requestId'], got.headers['x-request-id']);
    t.is(got.headers['cache-status'], undefined);
    t.is(got.headers.etag, undefined);

    const head = await proxy.ask(path, {method: 'HEAD'});
    t.is(head.status, status);
    t.is(head.body.length, 0);
    t.is(head.headers['content-type'], 'application/json');
    t.true(Number(head.headers['content-length']) > 0);
  });
}

test('two requests never share an id', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [upstream]});
  const [first, second] = await Promise.all([proxy.ask('/v2/'), proxy.ask('/v2/')]);
  t.not(first?.headers['x-request-id'], second?.headers['x-request-id']);
});

test('a range outside the blob is 416 SIZE_INVALID with the size', async (t) => {
  const blob = randomBlob(10);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: {body: blob.bytes}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/app/blobs/${blob.digest}`);
  const got = await proxy.ask(`/v2/app/blobs/${blob.digest}`, {headers: {Range: 'bytes=10-'}});
  t.is(got.status, 416);
  t.is(errorOf(got).code, 'SIZE_INVALID');
  t.is(got.headers['content-range'], 'bytes */10');
  t.is(got.headers['accept-ranges'], undefined);
});

test('a miss that the upstream cannot answer is 503 with its reason, the request id and Retry-After', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/${zeros}`, answer: {status: 500}, times: 4},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(`/v2/app/manifests/${zeros}`);
  t.is(got.status, 503);
  t.is(got.headers['retry-after'], '5');
  const {code, detail} = errorOf(got);
  t.is(code, 'UNAVAILABLE');
  t.deepEqual(detail, {
    upstream: upstream.host,
    registry: 'docker.io',
    repository: 'library/app',
    kind: 'status',
    requestId: got.headers['x-request-id'],
  });
});

test('the event of a request has the error that the client got, and the number of bytes that it was sent', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [upstream]});
  const ended = () => once(proxy.server.events, 'request.end');
  const [[full], whole] = await Promise.all([ended(), proxy.ask('/v2/app/manifests/-?a=b')]);
  const [[head], got] = await Promise.all([ended(), proxy.ask('/v2/app/manifests/-?a=b', {method: 'HEAD'})]);
  t.like(head, {
    id: got.headers['x-request-id'],
    method: 'HEAD',
    url: '/v2/app/manifests/-?a=b',
    status: 400,
    registry: 'docker.io',
    cache: undefined,
  });
  // The headers of the two are equally long, and only the GET has a body.
  t.is(full.bytes - head.bytes, whole.body.length);
});
