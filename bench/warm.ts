import {availableParallelism} from 'node:os';
import {sha256} from '../rig/image.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {startRegistry} from '../rig/upstreams.ts';
import {
  blobPath,
  buildArtifact,
  layersOf,
  manifestPath,
  pushArtifact,
  pushReferrers,
  referrersPath,
  type ServedArtifact,
} from './artifact.ts';
import {ACCEPT, download, median} from './download.ts';
import {MIRRORS, measuredMirrors, type RunningMirror, startMirror, startOwn} from './mirrors.ts';
import {startNginx} from './nginx.ts';
import {createProfiler} from './profile/capture.ts';
import type {Profile} from './profile/profile.ts';
import {timeProfile} from './profile/summary.ts';
import {runHead, runWrk, type Throughput} from './wrk.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const ROUNDS = 5;
const REFERRERS = 10;
const FROM_DISK = 'blob of 1 MiB from disk';
/** More than the server's buffers hold of them. */
const DISK_BLOBS = 48;
/** Keeps no large blob in memory. */
const LEAN = {cache: {memory: '1MiB'}};
/** The servers that have the Referrers API, and nginx with a file. */
const LISTING: ReadonlySet<string> = new Set(['backref', 'zot', 'nginx']);

/** The servers that are compared, in the order of the table. */
export const SERVERS = [...MIRRORS, 'nginx'] as const;
export type ServerName = (typeof SERVERS)[number];

interface Workload {
  name: string;
  unit: 'req/s' | 'GB/s';
  path: string;
  /** The paths of further blobs, which are asked for in turn. */
  others?: readonly {path: string; digest: string}[];
  digest: string;
  method?: 'HEAD';
  /** Asks whether the content is still what the server's own ETag names. zot sends none. */
  isConditional?: boolean;
  /** Of those servers alone that list referrers. */
  isList?: boolean;
  /** From a backref that keeps no large blob in memory, beside nginx. */
  isFromDisk?: boolean;
  connections: number;
  /** Seconds. */
  duration: number;
}

export interface WarmResult {
  work: string;
  unit: 'req/s' | 'GB/s';
  /** Medians over the rounds. */
  figures: Partial<Record<ServerName, number>>;
  /** Failed requests, over all rounds. */
  errors: Partial<Record<ServerName, number>>;
}

/** Whether load and server have a core each. */
const pinned = (): boolean => availableParallelism() >= 2;
/** The prefix that runs a command on one core, if there are several. */
export const onCore = (core: number): string[] => (pinned() ? ['taskset', '--cpu-list', `${core}`] : []);

