import {once} from 'node:events';
import {mkdir, readdir, readFile, stat, symlink, writeFile} from 'node:fs/promises';
import type {IncomingMessage} from 'node:http';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import test from 'ava';
import type {Digest} from '../../../src/oci/digest.ts';
import {
  type Backref,
  createClockWithoutPauses,
  createPassingClock,
  startBackref,
} from '../../support/backref.ts';
import {blobAnswer, type Content, randomBlob, sha256} from '../../support/content.ts';
import {openRaw} from '../../support/raw-http.ts';
import {type BodyPart, BREAK, createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {createSmallDisk} from '../../support/small-disk.ts';

const MiB = 1024 * 1024;
const blob = randomBlob(6 * MiB);
const size = blob.bytes.length;
const pathOf = ({digest}: {digest: string}, name = 'app') => `/v2/${name}/blobs/${digest}`;
const GET = `GET ${pathOf(blob, 'library/app')}`;
const PATH = pathOf(blob);
const lengthOf = ({bytes}: Content) => ({'Content-Length': String(bytes.length)});

const read = async (message: IncomingMessage): Promise<Buffer> => Buffer.concat(await message.toArray());

/** An upstream that sends `first` bytes, and the rest once it is released. */
function inTwo(content: Content, first: number) {
  const {promise, resolve} = Promise.withResolvers<void>();
  const {bytes} = content;
  const answer = {
    headers: lengthOf(content),
    body: [bytes.subarray(0, first), {wait: promise}, bytes.subarray(first)],
  };
  return {answer, resume: resolve};
}

/** Resolves when a client has this many bytes. */
type WaitForBytes = (count: number) => Promise<void>;

/** Reads an answer as it comes; `arrived` resolves when this many bytes are here. */
function collect(message: IncomingMessage): {arrived: WaitForBytes; whole: Promise<Buffer>} {
  const chunks: Buffer[] = [];
  let length = 0;
  const {promise, resolve, reject} = Promise.withResolvers<Buffer>();
  promise.catch(() => {});
  message.on('data', (chunk: Buffer) => {
    chunks.push(chunk);
    length += chunk.length;
  });
  message.once('end', () => resolve(Buffer.concat(chunks)));
  message.once('error', reject);
  return {
    whole: promise,
    async arrived(count) {
      while (length < count) await once(message, 'data');
    },
  };
}

const spoolOf = ({folder}: Backref, digest: Digest) =>
  join(folder, 'spool', `${digest.replace(':', '-')}.part`);

test('fifty clients at once, of the same repository, cost one upstream GET', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: blobAnswer(blob)}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const answers = await Promise.all(Array.from({length: 50}, () => proxy.ask(PATH)));
  t.true(answers.every(({body}) => body.equals(blob.bytes)));
});

test('headers and bytes reach the client while the upstream is still sending', async (t) => {
  const {answer, resume} = inTwo(blob, MiB);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const message = await proxy.open(PATH);
  t.is(message.statusCode, 200);
  t.is(message.headers['content-length'], String(size));
  const {arrived, whole} = collect(message);
  await arrived(MiB);
  resume();
  t.is(sha256(await whole), blob.digest);
});

test('headers reach the client before the first byte of the body', async (t) => {
  const {answer, resume} = inTwo(blob, 0);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const message = await proxy.open(PATH);
  t.is(message.statusCode, 200);
  resume();
  t.is(sha256(await read(message)), blob.digest);
});

test('a late client starts at once from the spool; the last byte waits for the digest', async (t) => {
  const {answer, resume} = inTwo(blob, size - 1);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const early = collect(await proxy.open(PATH));
  await early.arrived(size - 1);
  const message = await proxy.open(PATH);
  t.regex(String(message.headers['cache-status']), /collapsed/);
  const late = collect(message);
  await late.arrived(size - 1);
  resume();
  t.is(sha256(await early.whole), blob.digest);
  t.is(sha256(await late.whole), blob.digest);
});

