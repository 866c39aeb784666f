import {randomBytes} from 'node:crypto';
import test from 'ava';
import {parseTag} from '../../src/oci/name.ts';
import type {ManifestReceipt, PushedManifest} from '../../src/registry/push/push.ts';
import {imageManifest, randomBlob} from '../support/content.ts';
import {askRaw, openRaw} from '../support/raw-http.ts';
import {ask, startPushServer} from './http-server.ts';
import {errorOf} from './spec-codes.ts';

const HOST = 'Host: 127.0.0.1\r\n';
const image = imageManifest();
const subject = randomBlob(10).digest;
const receipt = (changes: Partial<ManifestReceipt> = {}): ManifestReceipt => ({
  digest: image.digest,
  subject: undefined,
  tags: [],
  ...changes,
});
const TYPE = {'Content-Type': image.mediaType};

/** Records and accepts what is put. */
function taking(changes: Partial<ManifestReceipt> = {}) {
  const seen: {reference: string; manifest: PushedManifest}[] = [];
  const putManifest = async (_route: unknown, reference: string, manifest: PushedManifest) => {
    seen.push({reference, manifest});
    return receipt({tags: manifest.tags, ...changes});
  };
  return {seen, putManifest};
}

test('a manifest is accepted byte for byte: 201 with its location and its digest', async (t) => {
  const {seen, putManifest} = taking();
  const {port} = await startPushServer(t, {putManifest});
  for (const reference of ['v1', image.digest]) {
    const got = await ask(port, 'PUT', `/v2/app/manifests/${reference}`, image.bytes, TYPE);
    t.is(got.status, 201);
    t.like(got.headers, {
      location: `/v2/app/manifests/${image.digest}`,
      'docker-content-digest': image.digest,
      'content-length': '0',
      'oci-subject': undefined,
      'oci-tag': undefined,
    });
    t.deepEqual(seen.pop(), {
      reference,
      manifest: {bytes: image.bytes, mediaType: image.mediaType, tags: []},
    });
  }
});

test('Location keeps the client’s own naming, prefix and ns included', async (t) => {
  const {port} = await startPushServer(t, taking());
  for (const [name, query] of [
    ['ghcr.io/org/app', ''],
    ['org/app', '?ns=ghcr.io'],
  ]) {
    const got = await ask(port, 'PUT', `/v2/${name}/manifests/1${query}`, image.bytes, TYPE);
    t.is(got.headers.location, `/v2/${name}/manifests/${image.digest}${query}`);
  }
});

test('OCI-Subject names the subject whose referrers now include the manifest', async (t) => {
  const {port} = await startPushServer(t, taking({subject}));
  const got = await ask(port, 'PUT', '/v2/app/manifests/1', image.bytes, TYPE);
  t.is(got.headers['oci-subject'], subject);
});

for (const [given, mediaType] of [
  [`${image.mediaType}; charset=utf-8`, image.mediaType],
  [` ${image.mediaType.toUpperCase()} `, image.mediaType],
  ['', undefined],
  [undefined, undefined],
]) {
  test(`the Content-Type "${given}" is ${mediaType}`, async (t) => {
    const {seen, putManifest} = taking();
    const {port} = await startPushServer(t, {putManifest});
    const headers = given === undefined ? {} : {'Content-Type': given};
    t.is((await ask(port, 'PUT', '/v2/app/manifests/1', image.bytes, headers)).status, 201);
    t.is(seen[0]?.manifest.mediaType, mediaType);
  });
}

const tagged = (count: number) => Array.from({length: count}, (_, index) => `tag=t${index}`).join('&');

test('?tag= names further tags, and each that was set is in OCI-Tag', async (t) => {
  const {seen, putManifest} = taking();
  const {port} = await startPushServer(t, {putManifest});
  const path = `/v2/app/manifests/${image.digest}?tag=1.2&ns=ghcr.io&tag=1&tag=1`;
  const request = `PUT ${path} HTTP/1.1\r\n${HOST}Connection: close\r\nContent-Length: 0\r\n\r\n`;
  const {send, socket} = await openRaw(t, port);
  send(request);
  const text = Buffer.concat(await socket.toArray()).toString();
  t.deepEqual(text.match(/^OCI-Tag: .*(?=\r$)/gm), ['OCI-Tag: 1.2', 'OCI-Tag: 1']);
  t.deepEqual(seen[0]?.manifest.tags, [parseTag('1.2'), parseTag('1')]);
});

