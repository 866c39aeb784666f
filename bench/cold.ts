import {writeFile} from 'node:fs/promises';
import {Agent} from 'node:http';
import {join} from 'node:path';
import {performance} from 'node:perf_hooks';
import {createGate, type Gate} from '../rig/gate.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {startRegistry} from '../rig/upstreams.ts';
import {
  blobPath,
  buildArtifact,
  layersOf,
  manifestPath,
  pushArtifact,
  type ServedArtifact,
} from './artifact.ts';
import {type Download, download, median} from './download.ts';
import {
  type MirrorName,
  measuredMirrors,
  peakMemory,
  type RunningMirror,
  startMirror,
  startOwn,
} from './mirrors.ts';
import {createProfiler} from './profile/capture.ts';
import type {Profile} from './profile/profile.ts';
import {memoryProfile, timeProfile} from './profile/summary.ts';
import {startThrottled} from './throttled.ts';
import {runWrk} from './wrk.ts';

const MIB = 1024 * 1024;
const CLIENTS = 50;
const FIRST_BYTES = 20;
const THROTTLED_ROUNDS = 5;
const ONE_PULL_ROUNDS = 3;
const WARM_CLIENTS = 100;
const WARM_S = 10;
const LAYERS = 20;
const LAYER_BYTES = 5 * MIB;
/** Bytes per second. */
export const THROTTLE = 100_000_000;

export interface ColdResult {
  name: string;
  /** 50 clients request one uncached blob of 100 MiB, after its manifest: the GETs of blobs that reached the upstream. */
  upstreamGets: number;
  /** What each client received that did not receive the right bytes. */
  wrong: string[];
  /** Bytes. */
  peakMemory: number;
  /** Milliseconds from the request for the manifest until the last client was done. */
  crowd: number;
  /** Median milliseconds by which the first byte of a cold blob arrives later than from the upstream. */
  firstByteDelay: number;
  /** Median milliseconds of one client's pull of a manifest and its blob of 100 MiB: a mirror may fetch blobs before it answers. */
  onePull: number;
  /** Of backref alone: peak resident memory in bytes while 100 clients read one warm blob of 100 MiB, again and again. */
  warmPeak: number | undefined;
  /** Of backref alone: the two peaks with one thread. By default a further one starts after four seconds of load. */
  oneThread: {peakMemory: number; warmPeak: number} | undefined;
  /** Median time of crane's pull of an image of 20 layers, relative to a direct pull. */
  imageRatio: number;
  /** The same where the upstream is throttled. */
  slowImageRatio: number;
  /** Median time of a cold pull from the throttled upstream, relative to a direct pull. */
  throttledRatio: number;
}

type Settings = Record<string, unknown>;

/** What the mirrors pull, and the registries that have it. */
interface ColdWork {
  scope: Scope;
  tools: Toolbox;
  upstream: string;
  /** One that sends `THROTTLE` bytes a second. */
  throttled: string;
  /** A blob of 100 MiB. */
  big: ServedArtifact;
  /** Twenty blobs of 1 MiB. */
  many: ServedArtifact;
  /** Twenty blobs of 5 MiB. */
  image: ServedArtifact;
  /** Blobs of 100 MiB at the throttled registry, one for each round. */
  slow: ServedArtifact[];
}

async function startUpstreams(scope: Scope, tools: Toolbox): Promise<ColdWork> {
  const big = buildArtifact('library/big', '1', [100 * MIB]);
  const many = buildArtifact('library/many', '1', Array(FIRST_BYTES).fill(MIB));
  const image = buildArtifact('library/layers', '1', Array(LAYERS).fill(LAYER_BYTES));
  const slow = Array.from({length: THROTTLED_ROUNDS}, (_, round) =>
    buildArtifact('library/slow', `${round}`, [100 * MIB]),
  );
  const {url: upstream} = await startRegistry(scope, tools, 'distribution');
  for (const artifact of [big, many, image]) await pushArtifact(upstream, artifact);
  const throttled = await startThrottled(scope, [...slow, image], THROTTLE);
  return {scope, tools, upstream, throttled, big, many, image, slow};
}

