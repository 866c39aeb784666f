import {fork} from 'node:child_process';
import {once} from 'node:events';
import {fileURLToPath} from 'node:url';
import type {FuzzReport} from './fuzzed-server.ts';

const PROGRAM = fileURLToPath(new URL('fuzzed-server.ts', import.meta.url));

export interface FuzzedServerOptions {
  /** Of the registry behind it, as `http://host:port`. */
  upstream: string;
  /** Of the cache. */
  store: string;
  /** The process's working folder. */
  cwd: string;
}

/** A server in a process of its own, so that its memory is its own. */
export interface FuzzedServer {
  port: number;
  /** @throws Error when the process has ended */
  report(): Promise<FuzzReport>;
  kill(): Promise<void>;
}

/** @throws Error when the process ends before it listens */
export async function startFuzzedServer({upstream, store, cwd}: FuzzedServerOptions): Promise<FuzzedServer> {
  const child = fork(PROGRAM, [store, upstream], {cwd, env: {}, execArgv: ['--expose-gc'], stdio: 'inherit'});
  const ended = once(child, 'exit');
  const message = async <T>(): Promise<T> => {
    const [received] = await Promise.race([
      once(child, 'message'),
      ended.then(([code]) => Promise.reject(new Error(`the server ended with ${code}`))),
    ]);
    return received as T;
  };
  const port = await message<number>();
  return {
    port,
    report: () => {
      child.send('report');
      return message<FuzzReport>();
    },
    async kill() {
      child.kill('SIGKILL');
      await ended;
    },
  };
}
