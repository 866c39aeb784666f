/*
 * Loaded into a server whose work is shown (`node --import`): SIGUSR2 begins a CPU profile of each of its threads, and the
 * next one ends it. They are written into the folder that BENCH_PROFILE names, with what its memory consisted of when
 * there was most of it. Node's own `--cpu-prof` writes nothing at the end of a server that a signal ends.
 */
import {renameSync, writeFileSync} from 'node:fs';
import {Session} from 'node:inspector';
import {join} from 'node:path';
import {BroadcastChannel, isMainThread, threadId} from 'node:worker_threads';
import type {MemorySample} from './capture.ts';
import {DONE} from './files.ts';

const INTERVAL_US = 250;
const MEMORY_INTERVAL_MS = 50;

const folder = process.env['BENCH_PROFILE'] ?? '';

/** A file is whole when it is there. */
function write(name: string, value: unknown): void {
  const path = join(folder, name);
  writeFileSync(`${path}.new`, JSON.stringify(value));
  renameSync(`${path}.new`, path);
}

/** @returns what begins a profile of this thread, or ends it, and then calls `done` */
function profiler(): (done: () => void) => void {
  const session = new Session();
  session.connect();
  session.post('Profiler.enable');
  session.post('Profiler.setSamplingInterval', {interval: INTERVAL_US});
  let isRunning = false;
  return (done) => {
    isRunning = !isRunning;
    if (isRunning) return void session.post('Profiler.start', done);
    session.post('Profiler.stop', (_, result) => {
      write(`${threadId}.cpuprofile`, result?.profile);
      done();
    });
  };
}

/** Samples the memory of the main thread, and the process as a whole. @returns what writes the largest sample */
function memory(): () => void {
  let largest: MemorySample | undefined;
  const sample = () => {
    const found = process.memoryUsage();
    if (!largest || found.rss > largest.rss) largest = found;
  };
  setInterval(sample, MEMORY_INTERVAL_MS).unref();
  return () => {
    sample();
    write('memory.json', largest);
    largest = undefined;
  };
}

/** Each thread says that it is here, and each time when it has begun or ended: `done.json` comes when all have. */
function installMain(channel: BroadcastChannel): void {
  const toggle = profiler();
  const writeMemory = memory();
  let threads = 1;
  let left = 0;
  const countDown = () => {
    left -= 1;
    if (left === 0) write(DONE, true);
  };
  channel.onmessage = (event) => {
    const {data} = event as {data: Message};
    if (data === 'here') threads += 1;
    if (data === 'done') countDown();
  };
  process.on('SIGUSR2', () => {
    left = threads;
    writeMemory();
    channel.postMessage('toggle' satisfies Message);
    toggle(countDown);
  });
  if (process.env['BENCH_PROFILE_START'] === '1') toggle(() => {});
}

function installWorker(channel: BroadcastChannel): void {
  const toggle = profiler();
  const post = (message: Message) => channel.postMessage(message);
  channel.onmessage = (event) => {
    const {data} = event as {data: Message};
    if (data === 'toggle') toggle(() => post('done'));
  };
  post('here');
}

type Message = 'here' | 'toggle' | 'done';

if (folder !== '') {
  const channel = new BroadcastChannel('bench-profile');
  channel.unref();
  if (isMainThread) installMain(channel);
  else installWorker(channel);
}