test('100 further tags are accepted, 101 are 414', async (t) => {
  const {seen, putManifest} = taking();
  const {port} = await startPushServer(t, {putManifest});
  const put = (count: number) =>
    ask(port, 'PUT', `/v2/app/manifests/${image.digest}?${tagged(count)}`, image.bytes, TYPE);
  t.is((await put(100)).status, 201);
  t.is(seen[0]?.manifest.tags.length, 100);
  const got = await put(101);
  t.is(got.status, 414);
  t.is(errorOf(got).code, 'MANIFEST_INVALID');
});

for (const tag of ['', '-a', 'a%20b', 'a:b', image.digest, 'a'.repeat(129)]) {
  test(`the further tag "${tag.slice(0, 20)}" is 400 MANIFEST_INVALID`, async (t) => {
    const {port} = await startPushServer(t, {});
    const got = await ask(port, 'PUT', `/v2/app/manifests/${image.digest}?tag=${tag}`, image.bytes, TYPE);
    t.is(got.status, 400);
    t.is(errorOf(got).code, 'MANIFEST_INVALID');
  });
}

const LIMIT = 64 * 1024;

test('a manifest up to the limit is accepted, with or without a declared length', async (t) => {
  const {seen, putManifest} = taking();
  const {port} = await startPushServer(t, {putManifest});
  const bytes = randomBytes(LIMIT);
  for (const framing of [{'Content-Length': LIMIT}, {'Transfer-Encoding': 'chunked'}]) {
    t.is((await ask(port, 'PUT', '/v2/app/manifests/1', bytes, framing)).status, 201);
    t.deepEqual(seen.pop()?.manifest.bytes, bytes);
  }
});

test('a larger one is 413 and names the setting, with or without a declared length', async (t) => {
  const {port} = await startPushServer(t, {});
  const bytes = randomBytes(LIMIT + 1);
  for (const framing of [{'Content-Length': LIMIT + 1}, {'Transfer-Encoding': 'chunked'}]) {
    const got = await ask(port, 'PUT', '/v2/app/manifests/1', bytes, framing);
    t.is(got.status, 413);
    const {code, message} = errorOf(got);
    t.is(code, 'MANIFEST_INVALID');
    t.regex(message, /65536 bytes that registries\.docker\.io\.maxManifest allows/);
  }
});

test('one that declares a terabyte is refused before its first byte arrives', async (t) => {
  const {port} = await startPushServer(t, {});
  const text = `PUT /v2/app/manifests/1 HTTP/1.1\r\n${HOST}Content-Length: 1000000000000\r\n\r\n`;
  t.is((await askRaw(t, port, text, 'PUT'))?.status, 413);
});

test('one that never ends is refused at the limit', async (t) => {
  const {port, requests} = await startPushServer(t, {});
  const {socket, answer} = await openRaw(t, port);
  socket.write(`PUT /v2/app/manifests/1 HTTP/1.1\r\n${HOST}Transfer-Encoding: chunked\r\n\r\n`);
  const piece = Buffer.concat([Buffer.from('1000\r\n'), Buffer.alloc(4096), Buffer.from('\r\n')]);
  const pump = () => {
    while (!socket.destroyed && socket.write(piece));
  };
  socket.on('drain', pump);
  pump();
  t.is((await answer('PUT'))?.status, 413);
  socket.destroy();
  while (requests.length === 0) await new Promise(setImmediate);
  t.true((requests[0]?.received ?? 0) < 4 * LIMIT);
});

test('DELETE of a tag, of a manifest and of a blob is 202', async (t) => {
  const seen: string[] = [];
  const {port} = await startPushServer(t, {
    deleteManifest: async (_route, reference) => void seen.push(reference),
    deleteBlob: async (_route, digest) => void seen.push(digest),
  });
  for (const path of ['manifests/v1', `manifests/${image.digest}`, `blobs/${subject}`]) {
    const got = await ask(port, 'DELETE', `/v2/app/${path}`);
    t.is(got.status, 202);
    t.is(got.headers['content-length'], '0');
  }
  t.deepEqual(seen, ['v1', image.digest, subject]);
});
