import type {Scope, Started} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {buildArtifact, manifestPath} from '../artifact.ts';
import {startContents} from '../contents.ts';
import {download} from '../download.ts';
import {startOwn} from '../mirrors.ts';
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
}

/** Measures one warm manifest over more and more connections, all of which send requests all the time. */
export async function measureConnections(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<ConnectionsResult[]> {
  const {url} = await startWarm(scope);
  const load = {url, prefix: onCore(0)};
  await runWrk(scope, tools, {...load, connections: 32, duration: 3});
  const results: ConnectionsResult[] = [];
  for (const connections of COUNTS) {
    say(`${connections} connections`);
    const {requestsPerSecond, latency, errors} = await runWrk(scope, tools, {
      ...load,
      connections,
      duration: DURATION_S,
    });
    results.push({connections, requestsPerSecond, latency, errors});
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
  const {url, process} = await startWarm(own, profiler);
  const run = () =>
    runWrk(own, tools, {url, connections: Number(load), duration: PROFILED_S, prefix: onCore(0)});
  await run();
  const {threads} = await profiler.capture(process, run);
  await own.end();
  return threads[0] && timeProfile(`${load} connections`, threads[0]);
}

/** @returns a server, and the URL of its manifest, which it has answered twice */
async function startWarm(scope: Scope, profiler?: Profiler): Promise<{url: string; process: Started}> {
  const artifact = buildArtifact('library/warm', '1', [1024]);
  const path = manifestPath(artifact, artifact.manifest.digest);
  const upstream = await startContents(scope, new Map([[path, artifact.manifest]]), 0);
  const {url, process} = await startOwn(scope, upstream, {
    prefix: onCore(1),
    ...(profiler ? {profiler} : {}),
  });
  for (let time = 0; time < 2; time++) await download(url + path);
  return {url: url + path, process};
}
