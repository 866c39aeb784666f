import {once} from 'node:events';
import test, {type ExecutionContext} from 'ava';
import {createPace} from '../../src/http/body.ts';
import {type Backref, LIMITS, startBackref} from '../support/backref.ts';
import {errorOf} from '../support/pusher.ts';
import {openRaw, type RawAnswer} from '../support/raw-http.ts';

const HOST = 'Host: 127.0.0.1\r\n';

const start = (t: ExecutionContext, headers: Partial<typeof LIMITS.headers> = {}) =>
  startBackref(t, {
    registries: [{}],
    config: {limits: {...LIMITS, headers: {...LIMITS.headers, ...headers}}},
  });

const limitIn = (answer: RawAnswer | undefined) => JSON.parse(String(answer?.body)).errors[0].detail.limit;

const counted = async ({ask}: Backref, limit: string): Promise<number> => {
  const {body} = await ask('/metrics');
  const line = new RegExp(`^backref_refused_total\\{limit="${limit}"\\} (\\d+)$`, 'm');
  return Number(line.exec(String(body))?.[1]);
};

/** Begins a push, and resolves when the server waits for more of its body. */
async function beginPush(t: ExecutionContext, proxy: Backref, length: number) {
  const begun = await proxy.ask('/v2/app/blobs/uploads/', {method: 'POST'});
  const location = String(begun.headers.location);
  const connection = await openRaw(t, proxy.port);
  const started = once(proxy.server.events, 'request.start');
  connection.send(
    `PATCH ${location} HTTP/1.1\r\n${HOST}Expect: 100-continue\r\nContent-Length: ${length}\r\n\r\n`,
  );
  await started;
  return {...connection, location};
}

test('headers up to the number that is allowed are read, and one more is 431', async (t) => {
  const proxy = await start(t, {count: 20});
  const {send, answer} = await openRaw(t, proxy.port);
  const withHeaders = (count: number) =>
    send(`GET /v2/ HTTP/1.1\r\n${HOST}${'X-A: b\r\n'.repeat(count - 1)}\r\n`);
  withHeaders(20);
  t.is((await answer())?.status, 200);
  withHeaders(21);
  const refused = await answer();
  t.is(refused?.status, 431);
  t.is(limitIn(refused), 'limits.headers.count');
  t.is(await counted(proxy, 'limits.headers.count'), 1);
});

