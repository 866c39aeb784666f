import {rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {performance} from 'node:perf_hooks';
import {BUILT, startBackref} from '../../rig/backref.ts';
import type {Scope} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {loadConfig} from '../../src/config/load.ts';
import {createServer} from '../../src/server.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {median} from '../download.ts';
import {onCore} from '../warm.ts';
import {runWrk} from '../wrk.ts';
import {EVICTED, fillDatabase, pathOf, putManifest, REGISTRY, smallManifest} from './fill.ts';

const SIZES = [1000, 100_000, 1_000_000];
const ROUNDS = 3;
/** As many at each size, so that what grows is the store alone. They are spread over all of it. */
const HOT = 1000;
/** Many more than fit into the memory of a server that has 1 MiB for content. */
const SPREAD = 50_000;
const COMMITS = 2000;
const CONCURRENCY = 32;
const EVICTED_IMAGES = 200;

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
  /** Images evicted. */
  evictionRate: number;
}

/** Measures stores of 10^3, 10^5 and 10^6 manifests, one after the other. `say` reports progress. */
export async function measureManifests(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<ManifestsResult[]> {
  const results: ManifestsResult[] = [];
  for (const size of SIZES) {
    const own = await scope.child();
    say(`making a store of ${size.toLocaleString('en-US')} manifests`);
    const path = join(own.folder, 'meta.db');
    await fillDatabase(path, size, {evicted: EVICTED_IMAGES, say});
    say('requests');
    const rates = await pullRates(own, tools, size);
    say('commits');
    const commitRate = await measureCommits(path);
    say('evictions');
    const evictionRate = await measureEvictions(own.folder);
    results.push({size, ...rates, commitRate, evictionRate});
    await own.end();
    await rm(path, {force: true});
  }
  return results;
}

/** Picks `count` manifests of a store, at equal distances. */
const sample = (size: number, count: number): string[] =>
  Array.from({length: Math.min(size, count)}, (_, index) =>
    pathOf(Math.floor((index * size) / Math.min(size, count))),
  );

async function pullRates(scope: Scope, tools: Toolbox, size: number) {
  const own = await scope.child();
  // Nothing is asked of an upstream: every manifest is here.
  const options = {main: BUILT, upstream: 'http://127.0.0.1:9', folder: scope.folder, ttl: '1h'};
  const settings = {cache: {memory: '1MiB'}, scrub: {every: 0}, garbage: {interval: 0}};
  const {url, process: server} = await startBackref(own, {...options, settings, prefix: onCore(1)});
  const rates = {hot: [] as number[], spread: [] as number[]};
  let errors = 0;
  for (let round = 0; round <= ROUNDS; round++) {
    for (const [name, count] of [
      ['hot', HOT],
      ['spread', SPREAD],
    ] as const) {
      const paths = shuffled(sample(size, count));
      const load = {url, paths, connections: 32, duration: 4, prefix: onCore(0)};
      const measured = await runWrk(own, tools, load);
      if (round > 0) rates[name].push(measured.requestsPerSecond);
      errors += measured.errors;
    }
  }
  await server.stop();
  await own.end();
  return {hotRate: median(rates.hot), spreadRate: median(rates.spread), errors};
}

/** The same order for the same list: neighbours in the store are not asked for one after the other. */
function shuffled(paths: readonly string[]): string[] {
  const step = 7919; // A prime, larger than any common factor.
  return paths.map((_, index) => paths[(index * step) % paths.length] ?? '');
}

async function measureCommits(path: string): Promise<number> {
  const metadata = await openSqliteMetadata({path});
  try {
    const began = performance.now();
    for (let start = 0; start < COMMITS; start += CONCURRENCY) {
      const commits = Array.from({length: CONCURRENCY}, (_, index) =>
        metadata.commit([putManifest('library/new', smallManifest(`new ${start + index}`))]),
      );
      await Promise.all(commits);
    }
    return (1000 * Math.ceil(COMMITS / CONCURRENCY) * CONCURRENCY) / (performance.now() - began);
  } finally {
    await metadata.close();
  }
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