/** Measures every mirror with an empty cache. `say` reports progress. */
export async function measureCold(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<ColdResult[]> {
  const work = await startUpstreams(scope, tools);
  const results: ColdResult[] = [];
  for (const name of measuredMirrors()) {
    say(`${name}: ${CLIENTS} clients, one cold blob of 100 MiB`);
    const crowd = await withMirror(work, name, (mirror, gate) => crowdPull(mirror, gate, work.big));
    say(`${name}: one client, one cold blob of 100 MiB`);
    const onePull = await medianOf(ONE_PULL_ROUNDS, () =>
      withMirror(work, name, ({url}) => pullTime(url, work.big)),
    );
    say(`${name}: an image of ${LAYERS} layers with crane`);
    const imageRatio = await imageTime(work, name, work.upstream);
    const slowImageRatio = await imageTime(work, name, work.throttled);
    say(`${name}: the first byte of ${FIRST_BYTES} cold blobs`);
    const firstByteDelay = await withMirror(work, name, (mirror, gate) =>
      firstBytes(mirror.url, gate.url, work.many),
    );
    say(`${name}: cold pulls over an upstream of ${THROTTLE / 1e6} MB/s`);
    const own = await scope.child();
    const mirror = await startMirror(own, tools, name, work.throttled);
    const throttledRatio = await slowPulls(mirror.url, work.throttled, work.slow);
    await own.end();
    const isOwn = name === 'backref';
    const warmPeak = isOwn ? await warmCrowdPeak(work, {}, say) : undefined;
    const oneThread = isOwn ? await peaksOfOneThread(work, say) : undefined;
    results.push({
      ...{name, ...crowd, onePull, warmPeak, oneThread, imageRatio, slowImageRatio},
      ...{firstByteDelay, throttledRatio},
    });
  }
  return results;
}

const withMirror = <T>(
  work: ColdWork,
  name: MirrorName,
  use: (mirror: RunningMirror, gate: Gate) => Promise<T>,
): Promise<T> => behindGate(work, (own, gate) => startMirror(own, work.tools, name, gate.url), use);

/** As `withMirror`, of a backref with more settings. */
const withOwn = <T>(
  work: ColdWork,
  settings: Settings,
  use: (mirror: RunningMirror, gate: Gate) => Promise<T>,
): Promise<T> => behindGate(work, (own, gate) => startOwn(own, gate.url, {settings}), use);

/** Starts an empty mirror of a gate before the upstream, and ends both after their use. */
async function behindGate<T>(
  {scope, upstream}: ColdWork,
  start: (own: Scope, gate: Gate) => Promise<RunningMirror>,
  use: (mirror: RunningMirror, gate: Gate) => Promise<T>,
): Promise<T> {
  const own = await scope.child();
  const gate = await createGate(upstream);
  own.defer(gate.stop);
  const result = await use(await start(own, gate), gate);
  await own.end();
  return result;
}

/** The median of what repeated work gives. */
async function medianOf(rounds: number, work: () => Promise<number>): Promise<number> {
  const values: number[] = [];
  for (let round = 0; round < rounds; round++) values.push(await work());
  return median(values);
}

/** Peak resident memory in bytes, of backref alone: the others do not keep to a bound. */
async function warmCrowdPeak(
  work: ColdWork,
  settings: Settings,
  say: (line: string) => void,
): Promise<number> {
  say(`backref: ${WARM_CLIENTS} clients, one warm blob of 100 MiB`);
  return withOwn(work, settings, async ({url, pid}) => {
    await pullTime(url, work.big);
    // Linux, proc_pid_clear_refs(5): the peak begins anew.
    await writeFile(`/proc/${pid}/clear_refs`, '5');
    await warmCrowd(work, url);
    return peakMemory(pid);
  });
}

async function peaksOfOneThread(work: ColdWork, say: (line: string) => void) {
  say('backref: both crowds again, with one thread');
  const settings = {workers: 1};
  const {peakMemory} = await withOwn(work, settings, (mirror, gate) => crowdPull(mirror, gate, work.big));
  return {peakMemory, warmPeak: await warmCrowdPeak(work, settings, say)};
}

async function warmCrowd({scope, tools, big}: ColdWork, url: string): Promise<void> {
  const [blob] = layersOf(big);
  const path = blobPath(big, blob?.digest ?? '');
  await runWrk(scope, tools, {url: url + path, connections: WARM_CLIENTS, duration: WARM_S, prefix: []});
}

/** The time of crane's pull through an empty mirror, relative to a pull from `upstream` itself; alternately, the median. */
const imageTime = ({scope, tools}: ColdWork, name: MirrorName, upstream: string): Promise<number> =>
  medianOf(ONE_PULL_ROUNDS, async () => {
    const own = await scope.child();
    const direct = await craneTime(own, tools, upstream);
    const {url} = await startMirror(own, tools, name, upstream);
    const through = await craneTime(own, tools, url);
    await own.end();
    return through / direct;
  });

async function craneTime(scope: Scope, tools: Toolbox, url: string): Promise<number> {
  const own = await scope.child();
  const image = `${url.replace('http://', '')}/library/layers:1`;
  const began = performance.now();
  await own.run(tools.path('crane'), ['pull', '--insecure', image, join(own.folder, 'image.tar')]);
  const time = performance.now() - began;
  await own.end();
  return time;
}

/** Shows where backref's time goes, or its memory. @returns undefined for another load */
export async function profileCold(load: string, scope: Scope, tools: Toolbox): Promise<Profile | undefined> {
  const own = await scope.child();
  const work = await startUpstreams(own, tools);
  const profiler = await createProfiler(own);
  const loads: Record<string, (url: string) => Promise<unknown>> = {
    'one blob': (url) => pullTime(url, work.big),
    image: (url) => craneTime(own, tools, url),
    crowd: (url) => Promise.all(Array.from({length: CLIENTS}, () => pullTime(url, work.big))),
    'warm crowd': (url) => warmCrowd(work, url),
  };
  const run = loads[load];
  if (!run) return undefined;
  const {url, process} = await startOwn(own, work.upstream, {profiler});
  if (load === 'warm crowd') await pullTime(url, work.big);
  const {threads, memory} = await profiler.capture(process, () => run(url));
  await own.end();
  if (load.includes('crowd')) return memoryProfile(`${load}: when there was most`, memory);
  return threads[0] && timeProfile(`cold: ${load}`, threads[0]);
}

async function crowdPull(mirror: RunningMirror, gate: Gate, artifact: ServedArtifact) {
  const [blob] = layersOf(artifact);
  if (!blob) throw new Error('the artifact has no blob');
  gate.take();
  const began = Date.now();
  await download(mirror.url + manifestPath(artifact, artifact.tag));
  const url = mirror.url + blobPath(artifact, blob.digest);
  const pulls = await Promise.allSettled(Array.from({length: CLIENTS}, () => download(url)));
  const gets = gate.take().filter((seen) => seen.method === 'GET' && seen.url.includes('/blobs/'));
  return {
    crowd: Date.now() - began,
    upstreamGets: gets.length,
    wrong: pulls.flatMap((pull) => wrongOf(pull, blob.digest)),
    peakMemory: await peakMemory(mirror.pid),
  };
}

function wrongOf(pull: PromiseSettledResult<Download>, digest: string): string[] {
  if (pull.status === 'rejected') return [String(pull.reason)];
  return pull.value.digest === digest ? [] : [`bytes of the digest ${pull.value.digest}`];
}

/** Alternates direct and mirrored downloads over open connections, as a client has them after the manifest. */
async function firstBytes(mirror: string, upstream: string, artifact: ServedArtifact): Promise<number> {
  const agent = new Agent({keepAlive: true});
  await download(upstream + manifestPath(artifact, artifact.tag), agent);
  await download(mirror + manifestPath(artifact, artifact.tag), agent);
  const delays: number[] = [];
  for (const {digest} of layersOf(artifact)) {
    const path = blobPath(artifact, digest);
    const direct = await expectDigest(upstream + path, digest, agent);
    const through = await expectDigest(mirror + path, digest, agent);
    delays.push(through.firstByte - direct.firstByte);
  }
  agent.destroy();
  return median(delays);
}

/** Pulls images of one blob, alternately direct and through the mirror. */
async function slowPulls(
  mirror: string,
  upstream: string,
  artifacts: readonly ServedArtifact[],
): Promise<number> {
  const ratios: number[] = [];
  for (const artifact of artifacts) {
    const direct = await pullTime(upstream, artifact);
    ratios.push((await pullTime(mirror, artifact)) / direct);
  }
  return median(ratios);
}

/** Milliseconds in which one client pulls a manifest by tag and then its blobs. */
async function pullTime(url: string, artifact: ServedArtifact): Promise<number> {
  const began = performance.now();
  await expectDigest(url + manifestPath(artifact, artifact.tag), artifact.manifest.digest);
  for (const {digest} of layersOf(artifact)) await expectDigest(url + blobPath(artifact, digest), digest);
  return performance.now() - began;
}

async function expectDigest(url: string, digest: string, agent?: Agent) {
  const result = await download(url, agent);
  if (result.digest !== digest) throw new Error(`${url} returned bytes with the digest ${result.digest}`);
  return result;
}