test('a client of another repository joins only after the upstream confirmed it there', async (t) => {
  const {answer, resume} = inTwo(blob, MiB);
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer},
    {request: `HEAD ${pathOf(blob, 'library/other')}`, answer: {headers: lengthOf(blob), body: []}},
    {request: `HEAD ${pathOf(blob, 'library/secret')}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const first = await proxy.open(PATH);
  const other = await proxy.open(pathOf(blob, 'other'));
  t.is(other.statusCode, 200);
  t.is((await proxy.ask(pathOf(blob, 'secret'))).status, 404);
  resume();
  t.is(sha256(await read(other)), blob.digest);
  t.is(sha256(await read(first)), blob.digest);
});

test('of two simultaneous requests, the second joins the download only if the upstream confirms it in its repository', async (t) => {
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: GET, answer: blobAnswer(blob)},
      {request: `HEAD ${pathOf(blob, 'library/secret')}`, answer: {status: 404}},
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {registries: [upstream]});
  const connections = [await openRaw(t, proxy.port), await openRaw(t, proxy.port)];
  const paths = [PATH, pathOf(blob, 'secret')];
  for (const [index, {send}] of connections.entries()) {
    send(`GET ${paths[index]} HTTP/1.1\r\nHost: registry\r\n\r\n`);
  }
  const [first, second] = await Promise.all(connections.map(({answer}) => answer()));
  t.is(sha256(first?.body ?? Buffer.alloc(0)), blob.digest);
  t.is(second?.status, 404);
});

test('a caller with access is not refused because the download began for a caller without', async (t) => {
  const wait = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: GET, answer: {status: 404, before: wait.promise}},
      {request: `HEAD ${pathOf(blob, 'library/other')}`, answer: {headers: lengthOf(blob), body: []}},
      {request: `GET ${pathOf(blob, 'library/other')}`, answer: blobAnswer(blob)},
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {registries: [upstream]});
  const refused = proxy.ask(PATH);
  while (upstream.requests.length < 1) await new Promise(setImmediate);
  const served = proxy.ask(pathOf(blob, 'other'));
  while (upstream.requests.length < 2) await new Promise(setImmediate);
  wait.resolve();
  t.is((await refused).status, 404);
  t.is(sha256((await served).body), blob.digest);
});

test('a client that leaves does not stop the download', async (t) => {
  const {answer, resume} = inTwo(blob, MiB);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const message = await proxy.open(PATH);
  await collect(message).arrived(1000);
  message.destroy();
  resume();
  await proxy.idle();
  await upstream.stop();
  t.is(sha256((await proxy.ask(PATH)).body), blob.digest);
});

test('a client that does not read does not slow the download, and gets its bytes later', async (t) => {
  const big = randomBlob(24 * MiB);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${pathOf(big, 'library/app')}`, answer: blobAnswer(big)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const stalled = await proxy.open(pathOf(big));
  const quick = await proxy.ask(pathOf(big));
  t.is(sha256(quick.body), big.digest);
  await proxy.idle();
  await upstream.stop();
  t.is(sha256(await read(stalled)), big.digest);
});

test('a range of a running download is served from it as soon as its bytes are here', async (t) => {
  const {answer, resume} = inTwo(blob, 2 * MiB);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const whole = await proxy.open(PATH);
  const part = await proxy.ask(PATH, {headers: {range: 'bytes=1000-1999999'}});
  t.is(part.status, 206);
  t.is(part.headers['content-range'], `bytes 1000-1999999/${size}`);
  t.true(part.body.equals(blob.bytes.subarray(1000, 2_000_000)));
  const waiting = await proxy.open(PATH, {headers: {range: `bytes=${3 * MiB}-`}});
  t.is(waiting.statusCode, 206);
  resume();
  t.true((await read(waiting)).equals(blob.bytes.subarray(3 * MiB)));
  t.is(sha256(await read(whole)), blob.digest);
});

