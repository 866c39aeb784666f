import {readdir} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {createUploadId} from '../../src/oci/upload.ts';
import {type Backref, DAY, type ProxyAnswer, startBackref} from '../support/backref.ts';
import {contentOf, imageManifest, plainManifest, randomBlob} from '../support/content.ts';
import {openRaw} from '../support/raw-http.ts';
import {type Lifetime, shareAmongTests} from '../support/shared.ts';
import {errorOf, SPEC_CODES} from './spec-codes.ts';

const HOST = 'Host: 127.0.0.1\r\n';
const UPLOADS = '/v2/app/blobs/uploads/';
const blob = randomBlob(3000);
const other = randomBlob(3000);

const EVERYTHING = {blobs: true, children: true, sizes: true};

/** Two hosted registries, `apps.local` (the default) and `other.local`, that must not cause a fault. */
async function start(t: Lifetime): Promise<Backref> {
  const hosted = await startBackref(t, {
    registries: [{name: 'apps.local', library: false, validate: EVERYTHING}, {name: 'other.local'}],
  });
  const faults: unknown[] = [];
  hosted.server.events.on('request.fault', ({error}) => void faults.push(error));
  hosted.server.events.on('background.failed', ({error}) => void faults.push(error));
  t.teardown(() => {
    if (faults.length > 0) throw faults[0];
  });
  return hosted;
}

/** A shared one, for what is refused and leaves nothing behind. */
const shared = shareAmongTests(test, start);

/** @throws unless the answer is an error of the specification. */
function fault(got: ProxyAnswer | undefined): {status: number; code: string; message: string} {
  if (!got) throw new Error('no answer');
  const {code, message} = errorOf(got);
  if (got.status >= 500 || !SPEC_CODES.includes(code)) throw new Error(`${got.status} ${code} ${message}`);
  return {status: got.status, code, message};
}

async function begin(hosted: Backref, path = UPLOADS): Promise<string> {
  const {status, headers} = await hosted.ask(path, {method: 'POST'});
  if (status !== 202 || headers.location === undefined) throw new Error(`no upload: ${status}`);
  return headers.location;
}

const patch = (hosted: Backref, location: string, body: Buffer, range?: string): Promise<ProxyAnswer> =>
  hosted.ask(location, {method: 'PATCH', body, headers: range === undefined ? {} : {'Content-Range': range}});
const put = (
  hosted: Backref,
  location: string,
  digest: string,
  body: Buffer = Buffer.alloc(0),
): Promise<ProxyAnswer> => hosted.ask(`${location}?digest=${digest}`, {method: 'PUT', body});
const putManifest = (hosted: Backref, body: Buffer | string, type = OCI_MANIFEST, reference = 'v1') =>
  hosted.ask(`/v2/app/manifests/${reference}`, {method: 'PUT', body, headers: {'Content-Type': type}});

/** Resolves when this many bytes of an upload are here. */
async function reaches(hosted: Backref, location: string, range: string): Promise<void> {
  while ((await hosted.ask(location)).headers.range !== range);
}

const spooled = ({folder}: Backref): Promise<string[]> => readdir(join(folder, 'spool')).catch(() => []);

/** Lets every upload expire. */
async function expireUploads({server, clock}: Backref): Promise<number> {
  clock.move(2 * DAY);
  const commands = await server.commands();
  const {uploads} = await commands.collect({
    grace: DAY,
    signal: new AbortController().signal,
    progress: () => {},
  });
  return uploads;
}

const wrong: [how: string, push: (hosted: Backref) => Promise<ProxyAnswer>][] = [
  ['POST and PUT', async (hosted) => put(hosted, await begin(hosted), other.digest, blob.bytes)],
  [
    'one POST',
    (hosted) => hosted.ask(`${UPLOADS}?digest=${other.digest}`, {method: 'POST', body: blob.bytes}),
  ],
  [
    'chunks',
    async (hosted) => {
      const location = await begin(hosted);
      await patch(hosted, location, blob.bytes.subarray(0, 1000), '0-999');
      await patch(hosted, location, blob.bytes.subarray(1000), '1000-2999');
      return put(hosted, location, other.digest);
    },
  ],
  ['no bytes at all', async (hosted) => put(hosted, await begin(hosted), blob.digest)],
];