/** Measures cached content, one server after another. `say` reports progress. */
export async function measureWarm(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<WarmResult[]> {
  const {artifact, upstream} = await startUpstream(scope, tools);
  const servers: RunningMirror[] = [];
  for (const name of measuredMirrors()) {
    servers.push(await startMirror(await scope.child(), tools, name, upstream, onCore(1)));
  }
  const list = {path: referrersPath(artifact), bytes: await listOf(servers[0]?.url ?? '', artifact)};
  servers.push(await startNginx(await scope.child(), tools, artifact, onCore(1), list));
  const lean = await startOwn(await scope.child(), upstream, {prefix: onCore(1), settings: LEAN});

  const works = worksOf(artifact, list.bytes);
  const serversOf = ({isFromDisk, isList, isConditional}: Workload) => {
    if (isFromDisk) return [lean, ...servers.filter(({name}) => name === 'nginx')];
    if (isConditional) return servers.filter(({name}) => name !== 'zot');
    return isList ? servers.filter(({name}) => LISTING.has(name)) : servers;
  };
  for (const work of works) for (const server of serversOf(work)) await warm(server, work);
  const results: WarmResult[] = [];
  for (const work of works) {
    say(work.name);
    results.push(await measureWork(scope, tools, work, serversOf(work)));
  }
  return results;
}

/** Loads the servers in turn, so that all of them find the machine in the same state. */
async function measureWork(
  scope: Scope,
  tools: Toolbox,
  work: Workload,
  servers: readonly RunningMirror[],
): Promise<WarmResult> {
  const samples = new Map<string, {rates: number[]; errors: number}>();
  for (let round = 1; round <= ROUNDS; round++) {
    for (const {name, url} of servers) {
      const {requestsPerSecond, bytesPerSecond, errors} = await loadWith(scope, tools, url, work);
      const sample = samples.get(name) ?? {rates: [], errors: 0};
      sample.rates.push(work.unit === 'req/s' ? requestsPerSecond : bytesPerSecond / 1e9);
      sample.errors += errors;
      samples.set(name, sample);
    }
  }
  return {
    work: work.name,
    unit: work.unit,
    figures: Object.fromEntries([...samples].map(([name, {rates}]) => [name, median(rates)])),
    errors: Object.fromEntries([...samples].map(([name, {errors}]) => [name, errors])),
  };
}

async function loadWith(scope: Scope, tools: Toolbox, url: string, work: Workload): Promise<Throughput> {
  const {path, others = [], connections, duration, method, isConditional} = work;
  const etag = isConditional ? await etagOf(url + path) : '';
  const paths = [path, ...others.map((other) => other.path)];
  const load = {
    ...{url: url + path, etag, connections, duration, prefix: onCore(0)},
    ...(others.length > 0 ? {paths} : {}),
  };
  return method ? runHead(scope, load) : runWrk(scope, tools, load);
}

/** Shows where the time of backref goes under one of the loads. @returns undefined for another load */
export async function profileWarm(load: string, scope: Scope, tools: Toolbox): Promise<Profile | undefined> {
  const own = await scope.child();
  const {artifact, upstream} = await startUpstream(own, tools);
  const profiler = await createProfiler(own);
  const settings = load === FROM_DISK ? LEAN : {};
  const server = await startOwn(own, upstream, {prefix: onCore(1), settings, profiler});
  const works = worksOf(artifact, await listOf(server.url, artifact));
  const work = works.find(({name}) => name === load);
  if (!work) return undefined;
  await warm(server, work);
  await loadWith(own, tools, server.url, work);
  const {threads} = await profiler.capture(server.process, () => loadWith(own, tools, server.url, work));
  await own.end();
  return threads[0] && timeProfile(load, threads[0]);
}

/** The registry behind the mirrors, with one artifact and its referrers. */
async function startUpstream(scope: Scope, tools: Toolbox) {
  const artifact = buildArtifact('library/warm', '1', [KIB, MIB, 100 * MIB, ...Array(DISK_BLOBS).fill(MIB)]);
  const {url} = await startRegistry(scope, tools, 'distribution');
  await pushArtifact(url, artifact);
  await pushReferrers(url, artifact, REFERRERS);
  return {artifact, upstream: url};
}

/** The list as backref gives it, from its upstream's fallback tag. @throws Error when one of them is missing */
async function listOf(url: string, artifact: ServedArtifact): Promise<Buffer> {
  const response = await fetch(url + referrersPath(artifact));
  const bytes = Buffer.from(await response.arrayBuffer());
  const {manifests = []} = JSON.parse(bytes.toString());
  if (manifests.length !== REFERRERS)
    throw new Error(`backref lists ${manifests.length} of ${REFERRERS} referrers`);
  return bytes;
}

/** @throws Error when the server sends none, or does not answer a request that repeats it with 304 */
async function etagOf(url: string): Promise<string> {
  const headers = {accept: ACCEPT};
  const first = await fetch(url, {headers});
  await first.arrayBuffer();
  const etag = first.headers.get('etag') ?? '';
  const second = await fetch(url, {headers: {...headers, 'if-none-match': etag}});
  await second.arrayBuffer();
  if (etag === '' || second.status !== 304)
    throw new Error(`${url} answered ${second.status} to the ETag ${etag}, not 304`);
  return etag;
}

function worksOf(artifact: ServedArtifact, list: Buffer): Workload[] {
  const [small, middle, large, ...others] = layersOf(artifact).map(({digest}) => ({
    digest,
    path: blobPath(artifact, digest),
  }));
  if (!small || !middle || !large) throw new Error('a blob of the artifact is missing');
  const {digest} = artifact.manifest;
  const many = {connections: 32, duration: 2};
  return [
    {name: 'manifest by digest', unit: 'req/s', path: manifestPath(artifact, digest), digest, ...many},
    {
      name: 'manifest by fresh tag',
      unit: 'req/s',
      path: manifestPath(artifact, artifact.tag),
      digest,
      ...many,
    },
    {
      name: 'HEAD of a manifest by digest',
      unit: 'req/s',
      path: manifestPath(artifact, digest),
      digest,
      method: 'HEAD',
      ...many,
    },
    {
      name: 'manifest not modified (304)',
      unit: 'req/s',
      path: manifestPath(artifact, digest),
      digest,
      isConditional: true,
      ...many,
    },
    {
      name: `list of ${REFERRERS} referrers`,
      unit: 'req/s',
      path: referrersPath(artifact),
      digest: sha256(list),
      isList: true,
      ...many,
    },
    {name: 'blob of 1 KiB', unit: 'req/s', ...small, ...many},
    {name: 'blob of 1 MiB', unit: 'GB/s', ...middle, ...many},
    {name: FROM_DISK, unit: 'GB/s', ...middle, others, isFromDisk: true, ...many},
    {name: 'blob of 100 MiB, 4 clients', unit: 'GB/s', ...large, connections: 4, duration: 4},
  ];
}

/** Pulls twice, because a mirror may store in the background. @throws Error when a server sends other bytes. */
async function warm({name, url}: RunningMirror, work: Workload): Promise<void> {
  for (const {path, digest} of [work, ...(work.others ?? [])]) {
    for (let time = 0; time < 2; time++) {
      const found = await download(url + path);
      // The order of a list is a server's own.
      if (found.digest !== digest && name !== 'zot')
        throw new Error(`${name} returned other bytes for ${work.name}: ${found.digest}`);
    }
  }
}