test('a range far beyond a running download goes to the upstream at once', async (t) => {
  const big = randomBlob(12 * MiB);
  const {answer, resume} = inTwo(big, MiB);
  const request = `GET ${pathOf(big, 'library/app')}`;
  const upstream = await createScriptedUpstream(t, [
    {request, sends: {range: undefined}, answer},
    {
      request,
      sends: {range: 'bytes=11000000-11000009'},
      answer: {
        status: 206,
        headers: {'Content-Range': `bytes 11000000-11000009/${12 * MiB}`},
        body: big.bytes.subarray(11_000_000, 11_000_010),
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const whole = await proxy.open(pathOf(big));
  const far = await proxy.ask(pathOf(big), {headers: {range: 'bytes=11000000-11000009'}});
  t.is(far.status, 206);
  t.true(far.body.equals(big.bytes.subarray(11_000_000, 11_000_010)));
  resume();
  t.is(sha256(await read(whole)), big.digest);
});

test('a connection that breaks is resumed by Range, several times', async (t) => {
  let client: ReturnType<typeof collect> | undefined;
  /** Bytes `from` to `to`; short of the end the connection breaks once a client has them. */
  const piece = (from: number, to: number): BodyPart[] => {
    const bytes = blob.bytes.subarray(from, to);
    return to < size
      ? [bytes, {wait: Promise.resolve().then(() => client?.arrived(to - 1))}, BREAK]
      : [bytes];
  };
  const answer = (from: number, to: number) => () => ({
    status: 206,
    headers: {'Content-Range': `bytes ${from}-${size - 1}/${size}`, 'Content-Length': String(size - from)},
    body: piece(from, to),
  });
  const begun = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {
      request: GET,
      answer: () => ({headers: lengthOf(blob), body: [{wait: begun.promise}, ...piece(0, MiB)]}),
    },
    {request: GET, sends: {range: `bytes=${MiB - 1}-`}, answer: answer(MiB - 1, 3 * MiB)},
    {request: GET, sends: {range: `bytes=${3 * MiB - 1}-`}, answer: answer(3 * MiB - 1, 5 * MiB)},
    {request: GET, sends: {range: `bytes=${5 * MiB - 1}-`}, answer: answer(5 * MiB - 1, size)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: createClockWithoutPauses()});
  client = collect(await proxy.open(PATH));
  begun.resolve();
  t.is(sha256(await client.whole), blob.digest);
});

test('a download that makes no progress is given up: its response is destroyed, its spool kept for the next one', async (t) => {
  const seen = Promise.withResolvers<void>();
  const body = [blob.bytes.subarray(0, 2 * MiB), {wait: seen.promise}, BREAK] as const;
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {headers: lengthOf(blob), body}},
    {request: GET, sends: {range: /./}, answer: {status: 500}, times: 20},
  ]);
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, upstream: {breaker: {failures: 100, openFor: 1000}}}],
    clock: createClockWithoutPauses(),
  });
  const {arrived, whole} = collect(await proxy.open(PATH));
  await arrived(2 * MiB);
  seen.resolve();
  await t.throwsAsync(whole, {code: 'ECONNRESET'});
  await proxy.idle();
  t.is((await readFile(spoolOf(proxy, blob.digest))).length, 2 * MiB);
  upstream.expect({request: GET, sends: {range: `bytes=${2 * MiB - 1}-`}, answer: blobAnswer(blob)});
  t.is(sha256((await proxy.ask(PATH)).body), blob.digest);
});

test('an upstream that asks to wait for a month is not waited for; the next pull resumes the download', async (t) => {
  const seen = Promise.withResolvers<void>();
  const body = [blob.bytes.subarray(0, 2 * MiB), {wait: seen.promise}, BREAK] as const;
  const month = String(30 * 24 * 60 * 60);
  const rest = {request: GET, sends: {range: `bytes=${2 * MiB - 1}-`}};
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {headers: lengthOf(blob), body}},
    {...rest, answer: {status: 429, headers: {'Retry-After': month}}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: createClockWithoutPauses()});
  const {arrived, whole} = collect(await proxy.open(PATH));
  await arrived(2 * MiB);
  seen.resolve();
  await t.throwsAsync(whole, {code: 'ECONNRESET'});
  await proxy.idle();
  upstream.expect({...rest, answer: blobAnswer(blob)});
  // However long the upstream asks to wait, it is asked again after six hours.
  t.is((await proxy.ask(PATH)).status, 503);
  proxy.clock.move(6 * 60 * 60 * 1000);
  t.is(sha256((await proxy.ask(PATH)).body), blob.digest);
});

