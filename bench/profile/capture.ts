import {mkdir, readdir, readFile, rm} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import type {Scope, Started} from '../../rig/scope.ts';
import {DONE} from './files.ts';
import type {CpuProfile} from './summary.ts';

const PRELOAD = fileURLToPath(new URL('preload.ts', import.meta.url));
const TIME_LIMIT_MS = 20_000;
const POLL_MS = 25;

/** Bytes: those of the whole process, and what the main thread has of them. */
export interface MemorySample {
  rss: number;
  heapTotal: number;
  heapUsed: number;
  /** Outside of the heap, `arrayBuffers` included. */
  external: number;
  arrayBuffers: number;
}

/** What one server did during a load. */
export interface Captured {
  /** Of each thread, the main one first. */
  threads: readonly CpuProfile[];
  memory: MemorySample;
}

/** Profiles servers that start with its flags and variables, one after the other. */
export interface Profiler {
  readonly flags: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  /**
   * Profiles what the server does while `work` runs.
   * @throws Error when the server ends, or writes no profile in time
   */
  capture(server: Started, work: () => Promise<unknown>): Promise<Captured>;
  /** Ends what the server began with its start, for BENCH_PROFILE_START. @throws as `capture` */
  end(server: Started): Promise<Captured>;
}

/** @param scope its folder holds the profiles */
export async function createProfiler(scope: Scope): Promise<Profiler> {
  const folder = join(scope.folder, 'profile');
  await mkdir(folder);
  const signal = async (server: Started): Promise<void> => {
    await rm(folder, {recursive: true});
    await mkdir(folder);
    process.kill(server.pid, 'SIGUSR2');
    await written(folder, server);
  };
  const end = async (server: Started): Promise<Captured> => {
    await signal(server);
    return read(folder);
  };
  return {
    flags: ['--import', PRELOAD],
    env: {...process.env, BENCH_PROFILE: folder},
    async capture(server, work) {
      await signal(server);
      await work();
      return end(server);
    },
    end,
  };
}

/** Waits until all threads have begun, or have written what they did. */
async function written(folder: string, server: Started): Promise<void> {
  const deadline = Date.now() + TIME_LIMIT_MS;
  while (!(await readdir(folder)).includes(DONE)) {
    if (server.ended() || Date.now() > deadline)
      throw new Error(`the server wrote no profile: ${server.output().trim()}`);
    await delay(POLL_MS);
  }
}

async function read(folder: string): Promise<Captured> {
  const json = async (name: string) => JSON.parse(await readFile(join(folder, name), 'utf8'));
  const names = (await readdir(folder)).filter((name) => name.endsWith('.cpuprofile'));
  const numbers = names.map((name) => Number.parseInt(name, 10)).sort((a, b) => a - b);
  const threads: CpuProfile[] = [];
  for (const number of numbers) threads.push(await json(`${number}.cpuprofile`));
  return {threads, memory: await json('memory.json')};
}
