import {once} from 'node:events';
import {mkdir, stat, truncate, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {createRandom, htmlPage, PAGE_MARK} from '../../fuzz/mutations.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {createMovableClock, startBackref, waiting} from '../support/backref.ts';
import {
  blobAnswer,
  contentOf,
  indexOf,
  manifestAnswer,
  plainManifest,
  randomBlob,
  sha256,
} from '../support/content.ts';
import {openRaw} from '../support/raw-http.ts';
import {fallbackTagOf, indexBytes, referrerOf} from '../support/referrers.ts';
import {BREAK, createScriptedUpstream, HANG, type ScriptedAnswer} from '../support/scripted-upstream.ts';

const KiB = 1024;
const MiB = 1024 * KiB;
const REPOSITORY = 'library/app';
const blob = randomBlob(64 * KiB);
const PATH = `/v2/app/blobs/${blob.digest}`;
const GET = `GET /v2/${REPOSITORY}/blobs/${blob.digest}`;

/** Real time, in which all waits except the time limits of requests are over at once. */
const hurried = () => waiting(createMovableClock(), (ms) => (ms >= 5000 ? ms : 1));

test('a blob that has another length when it is resumed never exceeds the length that was announced', async (t) => {
  // Too large to be held back until it is verified.
  const big = randomBlob(3 * MiB);
  const request = `GET /v2/${REPOSITORY}/blobs/${big.digest}`;
  const path = `/v2/app/blobs/${big.digest}`;
  const announcedLength = 2 * MiB;
  const seen = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {
      request,
      answer: {
        headers: {'Content-Length': String(announcedLength)},
        body: [big.bytes.subarray(0, MiB), {wait: seen.promise}, BREAK],
      },
    },
    {
      request,
      sends: {range: `bytes=${MiB - 1}-`},
      answer: {
        status: 206,
        headers: {'Content-Range': `bytes ${MiB - 1}-${3 * MiB - 1}/${3 * MiB}`},
        body: big.bytes.subarray(MiB - 1),
      },
    },
    // Once more from zero, with the other length again; then for the next client.
    {request, sends: {range: undefined}, answer: blobAnswer(big), times: 2},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: hurried()});
  const message = await proxy.open(path);
  t.is(message.headers['content-length'], String(announcedLength));
  let sent = 0;
  message.socket.on('data', (bytes: Buffer) => {
    sent += bytes.length;
  });
  message.resume();
  const closed = once(message, 'close').catch(() => {});
  message.on('error', () => {});
  seen.resolve();
  await closed;
  await proxy.idle();
  t.true(sent < announcedLength, `${sent} bytes came`);
  t.is(sha256((await proxy.ask(path)).body), big.digest);
});