test('the spool of a process that ended is hashed and resumed by the next one', async (t) => {
  const {answer} = inTwo(blob, 3 * MiB);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const first = await startBackref(t, {registries: [upstream], config: {shutdown: {grace: 50}}});
  await collect(await first.open(PATH)).arrived(3 * MiB);
  const second = await first.restart();
  const kept = await readFile(spoolOf(second, blob.digest));
  t.is(kept.length, 3 * MiB);
  t.true(kept.equals(blob.bytes.subarray(0, 3 * MiB)));
  upstream.expect({
    request: GET,
    sends: {range: `bytes=${3 * MiB - 1}-`},
    answer: {
      status: 206,
      headers: {'Content-Range': `bytes ${3 * MiB - 1}-${size - 1}/${size}`},
      body: blob.bytes.subarray(3 * MiB - 1),
    },
  });
  const got = await second.ask(PATH);
  t.true(got.body.equals(blob.bytes));
  await second.idle();
  t.deepEqual(await readdir(join(second.folder, 'spool')), []);
});

test('a spool that was complete when the process ended costs one byte', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: GET,
      sends: {range: `bytes=${size - 1}-`},
      answer: {
        status: 206,
        headers: {'Content-Range': `bytes ${size - 1}-${size - 1}/${size}`},
        body: blob.bytes.subarray(-1),
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await mkdir(join(proxy.folder, 'spool'), {recursive: true});
  await writeFile(spoolOf(proxy, blob.digest), blob.bytes);
  t.is(sha256((await proxy.ask(PATH)).body), blob.digest);
});

test('a mismatch after a resumption starts over from zero, once', async (t) => {
  const rest = {
    status: 206,
    headers: {'Content-Range': `bytes 999-${size - 1}/${size}`},
    body: blob.bytes.subarray(999),
  };
  const upstream = await createScriptedUpstream(t, [
    {request: GET, sends: {range: 'bytes=999-'}, answer: rest},
    {request: GET, sends: {range: undefined}, answer: blobAnswer(blob)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await mkdir(join(proxy.folder, 'spool'), {recursive: true});
  await writeFile(spoolOf(proxy, blob.digest), Buffer.alloc(1000));
  // The client that received the wrong beginning is cut off; the next one finds the complete blob.
  const message = await proxy.open(PATH);
  await t.throwsAsync(read(message), {code: 'ECONNRESET'});
  await proxy.idle();
  t.is(sha256((await proxy.ask(PATH)).body), blob.digest);
});

test('a full disk does not fail the pull: the blob is streamed, verified and not cached', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: blobAnswer(blob), times: 2}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await mkdir(join(proxy.folder, 'spool'), {recursive: true});
  await symlink('/dev/full', spoolOf(proxy, blob.digest));
  const got = await proxy.ask(PATH);
  t.is(sha256(got.body), blob.digest);
});

test('what a client has of a download whose spool fails is verified by the one that goes on', async (t) => {
  const wrong = Buffer.from(blob.bytes);
  wrong[5] = (wrong[5] ?? 0) ^ 1;
  for (const [first, isRight] of [
    [blob.bytes, true],
    [wrong, false],
  ] as const) {
    const {answer, resume} = inTwo({...blob, bytes: first}, 64 * 1024);
    const upstream = await createScriptedUpstream(t, [
      {request: GET, answer},
      {request: GET, answer: blobAnswer(blob)},
    ]);
    const proxy = await startBackref(t, {registries: [upstream]});
    await mkdir(join(proxy.folder, 'spool'), {recursive: true});
    await symlink('/dev/full', spoolOf(proxy, blob.digest));
    const {arrived, whole} = collect(await proxy.open(PATH));
    await arrived(64 * 1024);
    resume();
    if (isRight) t.is(sha256(await whole), blob.digest);
    else await t.throwsAsync(whole, {code: 'ECONNRESET'});
  }
});

test('a client far behind a download whose spool fails gets the rest from the upstream', async (t) => {
  const disk = await createSmallDisk(t);
  if (!disk) return t.pass();
  const large = randomBlob(18 * MiB);
  const first = 12 * MiB;
  const {answer, resume} = inTwo(large, first);
  const request = `GET ${pathOf(large, 'library/app')}`;
  const upstream = await createScriptedUpstream(t, [
    {request, answer},
    {request, answer: blobAnswer(large)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], folder: disk.folder});
  const message = await proxy.open(pathOf(large));
  while ((await stat(spoolOf(proxy, large.digest))).size < first) await delay(5);
  const failed = once(proxy.server.events, 'fill.failed');
  await disk.fill();
  resume();
  await failed;
  t.is(sha256(await read(message)), large.digest);
});

test('an upstream that sends next to nothing per answer is not asked without end', async (t) => {
  const seen = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {
      request: GET,
      answer: {headers: lengthOf(blob), body: [blob.bytes.subarray(0, 2 * MiB), {wait: seen.promise}, BREAK]},
    },
    {
      request: GET,
      sends: {range: /./},
      times: 5,
      answer({headers}) {
        const start = Number(/\d+/.exec(String(headers.range))?.[0]);
        const range = `bytes ${start}-${size - 1}/${size}`;
        return {
          status: 206,
          headers: {'Content-Range': range, 'Content-Length': String(size - start)},
          body: [blob.bytes.subarray(start, start + 2), BREAK],
        };
      },
    },
  ]);
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, upstream: {breaker: {failures: 100, openFor: 1000}}}],
    clock: createClockWithoutPauses(),
  });
  const {arrived, whole} = collect(await proxy.open(PATH));
  await arrived(2 * MiB);
  seen.resolve();
  await t.throwsAsync(whole, {code: 'ECONNRESET'});
  await proxy.idle();
});

