import {readdir, rm} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {startBackref} from '../../support/backref.ts';
import {
  blobAnswer,
  contentOf,
  imageManifest,
  manifestAnswer,
  randomBlob,
  sha256,
} from '../../support/content.ts';
import {BREAK, createScriptedUpstream} from '../../support/scripted-upstream.ts';

const MiB = 1024 * 1024;
const blob = randomBlob(3 * MiB);
const small = randomBlob(1000);
const pathOf = ({digest}: {digest: string}, name = 'app') => `/v2/${name}/blobs/${digest}`;
const getOf = (content: {digest: string}, name = 'app') => `GET ${pathOf(content, `library/${name}`)}`;
const headOf = (content: {digest: string}, name = 'app') => `HEAD ${pathOf(content, `library/${name}`)}`;
const length = ({bytes}: {bytes: Buffer}) => ({headers: {'Content-Length': String(bytes.length)}, body: []});

/** The files below a folder, without the folders. */
async function filesIn(folder: string): Promise<string[]> {
  const entries = await readdir(folder, {recursive: true, withFileTypes: true});
  return entries.filter((entry) => entry.isFile()).map(({name}) => name);
}

for (const [what, content] of [
  ['large', blob],
  ['small', small],
  ['empty', contentOf(Buffer.alloc(0))],
  ['sha512', randomBlob(100_000, 'sha512')],
] as const) {
  test(`a ${what} blob is downloaded once and then served from here, with or without the upstream`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: getOf(content), answer: blobAnswer(content), sends: {'accept-encoding': 'identity'}},
    ]);
    const proxy = await startBackref(t, {registries: [upstream]});
    const cold = await proxy.ask(pathOf(content));
    t.is(cold.status, 200);
    t.true(cold.body.equals(content.bytes));
    t.is(cold.headers['cache-status'], 'backref;fwd=uri-miss;stored');
    t.is(cold.headers['content-length'], String(content.bytes.length));
    t.is(cold.headers['docker-content-digest'], content.digest);
    await proxy.idle();
    await upstream.stop();
    const warm = await proxy.ask(pathOf(content));
    t.true(warm.body.equals(content.bytes));
    t.is(warm.headers['cache-status'], 'backref;hit');
    t.is(warm.headers['accept-ranges'], 'bytes');
    t.is(warm.headers['content-type'], 'application/octet-stream');
    const again = await (await proxy.restart()).ask(pathOf(content));
    t.true(again.body.equals(content.bytes));
  });
}

test('a blob that the upstream does not have is 404, remembered for five seconds', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(blob), answer: {status: 404}}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(pathOf(blob));
  t.is(got.status, 404);
  t.like(got.json(), {errors: [{code: 'BLOB_UNKNOWN'}]});
  t.is((await proxy.ask(pathOf(blob), {method: 'HEAD'})).status, 404);
  proxy.clock.move(5001);
  upstream.expect({request: getOf(blob), answer: blobAnswer(blob)});
  t.is((await proxy.ask(pathOf(blob))).status, 200);
});

test('a blob of an upstream that cannot be asked is 503 or 403, never 404', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: getOf(blob), answer: {status: 500}, times: 4},
    {request: getOf(small), answer: {status: 403}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is((await proxy.ask(pathOf(blob))).status, 503);
  const denied = await proxy.ask(pathOf(small));
  t.is(denied.status, 403);
  t.like(denied.json(), {errors: [{code: 'DENIED'}]});
});

test('HEAD of a blob that is not here asks by HEAD and starts no download', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: headOf(blob), answer: length(blob)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(pathOf(blob), {method: 'HEAD', headers: {range: 'bytes=0-1'}});
  t.is(got.status, 200);
  t.is(got.headers['content-length'], String(blob.bytes.length));
  t.is(got.headers['docker-content-digest'], blob.digest);
  t.is(got.headers['content-range'], undefined);
});

