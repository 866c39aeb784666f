import {performance} from 'node:perf_hooks';
import {BUILT, serveRegistries} from '../../rig/backref.ts';
import {content, noise, pushBlob, pushManifest} from '../../rig/image.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {buildArtifact, manifestPath, pushArtifact} from '../artifact.ts';
import {download} from '../download.ts';
import {onCore} from '../warm.ts';
import {runWrk} from '../wrk.ts';

const PUSHERS = [0, 1, 4, 16];
const DURATION_S = 8;
const BLOB_BYTES = 16 * 1024;
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';

/** Rate and latency of pulls of one manifest while a number of clients push images. */
export interface MixedResult {
  pushers: number;
  pullsPerSecond: number;
  /** Milliseconds. */
  pull: {p50: number; p99: number};
  /** Images pushed a second: a blob and a manifest each, on the disk when the answer comes. */
  pushesPerSecond: number;
  /** Milliseconds for an image; undefined without pushes. */
  push: {p50: number; p99: number} | undefined;
  errors: number;
}

/** Measures pulls beside more and more clients that push to the same server. */
export async function measureMixed(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<MixedResult[]> {
  const own = await scope.child();
  const {url} = await serveRegistries(own, {
    main: BUILT,
    folder: own.folder,
    registries: {'apps.local': {default: true}},
    prefix: onCore(1),
  });
  const artifact = buildArtifact('warm', '1', [1024]);
  await pushArtifact(url, artifact);
  const path = manifestPath(artifact, artifact.manifest.digest);
  for (let time = 0; time < 2; time++) await download(url + path);
  const load = {url: url + path, connections: 32, prefix: onCore(0)};
  await runWrk(own, tools, {...load, duration: 3});
  const results: MixedResult[] = [];
  for (const pushers of PUSHERS) {
    say(`32 clients pull, ${pushers} push`);
    const stop = new AbortController();
    const began = performance.now();
    const pushing = Array.from({length: pushers}, (_, index) =>
      pushUntil(stop.signal, url, `${pushers}-${index}`),
    );
    const {requestsPerSecond, latency, errors} = await runWrk(own, tools, {...load, duration: DURATION_S});
    const seconds = (performance.now() - began) / 1000;
    stop.abort();
    const times = (await Promise.all(pushing)).flat();
    results.push({
      pushers,
      pullsPerSecond: requestsPerSecond,
      pull: {p50: latency.p50, p99: latency.p99},
      pushesPerSecond: times.length / seconds,
      push: pushers === 0 ? undefined : {p50: percentile(times, 50), p99: percentile(times, 99)},
      errors,
    });
  }
  await own.end();
  return results;
}

/** Pushes images of a repository of its own, one after the other. @returns the milliseconds that each took */
async function pushUntil(signal: AbortSignal, url: string, name: string): Promise<number[]> {
  const times: number[] = [];
  for (let number = 0; !signal.aborted; number++) {
    const blob = content('application/octet-stream', noise(`${name} ${number}`, BLOB_BYTES));
    const {digest, mediaType} = blob;
    const layer = {mediaType, digest, size: BLOB_BYTES};
    const body = {
      schemaVersion: 2,
      mediaType: MANIFEST,
      artifactType: 'application/vnd.example.bench',
      config: layer,
      layers: [layer],
    };
    const began = performance.now();
    await pushBlob(url, `pushed/${name}`, blob);
    await pushManifest(
      url,
      `pushed/${name}`,
      `${number}`,
      content(MANIFEST, Buffer.from(JSON.stringify(body))),
    );
    times.push(performance.now() - began);
  }
  return times;
}

/** The nearest-rank percentile of the values; 0 if there are none. */
export function percentile(values: readonly number[], percent: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((percent / 100) * sorted.length) - 1)] ?? 0;
}
