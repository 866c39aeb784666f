import {once} from 'node:events';
import {mkdir, readdir, readlink, symlink} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import type {Clock} from '../../src/clock.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {OCI_INDEX} from '../../src/oci/media-type.ts';
import {type Backref, createMovableClock, startBackref} from '../support/backref.ts';
import {blobAnswer, contentOf, manifestAnswer} from '../support/content.ts';
import {openRaw} from '../support/raw-http.ts';
import {createScriptedUpstream, type Expectation, HANG} from '../support/scripted-upstream.ts';

const MiB = 1024 * 1024;
const CHECK_EVERY_MS = 15_000;
const chunk = Buffer.alloc(MiB);
/** The size of a blob whose bytes are never verified; far larger than what sockets buffer. */
const digest = digestOf(Buffer.from('large'));
const LENGTH = 96 * MiB;
const FAR = 16 * MiB;
/** Wherever four such ranges begin, at least two exceed what sockets buffer. */
const STEP = 8 * MiB;
const PATH = `/v2/app/blobs/${digest}`;
const GET = `GET /v2/library/app/blobs/${digest}`;
const stream = (bytes: number) => Array.from({length: bytes / MiB}, () => chunk);
const FAR_RANGE: Expectation = {
  request: GET,
  sends: {range: `bytes=${FAR}-${LENGTH - 1}`},
  answer: {
    status: 206,
    headers: {
      'content-range': `bytes ${FAR}-${LENGTH - 1}/${LENGTH}`,
      'content-length': String(LENGTH - FAR),
    },
    body: stream(LENGTH - FAR),
  },
};

/** Real time, except for the checks of clients’ progress, which a test triggers. */
function createProgressChecks() {
  const clock = createMovableClock();
  let next: (() => void) | undefined;
  const after: Clock['after'] = (ms, call) => {
    if (ms !== CHECK_EVERY_MS) return clock.after(ms, call);
    next = call;
    return () => {};
  };
  return {clock: {...clock, after}, checkProgress: () => next?.()};
}

/** A client that sends one request and reads nothing; resolves when the server has disconnected it. */
async function disconnected(
  t: ExecutionContext,
  proxy: Backref,
  checkProgress: () => void,
  request: string,
): Promise<void> {
  const {socket, send} = await openRaw(t, proxy.port);
  socket.pause();
  let stalled = false;
  proxy.server.events.once('client.stalled', ({ms}) => {
    t.is(ms, 60_000);
    stalled = true;
  });
  send(request);
  while (!stalled) {
    checkProgress();
    await new Promise(setImmediate);
  }
}

const get = (path: string, ...headers: string[]): string =>
  [`GET ${path} HTTP/1.1`, 'Host: a', ...headers, '', ''].join('\r\n');

/** The files below the data folder that this process has open. */
async function openBlobs({folder}: Backref): Promise<string[]> {
  const links = (await readdir('/proc/self/fd')).map((fd) => readlink(`/proc/self/fd/${fd}`).catch(() => ''));
  return (await Promise.all(links)).filter((path) => path.startsWith(join(folder, 'blobs')));
}

test('a client that reads nothing of a far range is disconnected, and its slot at the upstream is freed', async (t) => {
  const whole: Expectation = {
    request: GET,
    answer: {headers: {'content-length': String(LENGTH)}, body: [chunk, HANG]},
  };
  const upstream = await createScriptedUpstream(t, [whole, FAR_RANGE, FAR_RANGE]);
  const {clock, checkProgress} = createProgressChecks();
  const one = {concurrency: {heads: 8, manifests: 1, bodies: 1}};
  const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: one}], clock});
  const filling = await proxy.open(PATH);
  await disconnected(t, proxy, checkProgress, get(PATH, `Range: bytes=${FAR}-`));
  const next = await proxy.open(PATH, {headers: {range: `bytes=${FAR}-`}});
  t.is(next.statusCode, 206);
  for (const message of [filling, next]) message.destroy();
});