test('without a spool a pull is streamed from the upstream, and cut off when the digest is wrong', async (t) => {
  const wrong = Buffer.from(blob.bytes);
  wrong[5] = (wrong[5] ?? 0) ^ 1;
  const HEAD = {request: GET.replace('GET', 'HEAD'), answer: {headers: lengthOf(blob), body: []}};
  const upstream = await createScriptedUpstream(t, [
    HEAD,
    {request: GET, answer: blobAnswer(blob)},
    HEAD,
    {request: GET, answer: {body: wrong}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await writeFile(join(proxy.folder, 'spool'), 'a file where the folder should be');
  const got = await proxy.ask(PATH);
  t.is(sha256(got.body), blob.digest);
  t.regex(String(got.headers['cache-status']), /detail=uncached/);
  const message = await proxy.open(PATH);
  await t.throwsAsync(read(message), {code: 'ECONNRESET'});
});

test('a small blob is sent once it is verified: wrong bytes are downloaded again, three times at most', async (t) => {
  const small = randomBlob(5000);
  const request = `GET /v2/library/app/blobs/${small.digest}`;
  const wrong = {request, answer: blobAnswer(randomBlob(5000))};
  const upstream = await createScriptedUpstream(t, [
    {...wrong, times: 4},
    wrong,
    {request, answer: blobAnswer(small)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream], clock: createClockWithoutPauses()});
  const path = `/v2/app/blobs/${small.digest}`;
  const refused = await proxy.ask(path);
  t.is(refused.status, 503);
  t.truthy(refused.headers['retry-after']);
  await proxy.idle();
  const got = await proxy.ask(path);
  t.is(got.status, 200);
  t.is(sha256(got.body), small.digest);
});

test('a small blob that does not arrive within ten seconds is sent as it comes', async (t) => {
  const small = randomBlob(5000);
  const {answer, resume} = inTwo(small, 2000);
  const request = `GET /v2/library/app/blobs/${small.digest}`;
  const upstream = await createScriptedUpstream(t, [{request, answer}]);
  const proxy = await startBackref(t, {registries: [upstream], clock: createPassingClock()});
  const {arrived, whole} = collect(await proxy.open(`/v2/app/blobs/${small.digest}`));
  await arrived(2000);
  resume();
  t.is(sha256(await whole), small.digest);
});