test('a range that the upstream cuts short destroys the response', async (t) => {
  const big = randomBlob(12 * MiB);
  const request = `GET /v2/${REPOSITORY}/blobs/${big.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {
      request,
      sends: {range: undefined},
      answer: {headers: {'Content-Length': String(12 * MiB)}, body: [big.bytes.subarray(0, MiB), HANG]},
    },
    {
      request,
      sends: {range: 'bytes=11000000-11000009'},
      answer: {
        status: 206,
        headers: {'Content-Range': `bytes 11000000-11000004/${12 * MiB}`},
        body: big.bytes.subarray(11_000_000, 11_000_005),
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream], config: {shutdown: {grace: 50}}});
  const whole = await proxy.open(`/v2/app/blobs/${big.digest}`);
  whole.on('error', () => {});
  const connection = await openRaw(t, proxy.port);
  const head = 'HTTP/1.1\r\nHost: localhost\r\n';
  connection.send(`GET /v2/app/blobs/${big.digest} ${head}Range: bytes=11000000-11000009\r\n\r\n`);
  connection.send(`GET /v2/ ${head}\r\n`);
  const part = await connection.answer();
  t.is(part?.status, 206);
  // The next answer must not fill the gap.
  t.deepEqual(part?.body, big.bytes.subarray(11_000_000, 11_000_005));
});

test('a spool that is longer than the blob does not prevent the download', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET, sends: {range: /./}, answer: {status: 416}},
    {request: GET, sends: {range: undefined}, answer: blobAnswer(blob)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: hurried()});
  await mkdir(join(proxy.folder, 'spool'), {recursive: true});
  await writeFile(
    join(proxy.folder, 'spool', `${blob.digest.replace(':', '-')}.part`),
    Buffer.alloc(2 * 64 * KiB),
  );
  const got = await proxy.ask(PATH);
  t.is(got.status, 200);
  t.is(sha256(got.body), blob.digest);
});

test('a download that had not begun when the server closed does not delay its end', async (t) => {
  const wait = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {
      request: GET,
      answer: {
        headers: {'Content-Length': String(64 * KiB)},
        before: wait.promise,
        body: [blob.bytes.subarray(0, 1000), HANG],
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream], config: {shutdown: {grace: 20}}});
  const asked = proxy.ask(PATH).catch(() => {});
  await upstream.received(1);
  const closed = proxy.server.close();
  await asked;
  // The downloads are stopped in the turn after the connections are cut.
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
  wait.resolve();
  await closed;
  t.pass();
});

test('a download whose upstream never answers does not delay the end of a closing server', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: {before: HANG}}]);
  const proxy = await startBackref(t, {
    registries: [
      {url: upstream.url, upstream: {timeouts: {connect: 60_000, headers: 60 * 60_000, idle: 30_000}}},
    ],
    config: {shutdown: {grace: 20}},
  });
  const asked = proxy.ask(PATH).catch(() => {});
  await upstream.received(1);
  await proxy.server.close();
  await asked;
  t.pass();
});

test("a server that closes while it hashes an earlier process's spool keeps the spool", async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [upstream], config: {shutdown: {grace: 0}}});
  const spool = join(proxy.folder, 'spool', `${blob.digest.replace(':', '-')}.part`);
  await mkdir(join(proxy.folder, 'spool'), {recursive: true});
  await writeFile(spool, '');
  await truncate(spool, 1024 * MiB);
  const asked = proxy.ask(PATH).catch(() => {});
  while (!/^backref_fills_in_flight 1$/m.test((await proxy.ask('/metrics')).body.toString()));
  await proxy.server.close();
  await asked;
  t.is((await stat(spool)).size, 1024 * MiB);
});

test('without a spool an absent blob is still 404, and a failing upstream 503', async (t) => {
  const HEAD = GET.replace('GET', 'HEAD');
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 500}, times: 4},
    {request: HEAD, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await writeFile(join(proxy.folder, 'spool'), 'a file where the folder should be');
  t.is((await proxy.ask(PATH)).status, 503);
  t.is((await proxy.ask(PATH)).status, 404);
});

test('a manifest whose media type is not a valid header value is the upstream’s fault', async (t) => {
  const {bytes, digest} = contentOf(Buffer.from(JSON.stringify({mediaType: 'a/b\r\nSet-Cookie: c'})));
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/${REPOSITORY}/manifests/${digest}`,
      answer: {headers: {'Content-Type': 'application/json'}, body: bytes},
      times: 2,
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is((await proxy.ask(`/v2/app/manifests/${digest}`)).status, 503);
  t.is((await proxy.ask(`/v2/app/manifests/${digest}`)).status, 503);
});

test('a manifest confirmed for a second repository has its own media type there', async (t) => {
  const manifest = plainManifest();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/${REPOSITORY}/manifests/${manifest.digest}`, answer: manifestAnswer(manifest)},
    {
      request: `HEAD /v2/library/other/manifests/${manifest.digest}`,
      answer: {
        headers: {
          'Content-Type': 'application/octet-stream',
          'Content-Length': String(manifest.bytes.length),
        },
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/app/manifests/${manifest.digest}`);
  const other = await proxy.ask(`/v2/other/manifests/${manifest.digest}`);
  t.is(other.status, 200);
  t.is(other.headers['content-type'], manifest.mediaType);
});

test('annotations that are deeply nested or not strings are left out of a list of referrers', async (t) => {
  const subject = plainManifest();
  const {digest} = referrerOf(subject);
  const nested = `${'['.repeat(200_000)}${']'.repeat(200_000)}`;
  const descriptor = `{"mediaType":"${OCI_MANIFEST}","digest":"${digest}","size":2,"annotations":{"a":${nested},"b":1,"c":"d"}}`;
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/${REPOSITORY}/referrers/${subject.digest}`,
      answer: {
        headers: {'Content-Type': OCI_INDEX},
        body: `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[${descriptor}]}`,
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  const got = await proxy.ask(`/v2/app/referrers/${subject.digest}`);
  t.is(got.status, 200);
  t.deepEqual(got.json(), {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: [{mediaType: OCI_MANIFEST, digest, size: 2, annotations: {c: 'd'}}],
  });
});

test('a tag list in one huge page is read', async (t) => {
  const tags = Array.from({length: 1_000_000}, () => 'a');
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/${REPOSITORY}/tags/list?n=1000`,
      answer: {
        headers: {'Content-Type': 'application/json'},
        body: JSON.stringify({name: REPOSITORY, tags}),
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is((await proxy.ask('/v2/app/tags/list?n=1')).status, 200);
});