for (const [how, push] of wrong) {
  test(`a wrong digest is 400 DIGEST_INVALID and leaves nothing behind: ${how}`, async (t) => {
    const hosted = await start(t);
    t.like(fault(await push(hosted)), {status: 400, code: 'DIGEST_INVALID'});
    t.deepEqual(await spooled(hosted), []);
    for (const {digest} of [blob, other]) {
      t.is((await hosted.ask(`/v2/app/blobs/${digest}`)).status, 404);
    }
  });
}

test('a manifest with another digest is 400 DIGEST_INVALID', async (t) => {
  const hosted = await shared();
  const [image, another] = [plainManifest(), plainManifest()];
  t.like(fault(await putManifest(hosted, image.bytes, image.mediaType, another.digest)), {
    status: 400,
    code: 'DIGEST_INVALID',
  });
  for (const {digest} of [image, another])
    t.is((await hosted.ask(`/v2/app/manifests/${digest}`)).status, 404);
});

test('chunks that leave a gap, go back or repeat are 416 with the received range, and the upload can continue', async (t) => {
  const hosted = await start(t);
  const location = await begin(hosted);
  const refused = async (range: string, here: string) => {
    const [start, end] = range.split('-').map(Number);
    const got = await patch(hosted, location, blob.bytes.subarray(start, (end ?? 0) + 1), range);
    t.like(fault(got), {status: 416, code: 'BLOB_UPLOAD_INVALID'});
    t.like(got.headers, {location, range: here});
    const state = await hosted.ask(location);
    t.is(state.status, 204);
    t.like(state.headers, {location, range: here});
  };
  await refused('1000-1999', '0-0');
  t.is((await patch(hosted, location, blob.bytes.subarray(0, 1000), '0-999')).status, 202);
  await refused('2000-2999', '0-999');
  await refused('0-999', '0-999');
  await refused('999-1999', '0-999');
  const last = await hosted.ask(`${location}?digest=${blob.digest}`, {
    method: 'PUT',
    body: blob.bytes.subarray(2000),
    headers: {'Content-Range': '2000-2999'},
  });
  t.is(last.status, 416);
  t.like(last.headers, {location, range: '0-999'});
  t.is((await patch(hosted, location, blob.bytes.subarray(1000), '1000-2999')).status, 202);
  t.is((await put(hosted, location, blob.digest)).status, 201);
  t.deepEqual((await hosted.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
});

test('an upload that is unknown, finished, cancelled or in another repository is 404 BLOB_UPLOAD_UNKNOWN', async (t) => {
  const hosted = await start(t);
  const mine = await begin(hosted);
  const over = await begin(hosted);
  await put(hosted, over, blob.digest, blob.bytes);
  const cancelled = await begin(hosted);
  t.is((await hosted.ask(cancelled, {method: 'DELETE'})).status, 204);
  for (const location of [
    `${UPLOADS}${createUploadId()}`,
    over,
    cancelled,
    mine.replace('/app/', '/app/b/'),
    mine.replace('/app/', '/other.local/app/'),
    `${mine}?ns=other.local`,
  ]) {
    const mark = location.includes('?') ? '&' : '?';
    for (const [method, path] of [
      ['GET', location],
      ['PATCH', location],
      ['DELETE', location],
      ['PUT', `${location}${mark}digest=${blob.digest}`],
    ] as const) {
      const body = method === 'PATCH' || method === 'PUT' ? blob.bytes : undefined;
      t.like(fault(await hosted.ask(path, {method, ...(body ? {body} : {})})), {
        status: 404,
        code: 'BLOB_UPLOAD_UNKNOWN',
      });
    }
  }
  t.is((await put(hosted, mine, other.digest, other.bytes)).status, 201);
});

test('a body that breaks off leaves the bytes that arrived, and the client continues there', async (t) => {
  const hosted = await start(t);
  const location = await begin(hosted);
  const {send, socket} = await openRaw(t, hosted.port);
  send(`PATCH ${location} HTTP/1.1\r\n${HOST}Content-Range: 0-2999\r\nContent-Length: 3000\r\n\r\n`);
  send(blob.bytes.subarray(0, 1200));
  await reaches(hosted, location, '0-1199');
  const ended = new Promise<void>((resolve) => {
    hosted.server.events.on('request.end', ({method}) => method === 'PATCH' && resolve());
  });
  socket.destroy();
  await ended;
  t.is((await hosted.ask(location)).headers.range, '0-1199');
  t.is((await patch(hosted, location, blob.bytes.subarray(1200), '1200-2999')).status, 202);
  t.is((await put(hosted, location, blob.digest)).status, 201);
});

test('abandoned uploads are swept, with their bytes', async (t) => {
  const hosted = await start(t);
  const left = [await begin(hosted), await begin(hosted, '/v2/other.local/app/blobs/uploads/')];
  for (const location of left) await patch(hosted, location, blob.bytes);
  t.is((await spooled(hosted)).length, 2);
  t.is(await expireUploads(hosted), 2);
  t.deepEqual(await spooled(hosted), []);
  for (const location of left) t.is(fault(await hosted.ask(location)).code, 'BLOB_UPLOAD_UNKNOWN');
});

test('a manifest of more than the configured 4 MiB is 413', async (t) => {
  const hosted = await start(t);
  const manifest = (size: number) => {
    const [head, tail] = [`{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[],"x":"`, '"}'];
    return `${head}${'x'.repeat(size - head.length - tail.length)}${tail}`;
  };
  const MiB4 = 4 * 1024 * 1024;
  t.is((await putManifest(hosted, manifest(MiB4), OCI_INDEX)).status, 201);
  t.is(fault(await putManifest(hosted, manifest(MiB4 + 1), OCI_INDEX)).status, 413);
});

const nested = (open: string, close: string, depth: number) => open.repeat(depth) + close.repeat(depth);
const manifestWith = (rest: string) => `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[]${rest}}`;
const entry = (index: number) =>
  `{"mediaType":"${OCI_MANIFEST}","digest":"sha256:${index.toString(16).padStart(64, '0')}","size":1}`;

const bombs: [what: string, body: () => string][] = [
  ['no body', () => ''],
  ['text that is not JSON', () => 'hello'],
  ['half of an object', () => '{"schemaVersion":2'],
  ['two objects', () => '{}{}'],
  ['a list', () => '[]'],
  ['null', () => 'null'],
  ['a number', () => '1e999'],
  ['invalid UTF-8', () => '{"a":"\xff"}'],
  ['a million open brackets', () => '['.repeat(1_000_000)],
  ['lists nested a million deep', () => manifestWith(`,"x":${nested('[', ']', 1_000_000)}`)],
  [
    'objects of a depth of 500,000',
    () => manifestWith(`,"x":${nested('{"a":', '}', 500_000).replace('}', '1}')}`),
  ],
  ['a subject twice', () => manifestWith(`,"subject":${entry(1)},"subject":${entry(2)}`)],
  ['its media type twice', () => manifestWith(`,"mediaType":"${OCI_MANIFEST}"`)],
  [
    'a million entries that are none',
    () => `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${'{},'.repeat(1_000_000)}{}]}`,
  ],
  [
    'a million times null',
    () => `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${'0,'.repeat(1_000_000)}0]}`,
  ],
];

for (const [what, body] of bombs) {
  test(`a manifest of ${what} is 400 MANIFEST_INVALID, and others are served meanwhile`, async (t) => {
    const hosted = await shared();
    const bytes = Buffer.from(body(), 'latin1');
    const [got, ping] = await Promise.all([putManifest(hosted, bytes, OCI_INDEX), hosted.ask('/v2/')]);
    t.like(fault(got), {status: 400, code: 'MANIFEST_INVALID'});
    t.is(ping.status, 200);
    t.is((await hosted.ask('/v2/app/manifests/v1')).status, 404);
  });
}

test('an index of a million manifests is 413, and one with as many as fit is refused with what is missing', async (t) => {
  const hosted = await shared();
  const index = (count: number) =>
    `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${Array.from({length: count}, (_, number) => entry(number)).join()}]}`;
  t.is(fault(await putManifest(hosted, index(1_000_000), OCI_INDEX)).status, 413);
  const got = await putManifest(hosted, index(25_000), OCI_INDEX);
  t.like(fault(got), {status: 404, code: 'MANIFEST_BLOB_UNKNOWN'});
  t.true(got.body.length < 10_000);
});

test('a manifest that names missing blobs is MANIFEST_BLOB_UNKNOWN and sets no tag', async (t) => {
  const hosted = await shared();
  const image = imageManifest([blob]);
  const {code, message} = fault(await putManifest(hosted, image.bytes));
  t.is(code, 'MANIFEST_BLOB_UNKNOWN');
  t.true(message.includes(blob.digest));
  t.is((await hosted.ask('/v2/app/manifests/v1')).status, 404);
  t.is((await hosted.ask('/v2/app/tags/list')).status, 404);
});

test('a declared size that is wrong is 400 where sizes are validated', async (t) => {
  const hosted = await start(t);
  await put(hosted, await begin(hosted), blob.digest, blob.bytes);
  await put(hosted, await begin(hosted), contentOf(Buffer.from('{}')).digest, Buffer.from('{}'));
  const {bytes} = imageManifest([blob]);
  const text = bytes.toString().replace('"size": 3000', '"size": 3001');
  t.like(fault(await putManifest(hosted, text)), {status: 400, code: 'SIZE_INVALID'});
});

test('a Content-Type that contradicts the manifest is 400 MANIFEST_INVALID', async (t) => {
  const hosted = await shared();
  const {bytes} = plainManifest();
  t.is(fault(await putManifest(hosted, bytes, OCI_MANIFEST)).code, 'MANIFEST_INVALID');
});

test('a DELETE of something that does not exist is 404', async (t) => {
  const hosted = await shared();
  for (const [path, code] of [
    ['manifests/v1', 'MANIFEST_UNKNOWN'],
    [`manifests/${blob.digest}`, 'MANIFEST_UNKNOWN'],
    [`blobs/${blob.digest}`, 'BLOB_UNKNOWN'],
  ]) {
    t.like(fault(await hosted.ask(`/v2/app/${path}`, {method: 'DELETE'})), {status: 404, code});
  }
});

test('malformed names, tags and digests are 400 in pushes too', async (t) => {
  const hosted = await shared();
  for (const [method, path, code] of [
    ['POST', '/v2/App/blobs/uploads/', 'NAME_INVALID'],
    ['POST', '/v2/a/../b/blobs/uploads/', 'NAME_INVALID'],
    ['PUT', '/v2/App/manifests/1', 'NAME_INVALID'],
    ['PUT', '/v2/app/manifests/-1', 'MANIFEST_INVALID'],
    ['PUT', '/v2/app/manifests/sha256:1', 'DIGEST_INVALID'],
    ['DELETE', '/v2/app/manifests/sha256:1', 'DIGEST_INVALID'],
    ['DELETE', '/v2/app/blobs/latest', 'DIGEST_INVALID'],
    ['POST', `${UPLOADS}?digest=sha256:1`, 'DIGEST_INVALID'],
    ['POST', `${UPLOADS}?digest=${blob.digest}&digest=${blob.digest}`, 'UNSUPPORTED'],
  ]) {
    t.like(fault(await hosted.ask(path ?? '', {method: method ?? ''})), {
      status: 400,
      code,
    });
  }
});

test('two requests cannot write the same upload at once', async (t) => {
  const hosted = await start(t);
  const location = await begin(hosted);
  const {send, answer} = await openRaw(t, hosted.port);
  send(`PATCH ${location} HTTP/1.1\r\n${HOST}Content-Length: 3000\r\n\r\n`);
  send(blob.bytes.subarray(0, 100));
  await reaches(hosted, location, '0-99');
  const got = await patch(hosted, location, blob.bytes);
  t.is(got.status, 409);
  t.is(fault(got).code, 'BLOB_UPLOAD_INVALID');
  send(blob.bytes.subarray(100));
  t.is((await answer('PATCH'))?.status, 202);
  t.is((await put(hosted, location, blob.digest)).status, 201);
});