test('a client that reads nothing of a blob that a full disk cannot store is disconnected', async (t) => {
  const answer = {headers: {'content-length': String(LENGTH)}, body: stream(LENGTH)};
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer, times: 3},
    {
      request: `HEAD ${GET.slice(4)}`,
      answer: {headers: {'content-length': String(LENGTH)}, body: []},
      always: true,
      optional: true,
    },
  ]);
  const {clock, checkProgress} = createProgressChecks();
  const one = {concurrency: {heads: 8, manifests: 1, bodies: 1}};
  const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: one}], clock});
  await mkdir(join(proxy.folder, 'spool'), {recursive: true});
  await symlink('/dev/full', join(proxy.folder, 'spool', `${digest.replace(':', '-')}.part`));
  await disconnected(t, proxy, checkProgress, get(PATH));
  const next = await proxy.open(PATH);
  t.is(next.statusCode, 200);
  next.destroy();
});

// Only Linux lists the open files of a process, in /proc; CI runs there.
const onLinux = process.platform === 'linux' ? test : test.skip;

onLinux('so is one that takes nothing of a stored blob, and its file is closed', async (t) => {
  const zeros = contentOf(Buffer.alloc(32 * MiB));
  const path = `/v2/app/blobs/${zeros.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${zeros.digest}`, answer: blobAnswer(zeros)},
  ]);
  const {clock, checkProgress} = createProgressChecks();
  const proxy = await startBackref(t, {registries: [upstream], clock});
  await proxy.ask(path);
  const closed = disconnected(t, proxy, checkProgress, get(path));
  while ((await openBlobs(proxy)).length === 0);
  await closed;
  while ((await openBlobs(proxy)).length > 0);
  t.pass();
});

test('a client that reads nothing of a large manifest is disconnected', async (t) => {
  const text = JSON.stringify({
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: [],
    annotations: {a: 'a'.repeat(15 * MiB)},
  });
  const large = {...contentOf(Buffer.from(text)), mediaType: OCI_INDEX};
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/1', answer: manifestAnswer(large)},
  ]);
  const {clock, checkProgress} = createProgressChecks();
  const proxy = await startBackref(t, {registries: [upstream], clock});
  await disconnected(t, proxy, checkProgress, get('/v2/app/manifests/1'));
  t.true(large.bytes.equals((await proxy.ask('/v2/app/manifests/1')).body));
});

test('a client that pipelines requests after an answer that it does not read is disconnected, and none of them begins', async (t) => {
  const zeros = contentOf(Buffer.alloc(32 * MiB));
  const path = `/v2/app/blobs/${zeros.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${zeros.digest}`, answer: blobAnswer(zeros)},
  ]);
  const {clock, checkProgress} = createProgressChecks();
  const proxy = await startBackref(t, {registries: [upstream], clock});
  await proxy.ask(path);
  const begun: string[] = [];
  proxy.server.events.on('request.start', ({url}) => begun.push(url));
  const ended = once(proxy.server.events, 'request.end');
  await disconnected(t, proxy, checkProgress, get(`${path}?1`) + get(`${path}?2`));
  await ended;
  t.deepEqual(begun, [`${path}?1`]);
});

test('a client that reads slowly is left alone', async (t) => {
  const zeros = contentOf(Buffer.alloc(LENGTH));
  const path = `/v2/app/blobs/${zeros.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${zeros.digest}`, answer: blobAnswer(zeros)},
  ]);
  const {clock, checkProgress} = createProgressChecks();
  const proxy = await startBackref(t, {registries: [upstream], clock});
  let received = 0;
  for await (const {length} of await proxy.open(path)) {
    // Rarely enough that the buffers of both sides have drained: the server sends something between two checks.
    if (Math.floor((received + length) / STEP) > Math.floor(received / STEP)) checkProgress();
    received += length;
  }
  t.is(received, LENGTH);
});

test('a client that reads nothing while nothing is waiting for it is left alone', async (t) => {
  const {clock, checkProgress} = createProgressChecks();
  const proxy = await startBackref(t, {registries: [{}], clock});
  const {send, answer} = await openRaw(t, proxy.port);
  send(get('/v2/'));
  t.is((await answer())?.status, 200);
  for (let count = 0; count < 10; count++) checkProgress();
  send(get('/v2/'));
  t.is((await answer())?.status, 200);
});