test('the entries of a fallback tag are fetched a few at a time', async (t) => {
  const subject = plainManifest();
  const entries = Array.from({length: 100}, () => referrerOf(subject));
  const go = Promise.withResolvers<void>();
  let asked = 0;
  const upstream = await createScriptedUpstream(
    t,
    [
      {
        request: `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(subject)}`,
        answer: {
          headers: {'Content-Type': OCI_INDEX},
          body: indexBytes(entries.map(({digest, bytes}) => ({digest, size: bytes.length}))),
        },
      },
      ...entries.map((entry) => ({
        request: `GET /v2/${REPOSITORY}/manifests/${entry.digest}`,
        answer: () => {
          asked += 1;
          return {...manifestAnswer(entry), before: go.promise};
        },
      })),
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, referrers: {mode: 'tag'}}],
    clock: createMovableClock(),
  });
  const got = proxy.ask(`/v2/app/referrers/${subject.digest}`);
  await upstream.received(2);
  for (let turn = 0; turn < 20; turn++) await proxy.ask('/v2/');
  t.true(asked < 50, `${asked} at once`);
  go.resolve();
  t.is(((await got).json() as {manifests: unknown[]}).manifests.length, 100);
});

test('a tag that a later HEAD no longer finds is gone', async (t) => {
  const manifest = plainManifest();
  const request = `HEAD /v2/${REPOSITORY}/manifests/1`;
  const upstream = await createScriptedUpstream(t, [
    {request, answer: {...manifestAnswer(manifest), body: []}},
    {request, answer: {status: 404}},
    {request, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const head = (headers = {}) => proxy.ask('/v2/app/manifests/1', {method: 'HEAD', headers});
  t.is((await head()).status, 200);
  proxy.clock.move(2000);
  t.is((await head({'cache-control': 'no-cache'})).status, 404);
  proxy.clock.move(6000);
  t.is((await head()).status, 404);
});

test('an index of many platforms does not cause requests for all of them', async (t) => {
  const platforms = Array.from({length: 150}, () => plainManifest());
  const index = indexOf(platforms);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/${REPOSITORY}/manifests/1`, answer: manifestAnswer(index)},
    {request: /^GET .*\/manifests\/sha256-/, answer: {status: 404}, always: true},
  ]);
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, referrers: {mode: 'tag', prefetch: 'manifests'}}],
  });
  t.is((await proxy.ask('/v2/app/manifests/1')).status, 200);
  // The index by its tag, and the lists of it and of a hundred platforms.
  await upstream.received(102);
  for (let turn = 0; turn < 20; turn++) await proxy.ask('/v2/');
  t.is(upstream.requests.length, 102);
});

/** Media types of pages that are not labelled HTML. */
const OTHER_TYPES = [
  'application/json',
  'application/octet-stream',
  'text/plain',
  OCI_MANIFEST,
  OCI_INDEX,
] as const;

test('a login page in front of the upstream, with any media type, is never served and never stored', async (t) => {
  const random = createRandom(20_300_102);
  const [image, other, sbom] = [plainManifest(), plainManifest(), randomBlob(3000)];
  const contents = new Map<string, ScriptedAnswer>([
    ['manifests/1', manifestAnswer(image)],
    [`manifests/${image.digest}`, manifestAnswer(image)],
    [`manifests/${other.digest}`, manifestAnswer(other)],
    [`blobs/${sbom.digest}`, blobAnswer(sbom)],
    ['tags/list?n=1000', {headers: {'Content-Type': 'application/json'}, body: '{"name":"a","tags":["1"]}'}],
    [`referrers/${image.digest}`, {headers: {'Content-Type': OCI_INDEX}, body: indexBytes([])}],
  ]);
  let pages = 0;
  const page = (method: string): ScriptedAnswer => {
    pages += 1;
    const {headers, ...answer} = htmlPage(random);
    // A HEAD can be recognized only by its media type.
    if (method === 'HEAD' || random.chance(0.5)) return {...answer, headers};
    return {...answer, headers: {'Content-Type': random.pick(OTHER_TYPES)}};
  };
  const upstream = await createScriptedUpstream(t, [
    {
      request: /^(GET|HEAD) /,
      always: true,
      answer: ({method, url}) => {
        const [, path = ''] = /^\/v2\/library\/\w+\/(.*)$/.exec(url) ?? [];
        return random.chance(0.5) ? page(method) : (contents.get(path) ?? {status: 404});
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: hurried()});
  const paths = [...contents.keys()].map((path) => path.replace('?n=1000', ''));
  let served = 0;
  for (let count = 0; count < 400; count++) {
    const method = random.chance(0.3) ? 'HEAD' : 'GET';
    const path = random.pick(paths as [string, ...string[]]);
    proxy.clock.move(random.below(90_000));
    // A blob that turns out to be a page ends before its last byte.
    const got = await proxy
      .ask(`/v2/${random.pick(['app', 'web'])}/${path}`, {method})
      .catch(() => undefined);
    if (got?.status !== 200) continue;
    served += 1;
    t.notRegex(String(got.headers['content-type']), /html/i);
    if (/^(manifests|blobs)/.test(path)) {
      const {body} = contents.get(path) as {body: Buffer};
      t.is(got.headers['content-length'], String(body.length), `${method} ${path}`);
      if (method === 'GET') t.deepEqual(got.body, body, path);
    }
    if (method === 'GET') t.false(got.body.includes(PAGE_MARK));
  }
  t.true(pages > 50 && served > 50, `${pages} pages, ${served} served`);
});