test('headers cannot hide behind those that the parser keeps: all of thousands are counted', async (t) => {
  const proxy = await start(t, {count: 10_000, size: 256 * 1024});
  const {send, answer} = await openRaw(t, proxy.port);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}${'X-A: b\r\n'.repeat(9000)}${HOST}\r\n`);
  const refused = await answer();
  t.is(refused?.status, 400);
  t.regex(String(refused?.body), /2 Host headers/);
});

test('headers of more bytes than are allowed are 431, and others are read', async (t) => {
  const proxy = await start(t, {size: 64 * 1024});
  const long = (length: number) => `GET /v2/ HTTP/1.1\r\n${HOST}X-A: ${'a'.repeat(length)}\r\n\r\n`;
  const {send, answer} = await openRaw(t, proxy.port);
  send(long(63 * 1024));
  t.is((await answer())?.status, 200);
  send(long(65 * 1024));
  const refused = await answer();
  t.is(refused?.status, 431);
  t.is(limitIn(refused), 'limits.headers.size');
  t.is(await counted(proxy, 'limits.headers.size'), 1);
});

test('a client that sends its headers too slowly, or none at all, is answered 408', async (t) => {
  const proxy = await start(t, {timeout: 200});
  const [silent, dripping] = [await openRaw(t, proxy.port), await openRaw(t, proxy.port)];
  dripping.send(`GET /v2/ HTTP/1.1\r\n${HOST}X-A: `);
  let isOver = false;
  const drip = () => {
    if (isOver) return;
    dripping.send('a');
    setImmediate(drip);
  };
  drip();
  const refused = await dripping.answer();
  isOver = true;
  t.is(refused?.status, 408);
  t.is(limitIn(refused), 'limits.headers.timeout');
  t.is((await silent.answer())?.status, 408);
  t.is(await counted(proxy, 'limits.headers\\.timeout'), 2);
});

test('a request that arrived in time is answered by a server that was busy until later', async (t) => {
  const proxy = await start(t, {timeout: 200});
  const {send, answer} = await openRaw(t, proxy.port);
  // Until the connection is accepted, its time has not begun.
  await new Promise((resolve) => setTimeout(resolve, 20));
  // Of the event loop's phases, this is the one before the timers; connections are read in the one after them.
  await new Promise(setImmediate);
  send(`GET /v2/ HTTP/1.1\r\n${HOST}\r\n`);
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 400);
  t.is((await answer())?.status, 200);
});

test('the time for headers is not one for the body', async (t) => {
  const proxy = await start(t, {timeout: 200});
  const pushing = await beginPush(t, proxy, 10);
  pushing.send('hello');
  const silent = await openRaw(t, proxy.port);
  t.is((await silent.answer())?.status, 408);
  pushing.send('world');
  t.is((await pushing.answer('PATCH'))?.status, 202);
});

test('a client that sends its body slower than is allowed is answered 408, and what it sent before is kept', async (t) => {
  const proxy = await start(t);
  const {events} = proxy.server;
  const pushing = await beginPush(t, proxy, 200_000);
  pushing.send(Buffer.alloc(30_000));
  const exceeded = once(events, 'limit.exceeded');
  let isOver = false;
  void exceeded.then(() => {
    isOver = true;
  });
  while (!isOver) {
    proxy.clock.move(1000);
    pushing.send('a');
    await new Promise(setImmediate);
  }
  const refused = await pushing.answer('PATCH');
  t.is(refused?.status, 408);
  t.is(limitIn(refused), 'limits.bodies.minRate');
  t.regex(String(refused?.body), /fewer than 1024 bytes a second over 60 s/);
  const {headers} = await proxy.ask(pushing.location);
  t.true(Number(headers.range?.split('-')[1]) >= 29_999, headers.range);
});

test('a reload changes the number of headers at once, and their size and time at the next start', async (t) => {
  const proxy = await start(t);
  const headers = {size: 64 * 1024, count: 1, timeout: 1000};
  const {left} = proxy.reload({config: {limits: {...LIMITS, headers}}});
  t.deepEqual(left, ['limits.headers.size', 'limits.headers.timeout']);
  const refused = await proxy.ask('/v2/', {headers: {a: 'b'}});
  t.is(refused.status, 431);
  t.is(errorOf(refused).detail?.['limit'], 'limits.headers.count');
});

const LIMIT = {timeout: 1000, minRate: 100};

for (const [title, chunks, isKept] of [
  ['silence shorter than the timeout', [[999, 0]], true],
  ['as much as is asked for', [[1000, 100]], true],
  ['less', [[1000, 99]], false],
  [
    'much at once, then little for less than the timeout',
    [
      [1, 10_000],
      [998, 1],
    ],
    true,
  ],
  [
    'enough in one timeout and too little in the next',
    [
      [1000, 10_000],
      [1000, 99],
    ],
    false,
  ],
  ['one chunk after a long wait', [[10_000, 999]], false],
  ['a large one after the same', [[10_000, 1000]], true],
] as const) {
  test(`the pace of a body: ${title} is ${isKept ? 'fast enough' : 'too slow'}`, (t) => {
    const pace = createPace(LIMIT);
    const kept = chunks.map(([ms, bytes]) => pace.isKept(ms, bytes));
    t.is(kept.at(-1), isKept);
    t.true(kept.slice(0, -1).every(Boolean));
  });
}

test('a rate of 0 is any rate', (t) => {
  t.true(createPace({timeout: 1000, minRate: 0}).isKept(1_000_000, 0));
});
