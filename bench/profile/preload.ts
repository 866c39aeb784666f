/*
 * Loaded into a server whose work is shown (`node --import`): SIGUSR2 begins a CPU profile of each of its threads, and the
 * next one ends it. They are written into the folder that BENCH_PROFILE names, with what its memory consisted of when
 * there was most of it. Node's own `--cpu-prof` writes nothing at the end of a server that a signal ends.
 */
import {renameSync, writeFileSync} from 'node:fs';
import {Session} from 'node:inspector';
import {join} from 'node:path';
import {getEnvironmentData, isMainThread, setEnvironmentData, threadId} from 'node:worker_threads';
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

/** What the threads share: by a message, a port would load modules that no server needs. */
const [TOGGLES, THREADS, DONE_THREADS] = [0, 1, 2];
const SHARED = 'bench-profile';
const POLL_MS = 10;

/** `done.json` is written when all threads have begun, or have written their profiles. */
function installMain(): void {
  const shared = new Int32Array(new SharedArrayBuffer(3 * Int32Array.BYTES_PER_ELEMENT));
  setEnvironmentData(SHARED, shared);
  shared[THREADS] = 1;
  const toggle = profiler();
  const writeMemory = memory();
  process.on('SIGUSR2', () => {
    writeMemory();
    Atomics.store(shared, DONE_THREADS, 0);
    Atomics.add(shared, TOGGLES, 1);
    toggle(() => void Atomics.add(shared, DONE_THREADS, 1));
    const timer = setInterval(() => {
      if (Atomics.load(shared, DONE_THREADS) < Atomics.load(shared, THREADS)) return;
      clearInterval(timer);
      write(DONE, true);
    }, POLL_MS);
  });
  if (process.env['BENCH_PROFILE_START'] === '1') toggle(() => {});
}

function installWorker(): void {
  const shared = getEnvironmentData(SHARED) as unknown as Int32Array;
  const toggle = profiler();
  let seen = Atomics.load(shared, TOGGLES);
  Atomics.add(shared, THREADS, 1);
  setInterval(() => {
    const toggles = Atomics.load(shared, TOGGLES);
    if (toggles === seen) return;
    seen = toggles;
    toggle(() => void Atomics.add(shared, DONE_THREADS, 1));
  }, POLL_MS).unref();
}

if (folder !== '') {
  if (isMainThread) installMain();
  else installWorker();
}
