import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {performance} from 'node:perf_hooks';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {loadConfig} from '../../src/config/load.ts';
import {createServer} from '../../src/server.ts';
import {median} from '../download.ts';
import {startOwn} from '../mirrors.ts';
import {createProfiler} from '../profile/capture.ts';
import type {Profile} from '../profile/profile.ts';
import {type CpuProfile, timeProfile} from '../profile/summary.ts';
import {onCore} from '../warm.ts';
import {runWrk} from '../wrk.ts';
import {commitRates, profileCommits} from './commits.ts';
import {EVICTED, fillDatabase, pathOf, REGISTRY} from './fill.ts';

const SIZES = [1000, 100_000, 1_000_000];
const MAX_SIZE = Math.max(...SIZES);
/** Sizes take turns in each round, so that all of them find the machine in the same state. */
const ROUNDS = 5;
/** As many at each size, so that what grows is the store alone. They are spread over all of it. */
const HOT = 1000;
/** Many more than fit into the memory of a server that has 1 MiB for content. */
const SPREAD = 50_000;
const PULL_S = 3;
const EVICTED_IMAGES = 1000;
/** Nothing is asked of an upstream: every manifest is here. */
const UPSTREAM = 'http://127.0.0.1:9';
const SETTINGS = {cache: {memory: '1MiB'}, scrub: {every: 0}, garbage: {interval: 0}};

/** What a store of one size does. Rates per second. */
export interface ManifestsResult {
  size: number;
  /** Requests for a thousand manifests, which the server may keep in memory. */
  hotRate: number;
  /** Requests for manifests all over the store. */
  spreadRate: number;
  /** Failed requests. */
  errors: number;
  /** Manifests stored, each by a commit, some at the same time. */
  commitRate: number;
  /** Bytes that the process writes to files for a commit, and how often it writes. */
  commitBytes: number;
  commitWrites: number;
  /** Images evicted. */
  evictionRate: number;
}

/** A store, in a scope of its own. */
interface SizedStore {
  size: number;
  scope: Scope;
}

/** Measures stores of 10^3, 10^5 and 10^6 manifests. `say` reports progress. */
export async function measureManifests(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<ManifestsResult[]> {
  const stores: SizedStore[] = [];
  for (const size of SIZES) {
    say(`making a store of ${size.toLocaleString('en-US')} manifests`);
    stores.push(await makeStore(await scope.child(), size, say));
  }
  say('requests');
  const pulls = await pullRates(tools, stores);
  say('commits');
  const commits = await commitRates(stores.map(({scope: own}) => ({scope: own, database: databaseOf(own)})));
  const results: ManifestsResult[] = [];
  for (const [index, {size, scope: own}] of stores.entries()) {
    say(`evictions from ${size.toLocaleString('en-US')} manifests`);
    const evictionRate = await measureEvictions(folderOf(own));
    const [pull, commit] = [pulls[index], commits[index]];
    if (pull && commit) results.push({size, ...pull, ...commit, evictionRate});
  }
  return results;
}

/** Shows where the time goes with the most manifests. @returns undefined for another load */
export async function profileManifests(
  load: string,
  scope: Scope,
  tools: Toolbox,
): Promise<Profile | undefined> {
  const count = {[HOT_LOAD]: HOT, [SPREAD_LOAD]: SPREAD}[load];
  if (count === undefined && load !== COMMITS_LOAD) return undefined;
  const own = await scope.child();
  await makeStore(own, MAX_SIZE, () => {});
  const profile = await (count === undefined
    ? profileCommits(own, databaseOf(own))
    : profilePulls(own, tools, count));
  await own.end();
  return timeProfile(`${MAX_SIZE.toLocaleString('en-US')} stored: ${load}`, ...profile);
}

async function profilePulls(own: Scope, tools: Toolbox, count: number): Promise<CpuProfile[]> {
  const profiler = await createProfiler(own);
  const options = {prefix: onCore(1), settings: SETTINGS, profiler};
  const {url, process} = await startOwn(own, UPSTREAM, options);
  const run = () => requestAll(own, tools, url, sample(MAX_SIZE, count));
  await run();
  const {threads} = await profiler.capture(process, run);
  return threads.slice(0, 1);
}

export const HOT_LOAD = 'manifests by digest, the same 1,000';
export const SPREAD_LOAD = 'manifests by digest, all over the store';
export const COMMITS_LOAD = 'commits';

/** The folder that a server in this scope uses; see `startOwn`. */
const folderOf = ({folder}: Scope): string => join(folder, 'cache');
const databaseOf = (scope: Scope): string => join(folderOf(scope), 'meta.db');

async function makeStore(scope: Scope, size: number, say: (line: string) => void): Promise<SizedStore> {
  await fillDatabase(databaseOf(scope), size, {evicted: EVICTED_IMAGES, say});
  return {size, scope};
}

/** Picks `count` manifests of a store, at equal distances. */
const sample = (size: number, count: number): string[] =>
  Array.from({length: Math.min(size, count)}, (_, index) =>
    pathOf(Math.floor((index * size) / Math.min(size, count))),
  );

async function pullRates(tools: Toolbox, stores: readonly SizedStore[]) {
  const measured = [];
  for (const {size, scope} of stores) {
    const {url, process} = await startOwn(scope, UPSTREAM, {prefix: onCore(1), settings: SETTINGS});
    const [hot, spread] = [sample(size, HOT), sample(size, SPREAD)];
    measured.push({scope, url, process, hot, spread, rates: {hot: [], spread: []} as Rates, errors: 0});
  }
  for (let round = 0; round <= ROUNDS; round++) {
    for (const name of ['hot', 'spread'] as const) {
      for (const store of measured) {
        const {requestsPerSecond, errors} = await requestAll(store.scope, tools, store.url, store[name]);
        if (round > 0) store.rates[name].push(requestsPerSecond);
        store.errors += errors;
      }
    }
  }
  for (const {process} of measured) await process.stop();
  return measured.map(({rates, errors}) => ({
    hotRate: median(rates.hot),
    spreadRate: median(rates.spread),
    errors,
  }));
}

/** Of each round. */
type Rates = Record<'hot' | 'spread', number[]>;

const requestAll = (scope: Scope, tools: Toolbox, url: string, paths: readonly string[]) =>
  runWrk(scope, tools, {
    ...{url, paths: shuffled(paths), connections: 32, duration: PULL_S, prefix: onCore(0)},
  });

/** The same order for the same list: neighbours in the store are not asked for one after the other. */
function shuffled(paths: readonly string[]): string[] {
  const step = 7919; // A prime, larger than any common factor.
  return paths.map((_, index) => paths[(index * step) % paths.length] ?? '');
}

/** Removes a repository's images. What finding them takes is left out: it is done when the first one is removed. */
async function measureEvictions(folder: string): Promise<number> {
  const file = join(folder, 'evictions.yaml');
  await writeFile(file, JSON.stringify({storage: {path: folder}})); // JSON is YAML.
  const server = createServer(await loadConfig({file, env: {}}));
  try {
    let began = performance.now();
    const {removed} = await (await server.commands()).remove({
      images: [`${REGISTRY}/${EVICTED}`],
      dryRun: false,
      signal: new AbortController().signal,
      progress(state) {
        if (state.removed <= 1) began = performance.now();
      },
    });
    if (removed !== EVICTED_IMAGES) throw new Error(`${removed} images were removed, not ${EVICTED_IMAGES}`);
    return (1000 * (EVICTED_IMAGES - 1)) / (performance.now() - began);
  } finally {
    await server.close();
  }
}
