import {BUILT, startBackref} from '../../rig/backref.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {buildArtifact, manifestPath} from '../artifact.ts';
import {startContents} from '../contents.ts';
import {download} from '../download.ts';
import {onCore} from '../warm.ts';
import {type Latency, runWrk} from '../wrk.ts';

const COUNTS = [10, 1000, 5000];
const DURATION_S = 10;
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
  const artifact = buildArtifact('library/warm', '1', [1024]);
  const path = manifestPath(artifact, artifact.manifest.digest);
  const upstream = await startContents(scope, new Map([[path, artifact.manifest]]), 0);
  const own = await scope.child();
  const options = {main: BUILT, upstream, folder: own.folder, ttl: '1h', prefix: onCore(1)};
  const {url} = await startBackref(own, options);
  for (let time = 0; time < 2; time++) await download(url + path);
  const load = {url: url + path, prefix: onCore(0)};
  await runWrk(own, tools, {...load, connections: 32, duration: 3});
  const results: ConnectionsResult[] = [];
  for (const connections of COUNTS) {
    say(`${connections} connections`);
    const {requestsPerSecond, latency, errors} = await runWrk(own, tools, {
      ...load,
      connections,
      duration: DURATION_S,
    });
    results.push({connections, requestsPerSecond, latency, errors});
  }
  await own.end();
  return results;
}
