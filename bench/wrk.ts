import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {ACCEPT} from './download.ts';

export interface Load {
  url: string;
  /** The `Authorization` header; none when missing or empty. */
  authorization?: string;
  connections: number;
  /** Seconds. */
  duration: number;
  /** The command to run it under, e.g. `taskset`. */
  prefix: readonly string[];
}

export interface Throughput {
  requestsPerSecond: number;
  bytesPerSecond: number;
  /** Answers other than 2xx and 3xx, broken connections and timeouts. */
  errors: number;
}

/** wrk's own summary is rounded; this prints the exact counts (durations in microseconds). */
const SCRIPT = `done = function(summary)
  local e = summary.errors
  io.write(string.format("\\ncounts %d %d %d %d\\n", summary.duration, summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout))
end
`;

/** Loads one URL with wrk, in one thread. */
export async function runWrk(scope: Scope, tools: Toolbox, load: Load): Promise<Throughput> {
  const script = join(scope.folder, 'counts.lua');
  await writeFile(script, SCRIPT);
  const {url, authorization = '', connections, duration, prefix} = load;
  const settings = ['-t1', `-c${connections}`, `-d${duration}s`, '--timeout', '20s', '-s', script];
  const login = authorization === '' ? [] : ['-H', `Authorization: ${authorization}`];
  const headers = ['-H', `Accept: ${ACCEPT}`, ...login];
  const [command = '', ...args] = [...prefix, tools.path('wrk'), ...settings, ...headers, url];
  const printed = await scope.run(command, args, {timeout: (duration + 30) * 1000});
  const counts = /^counts (\d+) (\d+) (\d+) (\d+)$/m.exec(printed)?.slice(1).map(Number);
  const [microseconds = 0, requests = 0, bytes = 0, errors = 0] = counts ?? [];
  if (microseconds === 0) throw new Error(`wrk printed no counts: ${printed}`);
  const seconds = microseconds / 1e6;
  return {requestsPerSecond: requests / seconds, bytesPerSecond: bytes / seconds, errors};
}
