import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {ACCEPT} from './download.ts';

export interface Load {
  url: string;
  /** The `Authorization` header; none when missing or empty. */
  authorization?: string;
  /** The `If-None-Match` header. */
  etag?: string;
  /** Paths that are requested one after the other, instead of the URL's own. */
  paths?: readonly string[];
  connections: number;
  /** Of wrk; default 1. */
  threads?: number;
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
  latency: Latency;
}

/** Milliseconds within which that share of the requests was answered. */
export interface Latency {
  p50: number;
  p90: number;
  p99: number;
  p999: number;
  longest: number;
}

/** wrk's own summary is rounded; this prints the exact counts (durations in microseconds). */
const SCRIPT = `done = function(summary, latency)
  local e = summary.errors
  io.write(string.format("\\ncounts %d %d %d %d\\n", summary.duration, summary.requests, summary.bytes,
    e.connect + e.read + e.write + e.status + e.timeout))
  io.write(string.format("latency %d %d %d %d %d\\n", latency:percentile(50), latency:percentile(90),
    latency:percentile(99), latency:percentile(99.9), latency.max))
end
`;

/** Requests the paths of a file, one a line. */
const pathsScript = (file: string): string => `
local requests, at = {}, 0
init = function(args)
  for path in io.lines("${file}") do requests[#requests + 1] = wrk.format(nil, path) end
end
request = function()
  at = at % #requests + 1
  return requests[at]
end
`;

/** Loads one URL with wrk. */
export async function runWrk(scope: Scope, tools: Toolbox, load: Load): Promise<Throughput> {
  const {url, authorization = '', etag = '', paths, connections, threads = 1, duration, prefix} = load;
  const script = join(scope.folder, 'counts.lua');
  const list = join(scope.folder, 'paths.txt');
  if (paths) await writeFile(list, `${paths.join('\n')}\n`);
  await writeFile(script, `${SCRIPT}${paths ? pathsScript(list) : ''}`);
  const settings = [`-t${threads}`, `-c${connections}`, `-d${duration}s`, '--timeout', '20s', '-s', script];
  const headers = [
    `Accept: ${ACCEPT}`,
    ...(authorization === '' ? [] : [`Authorization: ${authorization}`]),
    ...(etag === '' ? [] : [`If-None-Match: ${etag}`]),
  ].flatMap((header) => ['-H', header]);
  const [command = '', ...args] = [...prefix, tools.path('wrk'), ...settings, ...headers, url];
  const printed = await scope.run(command, args, {timeout: (duration + 30) * 1000});
  return parseCounts(printed);
}

/** The same with HEAD requests, from a program of ours, which may reach its own limit before a fast server does. */
export async function runHead(scope: Scope, load: Pick<Load, 'url' | 'connections' | 'duration' | 'prefix'>) {
  const {url, connections, duration, prefix} = load;
  const client = [process.execPath, HEAD_CLIENT, url, `${connections}`, `${duration}`];
  const [command = '', ...args] = [...prefix, ...client];
  return parseCounts(await scope.run(command, args, {timeout: (duration + 30) * 1000}));
}

const HEAD_CLIENT = fileURLToPath(new URL('./head-client.ts', import.meta.url));

/** What the script printed. @throws Error with all of it where the counts are missing */
export function parseCounts(printed: string): Throughput {
  const numbers = (name: string) =>
    new RegExp(`^${name}((?: \\d+)+)$`, 'm').exec(printed)?.[1]?.trim().split(' ').map(Number) ?? [];
  const [microseconds = 0, requests = 0, bytes = 0, errors = 0] = numbers('counts');
  if (microseconds === 0) throw new Error(`wrk printed no counts: ${printed}`);
  const [p50 = 0, p90 = 0, p99 = 0, p999 = 0, longest = 0] = numbers('latency').map((us) => us / 1000);
  const seconds = microseconds / 1e6;
  return {
    requestsPerSecond: requests / seconds,
    bytesPerSecond: bytes / seconds,
    errors,
    latency: {p50, p90, p99, p999, longest},
  };
}
