import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {createProfiler} from '../../bench/profile/capture.ts';
import {profileTable} from '../../bench/profile/profile.ts';
import {isBusy, memoryProfile, timeProfile} from '../../bench/profile/summary.ts';
import {createScope, ready} from '../../rig/scope.ts';

const MIB = 1024 * 1024;

const node = (id: number, functionName: string, url: string) => ({id, callFrame: {functionName, url}});

/** A function of the tree, and the milliseconds that it took. */
const spent = (frames: readonly [functionName: string, url: string, milliseconds: number][]) =>
  timeProfile('a load', {
    nodes: frames.map(([functionName, url], id) => node(id, functionName, url)),
    samples: frames.map((_, id) => id),
    timeDeltas: frames.map(([, , milliseconds]) => 1000 * milliseconds),
  }).rows.map(({what, value, detail}) => [what, value, detail]);

test('time counts as what a function belongs to, with the largest names of it', (t) => {
  t.deepEqual(
    spent([
      ['writev', '', 30],
      ['find', 'file:///app/src/http/prepared.ts', 15],
      ['send', 'file:///app/src/http/send.ts', 25],
      ['(idle)', '', 10],
      ['get', 'file:///app/node_modules/@scope/thing/index.js', 12],
      ['parserOnHeadersComplete', 'node:_http_common', 8],
    ]),
    [
      ['backref', 0.4, 'http/send.ts 25.0 %, http/prepared.ts 15.0 %'],
      ['writing to sockets', 0.3, 'writev() 30.0 %'],
      ['packages', 0.12, '@scope/thing 12.0 %'],
      ['waiting for work', 0.1, ''],
      ["node's HTTP server", 0.08, 'node:_http_common 8.0 %'],
    ],
  );
});

test('what the profiler takes is not counted, and neither are crumbs shown', (t) => {
  t.deepEqual(
    spent([
      ['post', 'node:inspector', 500],
      ['memoryUsage', '', 100],
      ['(garbage collector)', '', 99.9],
      ['emit', 'node:events', 0.1],
    ]),
    [['garbage collection', 0.999, '']],
  );
});

test('a regular expression is shown without its text, which may break a table', (t) => {
  t.deepEqual(spent([['RegExp: ^a|b$', '', 1]]), [['native functions of node and V8', 1, 'RegExp 100.0 %']]);
});

test('a thread that only waits is not busy', (t) => {
  const waiting = {nodes: [node(1, '(idle)', ''), node(2, 'run', 'node:events')], samples: [1, 2]};
  t.false(isBusy({...waiting, timeDeltas: [960, 40]}));
  t.true(isBusy({...waiting, timeDeltas: [940, 60]}));
});

test('memory is divided into what the main thread has, and the rest', (t) => {
  const sample = {
    rss: 150 * MIB,
    heapTotal: 40 * MIB,
    heapUsed: 30 * MIB,
    external: 66 * MIB,
    arrayBuffers: 64 * MIB,
  };
  const profile = memoryProfile('a crowd', sample);
  t.deepEqual(
    profile.rows.map(({value}) => value),
    [64, 44, 40, 2],
  );
  t.is(profileTable(profile).split('\n')[2], '| buffers | 64 |  |');
});

test('a server writes a profile of each of its threads, of the time between two signals', async (t) => {
  const scope = await createScope();
  t.teardown(() => scope.end());
  const profiler = await createProfiler(scope);
  const file = join(scope.folder, 'server.mjs');
  const script = `
    import {isMainThread, parentPort, Worker} from 'node:worker_threads';
    if (isMainThread) new Worker(import.meta.filename).on('message', console.log);
    parentPort?.postMessage('up');
    setInterval(() => {}, 1000);
  `;
  await writeFile(file, script);
  const server = scope.start(process.execPath, [...profiler.flags, file], {env: profiler.env});
  await ready(server, 'the server', async () => server.output().includes('up'));
  let ran = 0;
  const {threads, memory} = await profiler.capture(server, async () => {
    ran += 1;
  });
  t.is(ran, 1);
  t.is(threads.length, 2);
  for (const {nodes} of threads) t.true(nodes.length > 0);
  t.true(memory.rss > memory.heapTotal);
});
