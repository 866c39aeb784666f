import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {startBackref} from '../../support/backref.ts';
import {blobAnswer, imageManifest, manifestAnswer, randomBlob, sha256} from '../../support/content.ts';
import {errorOf} from '../../support/pusher.ts';
import {createScriptedUpstream, HANG, type ScriptedAnswer} from '../../support/scripted-upstream.ts';

const MiB = 1024 * 1024;
const SIZE = 12 * MiB;
const RANGE = 'bytes=11000000-11000009';
const large = randomBlob(SIZE);
const small = randomBlob(5000);
const pathOf = ({digest}: {digest: string}, name = 'app') => `/v2/${name}/blobs/${digest}`;
const getOf = (blob: {digest: string}) => `GET ${pathOf(blob, 'library/app')}`;

interface FailedRange {
  title: string;
  answer: ScriptedAnswer;
  status: number;
  code: string;
  retryAfter?: string;
  rateLimitStatus?: 429;
}

const FAILURES: FailedRange[] = [
  {title: 'an error', answer: {status: 500}, status: 503, code: 'UNAVAILABLE', retryAfter: '5'},
  {
    title: 'its rate limit',
    answer: {status: 429, headers: {'Retry-After': '7'}},
    status: 503,
    code: 'UNAVAILABLE',
    retryAfter: '7',
  },
  {
    title: 'its rate limit, where the settings ask for 429',
    answer: {status: 429, headers: {'Retry-After': '7'}},
    rateLimitStatus: 429,
    status: 429,
    code: 'TOOMANYREQUESTS',
    retryAfter: '7',
  },
  {title: 'a denial', answer: {status: 403}, status: 403, code: 'DENIED'},
  {title: 'an absence', answer: {status: 404}, status: 404, code: 'BLOB_UNKNOWN'},
];

const ODD_RANGES: FailedRange[] = [
  {title: 'a 416', answer: {status: 416}, status: 503, code: 'UNAVAILABLE', retryAfter: '5'},
  {
    title: 'a range of a blob of another length',
    answer: {
      status: 206,
      headers: {'Content-Range': `bytes 11000000-11000009/${SIZE + 1}`},
      body: large.bytes.subarray(11_000_000, 11_000_010),
    },
    status: 503,
    code: 'UNAVAILABLE',
    retryAfter: '5',
  },
];

for (const {title, answer, status, code, retryAfter, rateLimitStatus = 503} of [...FAILURES, ...ODD_RANGES]) {
  test(`a range far beyond a running download that the upstream answers with ${title} is ${status}`, async (t) => {
    const beginning = {
      headers: {'Content-Length': String(SIZE)},
      body: [large.bytes.subarray(0, MiB), HANG] as const,
    };
    const upstream = await createScriptedUpstream(t, [
      {request: getOf(large), sends: {range: undefined}, answer: beginning},
      {request: getOf(large), sends: {range: RANGE}, answer, always: true},
    ]);
    const proxy = await startBackref(t, {
      registries: [{url: upstream.url, upstream: {rateLimitStatus}}],
      config: {shutdown: {grace: 50}},
    });
    const whole = await proxy.open(pathOf(large));
    const got = await proxy.ask(pathOf(large), {headers: {range: RANGE}});
    t.is(got.status, status);
    t.is(errorOf(got).code, code);
    t.is(got.headers['retry-after'], retryAfter);
    t.is(got.headers['content-range'], undefined);
    whole.destroy();
  });
}

/** A server that cannot keep anything, in front of an upstream that names the length of the small blob by HEAD. */
async function withoutSpool(t: ExecutionContext, answer: ScriptedAnswer, rateLimitStatus: 429 | 503 = 503) {
  const length = {'Content-Length': String(small.bytes.length)};
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${pathOf(small, 'library/app')}`, answer: {headers: length, body: []}},
    {request: getOf(small), answer, always: true},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: {rateLimitStatus}}]});
  await writeFile(join(proxy.folder, 'spool'), 'a file where the folder should be');
  return proxy;
}

const OTHER_LENGTH: FailedRange = {
  title: 'another length than its HEAD',
  answer: blobAnswer(randomBlob(5001)),
  status: 503,
  code: 'UNAVAILABLE',
  retryAfter: '5',
};

for (const {title, answer, status, code, retryAfter, rateLimitStatus} of [...FAILURES, OTHER_LENGTH]) {
  test(`a blob that cannot be kept, whose GET the upstream answers with ${title}, is ${status}`, async (t) => {
    const proxy = await withoutSpool(t, answer, rateLimitStatus);
    const got = await proxy.ask(pathOf(small));
    t.is(got.status, status);
    t.is(errorOf(got).code, code);
    t.is(got.headers['retry-after'], retryAfter);
  });
}

test('a range that is valid by the manifest is 503, not 416, while the upstream names a shorter length', async (t) => {
  const manifest = imageManifest([large]);
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/v1', answer: manifestAnswer(manifest)},
    {request: getOf(large), answer: {body: large.bytes.subarray(0, 2 * MiB)}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask('/v2/app/manifests/v1');
  const refused = await proxy.ask(pathOf(large), {headers: {range: 'bytes=3000000-3000999'}});
  t.is(refused.status, 503);
  t.is(errorOf(refused).code, 'UNAVAILABLE');
  t.truthy(refused.headers['retry-after']);
  await proxy.idle();

  // The wrong length is not remembered: where an upstream names none, the bytes that it sends count.
  upstream.expect({request: getOf(large), answer: {body: [large.bytes]}});
  t.is(sha256((await proxy.ask(pathOf(large))).body), large.digest);
  await proxy.idle();
  const beyond = await proxy.ask(pathOf(large), {headers: {range: `bytes=${SIZE}-`}});
  t.is(beyond.status, 416);
  t.is(beyond.headers['content-range'], `bytes */${SIZE}`);
});

test('a range beyond both lengths is 416, whichever is right', async (t) => {
  const manifest = imageManifest([large]);
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/v1', answer: manifestAnswer(manifest)},
    {request: getOf(large), answer: {body: large.bytes.subarray(0, 2 * MiB)}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask('/v2/app/manifests/v1');
  t.is((await proxy.ask(pathOf(large), {headers: {range: `bytes=${SIZE}-`}})).status, 416);
});

test('a blob that the upstream calls empty, but whose digest is not that of empty content, is 503', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(small), answer: {body: ''}}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(pathOf(small));
  t.is(got.status, 503);
  t.is(errorOf(got).code, 'UNAVAILABLE');
});

test('a manifest that names a size of 0 does not end the answer of an upstream that names no length', async (t) => {
  const manifest = imageManifest([{digest: small.digest, bytes: Buffer.alloc(0)}]);
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/v1', answer: manifestAnswer(manifest)},
    {request: getOf(small), answer: {body: [small.bytes]}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask('/v2/app/manifests/v1');
  t.is(sha256((await proxy.ask(pathOf(small))).body), small.digest);
});