test('a HEAD has the length that a manifest names when the upstream names none', async (t) => {
  const image = imageManifest([blob]);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/1`, answer: manifestAnswer(image)},
    {request: headOf(blob), answer: {headers: {'Transfer-Encoding': 'chunked'}, body: []}},
    {request: getOf(blob), answer: {status: 200, body: [blob.bytes]}, optional: true},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask('/v2/app/manifests/1');
  const got = await proxy.ask(pathOf(blob), {method: 'HEAD'});
  t.is(got.headers['content-length'], String(blob.bytes.length));
});

test('a blob of unknown length is streamed, and has a length from then on', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(blob), answer: {body: [blob.bytes]}}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(pathOf(blob));
  t.true(got.body.equals(blob.bytes));
  t.is(got.headers['content-length'], undefined);
  // It is linked as soon as its bytes are stored: an upstream that names no length need not be asked.
  await proxy.idle();
  t.is((await proxy.ask(pathOf(blob))).headers['content-length'], String(blob.bytes.length));
});

test('a blob stored for one repository is served in another only once the upstream confirms it, without a download', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: getOf(blob), answer: blobAnswer(blob)},
    {request: headOf(blob, 'other'), answer: length(blob)},
    {request: headOf(blob, 'secret'), answer: {status: 404}},
    {request: headOf(blob, 'closed'), answer: {status: 403}},
    {request: headOf(blob, 'unsure'), answer: {status: 500}, times: 4},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(pathOf(blob));
  await proxy.idle();
  const other = await proxy.ask(pathOf(blob, 'other'));
  t.true(other.body.equals(blob.bytes));
  t.is(other.headers['cache-status'], 'backref;fwd=uri-miss;detail=confirmed');
  t.is((await proxy.ask(pathOf(blob, 'other'))).headers['cache-status'], 'backref;hit');
  t.is((await proxy.ask(pathOf(blob, 'secret'))).status, 404);
  t.is((await proxy.ask(pathOf(blob, 'closed'))).status, 403);
  t.is((await proxy.ask(pathOf(blob, 'unsure'))).status, 503);
});

test('ranges of a stored blob: first, middle, open, suffix, oversized suffix', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(blob), answer: blobAnswer(blob)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(pathOf(blob));
  const size = blob.bytes.length;
  for (const [range, start, end] of [
    ['bytes=0-0', 0, 0],
    ['bytes=500000-2500000', 500_000, 2_500_000],
    [`bytes=${size - 1}-`, size - 1, size - 1],
    ['bytes=-5', size - 5, size - 1],
    [`bytes=-${size * 2}`, 0, size - 1],
    [`bytes=10-${size * 2}`, 10, size - 1],
  ] as const) {
    const got = await proxy.ask(pathOf(blob), {headers: {range}});
    t.is(got.status, 206, range);
    t.is(got.headers['content-range'], `bytes ${start}-${end}/${size}`);
    t.is(got.headers['content-length'], String(end - start + 1));
    t.true(got.body.equals(blob.bytes.subarray(start, end + 1)), range);
  }
});

test('ranges that cannot be satisfied are 416; malformed ones and other units are ignored', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(small), answer: blobAnswer(small)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(pathOf(small));
  for (const range of ['bytes=500-0', 'bytes=1000-', 'bytes=5000-6000', 'bytes=-0']) {
    const got = await proxy.ask(pathOf(small), {headers: {range}});
    t.is(got.status, 416, range);
    t.is(got.headers['content-range'], 'bytes */1000');
    t.like(got.json(), {errors: [{code: 'SIZE_INVALID'}]});
  }
  for (const range of [
    'bytes=a-b',
    'lines=1-2',
    'lines=9-1',
    'bytes',
    'bytes=',
    `bytes=${'0-1,'.repeat(100)}`,
  ]) {
    const got = await proxy.ask(pathOf(small), {headers: {range}});
    t.is(got.status, 200, range);
    t.true(got.body.equals(small.bytes));
  }
});

test('several ranges of a stored blob are answered in one multipart body', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(blob), answer: blobAnswer(blob)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(pathOf(blob));
  await proxy.idle();
  const got = await proxy.ask(pathOf(blob), {headers: {range: 'bytes=0-9,2000000-2000009'}});
  t.is(got.status, 206);
  const boundary = /^multipart\/byteranges; boundary=(.+)$/.exec(String(got.headers['content-type']))?.[1];
  t.is(got.headers['content-length'], String(got.body.length));
  const [before, first, second, after] = got.body.toString('latin1').split(`--${boundary}`);
  t.is(before, '\r\n');
  const size = blob.bytes.length;
  const part = (start: number, end: number) =>
    `\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes ${start}-${end}/${size}\r\n\r\n${blob.bytes.subarray(start, end + 1).toString('latin1')}\r\n`;
  t.is(first, part(0, 9));
  t.is(second, part(2_000_000, 2_000_009));
  t.is(after, '--\r\n');
});

test('If-Range is honoured: another validator gets the whole blob', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(small), answer: blobAnswer(small)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(pathOf(small));
  const range = 'bytes=0-1';
  const same = await proxy.ask(pathOf(small), {headers: {range, 'if-range': `"${small.digest}"`}});
  t.is(same.status, 206);
  for (const validator of ['"other"', `W/"${small.digest}"`, 'Sun, 22 Nov 2026 00:00:00 GMT']) {
    t.is((await proxy.ask(pathOf(small), {headers: {range, 'if-range': validator}})).status, 200);
  }
});

test('If-None-Match with the digest is 304', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: getOf(small), answer: blobAnswer(small)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(pathOf(small));
  for (const method of ['GET', 'HEAD']) {
    t.is(
      (await proxy.ask(pathOf(small), {method, headers: {'if-none-match': `"${small.digest}"`}})).status,
      304,
    );
  }
});

test('a stored file that was lost is downloaded again', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: getOf(blob), answer: blobAnswer(blob), times: 2},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(pathOf(blob));
  await proxy.idle();
  await proxy.ask(pathOf(blob));
  await rm(join(proxy.folder, 'blobs', 'sha256'), {recursive: true});
  const got = await proxy.ask(pathOf(blob));
  t.is(got.status, 200);
  t.is(sha256(got.body), blob.digest);
});

test('bytes with another digest are never stored: the response is cut, and nothing is left behind', async (t) => {
  const wrong = Buffer.from(blob.bytes);
  wrong[17] = (wrong[17] ?? 0) ^ 1;
  const upstream = await createScriptedUpstream(t, [{request: getOf(blob), answer: {body: wrong}, times: 2}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  for (const _ of [1, 2]) {
    const message = await proxy.open(pathOf(blob));
    let received = 0;
    message.on('data', (chunk: Buffer) => {
      received += chunk.length;
    });
    await t.throwsAsync(new Promise((_, reject) => message.once('error', reject)), {code: 'ECONNRESET'});
    t.true(received < wrong.length);
    await proxy.idle();
  }
  t.deepEqual(
    (await filesIn(proxy.folder)).filter((name) => !/^(?:meta\.db|backref\.lock|backref-store)/.test(name)),
    [],
  );
});

test('a body that ends too early is continued from an upstream without ranges by skipping what is here', async (t) => {
  const half = blob.bytes.subarray(0, 2 * MiB);
  const upstream = await createScriptedUpstream(t, [
    {
      request: getOf(blob),
      answer: {headers: {'Content-Length': String(blob.bytes.length)}, body: [half, BREAK]},
    },
    {request: getOf(blob), sends: {range: /^bytes=\d+-$/}, answer: blobAnswer(blob)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(pathOf(blob));
  t.is(sha256(got.body), blob.digest);
});
