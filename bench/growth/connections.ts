import type {Scope, Started} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {buildArtifact, manifestPath, type ServedArtifact} from '../artifact.ts';
import {startContents} from '../contents.ts';
import {download} from '../download.ts';
import {startOwn} from '../mirrors.ts';
import {startNginx} from '../nginx.ts';
import {createProfiler, type Profiler} from '../profile/capture.ts';
import type {Profile} from '../profile/profile.ts';
import {timeProfile} from '../profile/summary.ts';
import {onCore} from '../warm.ts';
import {type Latency, runWrk} from '../wrk.ts';

const COUNTS = [10, 1000, 5000];
const DURATION_S = 10;
const PROFILED_S = 4;
/** The 99th percentile of the latency may be at most this multiple of the median. */
export const MAX_SPREAD = 4;

export interface ConnectionsResult {
  connections: number;
  requestsPerSecond: number;
  latency: Latency;
  /** Requests that were refused, broken off or not answered within 20 s. */
  errors: number;
  /** Of nginx, under the same load: what the machine and the client do. */
  nginx: Latency;
}

/** Measures one warm manifest over more and more connections, all of which send requests all the time. */
export async function measureConnections(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<ConnectionsResult[]> {
  const {url, path, artifact} = await startWarm(scope);
  const nginx = await startNginx(scope, tools, artifact, onCore(1));
  const load = (origin: string, connections: number, duration: number) =>
    runWrk(scope, tools, {url: origin + path, connections, duration, prefix: onCore(0)});
  await load(url, 32, 3);
  const results: ConnectionsResult[] = [];
  for (const connections of COUNTS) {
    say(`${connections} connections`);
    const {requestsPerSecond, latency, errors} = await load(url, connections, DURATION_S);
    const beside = await load(nginx.url, connections, DURATION_S);
    results.push({connections, requestsPerSecond, latency, errors, nginx: beside.latency});
  }
  return results;
}

/** Shows where the time goes. @param load how many connections */
export async function profileConnections(
  load: string,
  scope: Scope,
  tools: Toolbox,
): Promise<Profile | undefined> {
  const own = await scope.child();
  const profiler = await createProfiler(own);
  const {url, path, process} = await startWarm(own, profiler);
  const run = () =>
    runWrk(own, tools, {
      url: url + path,
      connections: Number(load),
      duration: PROFILED_S,
      prefix: onCore(0),
    });
  await run();
  const {threads} = await profiler.capture(process, run);
  await own.end();
  return threads[0] && timeProfile(`${load} connections`, threads[0]);
}

interface WarmServer {
  url: string;
  /** Of a manifest that it has answered twice. */
  path: string;
  artifact: ServedArtifact;
  process: Started;
}

async function startWarm(scope: Scope, profiler?: Profiler): Promise<WarmServer> {
  const artifact = buildArtifact('library/warm', '1', [1024]);
  const path = manifestPath(artifact, artifact.manifest.digest);
  const upstream = await startContents(scope, new Map([[path, artifact.manifest]]), 0);
  const {url, process} = await startOwn(scope, upstream, {
    prefix: onCore(1),
    ...(profiler ? {profiler} : {}),
  });
  for (let time = 0; time < 2; time++) await download(url + path);
  return {url, path, artifact, process};
}
