import {once} from 'node:events';
import {totalmem} from 'node:os';
import test, {type ExecutionContext} from 'ava';
import type {Cancel} from '../../src/clock.ts';
import {mostThreads, thisMachine, whenBusy} from '../../src/workers/demand.ts';
import {openBare, shared} from '../http/ways.ts';
import {
  type Backref,
  type BackrefOptions,
  createMovableClock,
  DAY,
  startBackref,
  waiting,
} from '../support/backref.ts';
import {imageManifest} from '../support/content.ts';
import {listeningSockets} from '../support/listening-sockets.ts';
import {pusherTo} from '../support/pusher.ts';

const MIB = 2 ** 20;
for (const [title, given, expected] of [
  ['one core has one thread', {cores: 1, memory: 4096 * MIB}, 1],
  ['each core has one', {cores: 4, memory: 4096 * MIB}, 4],
  ['there are at most eight', {cores: 64, memory: 65_536 * MIB}, 8],
  ['a container with little memory has fewer', {cores: 8, memory: 300 * MIB}, 2],
  ['however little it is, there is one', {cores: 8, memory: 64 * MIB}, 1],
] as const) {
  test(title, (t) => t.is(mostThreads(given), expected));
}

test('a machine has a core, and memory', (t) => {
  const {cores, memory} = thisMachine();
  t.true(cores >= 1 && memory > 0 && memory <= totalmem());
});

/** Looks at a thread that is so busy, one time after the other. @returns how often it acted */
function look(busyness: readonly number[], cancelAfter = Number.POSITIVE_INFINITY): number {
  let acted = 0;
  let next: (() => void) | undefined;
  const clock = {
    after(_ms: number, call: () => void): Cancel {
      next = call;
      return () => {
        next = undefined;
      };
    },
  };
  const values = busyness.values();
  const cancel = whenBusy(() => acted++, {busyness: () => values.next().value ?? 0, clock});
  for (let time = 0; time < busyness.length; time += 1) {
    if (time === cancelAfter) cancel();
    const call = next;
    next = undefined;
    call?.();
  }
  return acted;
}

for (const [title, busyness, acted] of [
  ['an idle thread needs no others', [0, 0.1, 0, 0.6, 0.69], 0],
  ['a thread that is busy twice in a row needs others', [0, 0.7, 0.9], 1],
  ['a peak is too short', [0.9, 0.1, 1, 0.2, 1], 0],
  ['they are needed once', [1, 1, 1, 1, 0, 1, 1], 1],
] as const) {
  test(title, (t) => t.is(look(busyness), acted));
}

test('nothing is looked at after it is cancelled', (t) => t.is(look([1, 1, 1], 1), 0));

test('an event loop that has not waited is busy', (t) => {
  const calls: (() => void)[] = [];
  const after = (_ms: number, call: () => void): Cancel => {
    calls.push(call);
    return () => {};
  };
  t.plan(1);
  whenBusy(() => t.pass(), {clock: {after}});
  for (const call of calls) call();
});

const image = imageManifest();
const GET = `GET /v2/app/manifests/${image.digest} HTTP/1.1\r\nHost: a\r\n\r\n`;
/** So many connections that no thread is left without one. */
const MANY = 40;

const TWO_CORES = {cores: 2, memory: 4096 * MIB};

/** A hosted registry with an image on two cores, that looks how busy it is each millisecond. */
async function start(
  t: ExecutionContext,
  busyness: () => number,
  {config, ...options}: Pick<BackrefOptions, 'config' | 'workerProgram'> = {},
): Promise<Backref> {
  const clock = waiting(createMovableClock(), (ms) => (ms === 2000 ? 1 : ms));
  const registries = [{validate: {blobs: false, children: false, sizes: false}}];
  const proxy = await startBackref(t, {
    ...{registries, clock, busyness, machine: TWO_CORES, ...options},
    config: {...config, workers: 'auto'},
  });
  await pusherTo(proxy, 'app').manifest(image, '1');
  return proxy;
}

// Only Linux lists the sockets of a port, in /proc, and shares a port among threads; CI runs there.
const onLinux = process.platform === 'linux' ? test : test.skip;

onLinux('with workers: auto, a server that is busy gets more threads, and none before', async (t) => {
  let busyness = 0;
  const proxy = await start(t, () => busyness);
  const established = await openBare(t, proxy.port);
  const first = await established.ask(GET);
  const sockets = await listeningSockets(proxy.port);
  t.is(sockets, 4);
  const started = once(proxy.server.events, 'workers.started');
  busyness = 1;
  t.deepEqual(await started, [{count: 2}]);
  t.is(await listeningSockets(proxy.port), 4 * 2);
  for (let time = 0; time < 2; time += 1) {
    const connections = await Promise.all(Array.from({length: MANY}, () => openBare(t, proxy.port)));
    const answers = await Promise.all([...connections, established].map(({ask}) => ask(GET)));
    t.deepEqual([...new Set(answers.map(shared))], [shared(first)]);
  }
});

/** A worker that never listens. */
const NEVER_LISTENING = new URL('data:text/javascript,setInterval(() => {}, 1000)');

onLinux(
  'a server that closes while its workers start waits for none of them, and reports nothing',
  async (t) => {
    const {promise: begins, resolve} = Promise.withResolvers<void>();
    let looks = 0;
    const busyness = () => {
      looks += 1;
      // The workers begin in this turn.
      if (looks === 2) resolve();
      return 1;
    };
    const config = {shutdown: {grace: DAY}};
    const proxy = await start(t, busyness, {workerProgram: NEVER_LISTENING, config});
    const reported: string[] = [];
    for (const name of ['workers.started', 'worker.ended', 'background.failed'] as const)
      proxy.server.events.on(name, () => reported.push(name));
    await begins;
    await proxy.server.close();
    t.is(await listeningSockets(proxy.port), 0);
    t.deepEqual(reported, []);
  },
);

onLinux('a worker whose thread cannot be made is reported, and tried again', async (t) => {
  // Node refuses it where it makes the thread, as it does where the system has no memory for one.
  let busyness = 0;
  const proxy = await start(t, () => busyness, {workerProgram: new URL('http://127.0.0.1/')});
  busyness = 1;
  for (let time = 0; time < 2; time += 1) {
    const [{reason}] = await once(proxy.server.events, 'worker.ended');
    t.regex(reason, /scheme/);
  }
});
