import {once} from 'node:events';
import {stat} from 'node:fs/promises';
import {setTimeout as delay} from 'node:timers/promises';
import test, {type ExecutionContext} from 'ava';
import {type Backref, createMovableClock, type MovableClock, startBackref} from '../support/backref.ts';
import {fileOf, get, untilClosed} from '../support/blob-files.ts';
import {blobAnswer, imageManifest, manifestAnswer, randomBlob} from '../support/content.ts';
import {askRaw, openRaw} from '../support/raw-http.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';
import {openWay} from './ways.ts';

const SIZE = 16 * 2 ** 20;
/** The cache has room for one of the layers, and no uses are written before a test says so. */
const CACHE = {maxSize: {bytes: SIZE * 1.6}, highWatermark: 99, lowWatermark: 98};
const layers = [randomBlob(SIZE), randomBlob(SIZE)] as const;
const images = [imageManifest([layers[0]]), imageManifest([layers[1]])] as const;

/** What is done each minute waits for the test. */
function createMinutes() {
  const clock = createMovableClock();
  let waiting: (() => void)[] = [];
  const movable: MovableClock = {
    ...clock,
    after(ms, call) {
      if (ms !== 60_000) return clock.after(ms, call);
      waiting.push(call);
      return () => {};
    },
  };
  async function pass() {
    clock.move(60_000);
    const due = waiting;
    waiting = [];
    for (const call of due) call();
    // What is due commits, and is due again after that.
    await delay(200);
  }
  return {clock: movable, pass};
}

async function start(t: ExecutionContext, clock: MovableClock): Promise<Backref> {
  const repeated = {optional: true, always: true} as const;
  const size = {headers: {'Content-Length': String(SIZE)}};
  const script = ([0, 1] as const).flatMap((index): Expectation[] => {
    const manifest = `/v2/library/app/manifests/${images[index].digest}`;
    const blob = `/v2/library/app/blobs/${layers[index].digest}`;
    return [
      {request: `GET ${manifest}`, answer: manifestAnswer(images[index]), ...repeated},
      {request: `GET ${blob}`, answer: blobAnswer(layers[index]), ...repeated},
      {request: `HEAD ${blob}`, answer: size, ...repeated},
    ];
  });
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  // The minutes that a test lets pass are not those of a client that reads nothing.
  const listener = {sendTimeout: 3_600_000};
  return startBackref(t, {clock, listener, registries: [{url: upstream.url}], config: {cache: CACHE}});
}

async function pull({ask, idle}: Backref, index: 0 | 1): Promise<void> {
  await ask(`/v2/app/manifests/${images[index].digest}`);
  await ask(`/v2/app/blobs/${layers[index].digest}`);
  await idle();
}

for (const [title, isAsked] of [
  ['an image that was just served below the HTTP server is not evicted', true],
  ['an image that nobody asked for is', false],
] as const) {
  test(title, async (t) => {
    const minutes = createMinutes();
    const proxy = await start(t, minutes.clock);
    const evicted: unknown[] = [];
    proxy.server.events.on('cache.evicted', (round) => void evicted.push(round));
    await pull(proxy, 0);
    const text = `GET /v2/app/manifests/${images[0].digest} HTTP/1.1\r\nHost: 127.0.0.1:${proxy.port}\r\n\r\n`;
    await (await openWay(t, proxy.port, 'table')).ask(text);
    for (let minute = 0; minute < 5; minute += 1) await minutes.pass();
    if (isAsked) t.regex(await (await openWay(t, proxy.port, 'front')).ask(text), /200 OK/);
    // Its client will ask for its layer next. Meanwhile somebody pulls the other image.
    await pull(proxy, 1);
    t.is(evicted.length, isAsked ? 0 : 1);
  });
}

test('an answer from a file goes on when its blob is evicted, and the file is closed with it', async (t) => {
  const minutes = createMinutes();
  const proxy = await start(t, minutes.clock);
  const [blob] = layers;
  await pull(proxy, 0);
  t.true((await askRaw(t, proxy.port, get(blob)))?.body.equals(blob.bytes));
  const slow = await openRaw(t, proxy.port);
  slow.socket.pause();
  const begun = once(proxy.server.events, 'request.start');
  slow.send(get(blob));
  await begun;
  for (let minute = 0; minute < 5; minute += 1) await minutes.pass();
  await pull(proxy, 1);
  await t.throwsAsync(stat(fileOf(proxy, blob)), {code: 'ENOENT'});
  t.true((await slow.answer())?.body.equals(blob.bytes));
  await untilClosed(proxy);
});
