import {table} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {buildArtifact, manifestPath} from './artifact.ts';
import {startContents} from './contents.ts';
import {download, median} from './download.ts';
import {type OwnMirror, startOwn} from './mirrors.ts';
import {rate} from './numbers.ts';
import {type PartReport, part} from './part.ts';
import {createProfiler, type Profiler} from './profile/capture.ts';
import type {Profile} from './profile/profile.ts';
import {isBusy, timeProfile} from './profile/summary.ts';
import {target} from './targets.ts';
import {onCore} from './warm.ts';
import {runWrk, type Throughput} from './wrk.ts';

const ROUNDS = 5;
const DURATION_S = 3;
/** From each thread of wrk. */
const CONNECTIONS = 32;
/** Of the rate of one worker. */
const MIN_RATIO = 1.7;

/** Servers and their loads: one core has both, or two cores have all threads of both. */
const CASES = [
  {name: 'one worker, one thread of wrk, on one core', workers: 1, threads: 1, prefix: onCore(1)},
  {name: 'one worker, two threads of wrk, on two cores', workers: 1, threads: 2, prefix: []},
  {name: 'two workers, two threads of wrk, on two cores', workers: 2, threads: 2, prefix: []},
] as const;
type Case = (typeof CASES)[number];
const [ONE_CORE, ONE_WORKER, TWO_WORKERS] = CASES;

interface WorkersResult {
  name: string;
  /** A second, the median over the rounds. */
  requestsPerSecond: number;
  /** Over all rounds. */
  errors: number;
}

async function measureWorkers(
  scope: Scope,
  tools: Toolbox,
  say: (line: string) => void,
): Promise<WorkersResult[]> {
  const servers = [];
  for (const one of CASES) servers.push({one, ...(await startWith(await scope.child(), one))});
  const samples = new Map<string, Throughput[]>(CASES.map(({name}) => [name, []]));
  for (let round = 0; round <= ROUNDS; round++) {
    if (round > 0) say(`round ${round} of ${ROUNDS}`);
    for (const {one, url} of servers) {
      const found = await loadWith(scope, tools, one, url);
      // In the first one, the servers' code is compiled.
      if (round > 0) samples.get(one.name)?.push(found);
    }
  }
  return [...samples].map(([name, found]) => ({
    name,
    requestsPerSecond: median(found.map(({requestsPerSecond}) => requestsPerSecond)),
    errors: found.reduce((sum, {errors}) => sum + errors, 0),
  }));
}

/** @returns the URL of a warm manifest */
async function startWith(
  scope: Scope,
  {workers, prefix}: Case,
  profiler?: Profiler,
): Promise<Pick<OwnMirror, 'url' | 'process'>> {
  const artifact = buildArtifact('library/warm', '1', [1024]);
  const path = manifestPath(artifact, artifact.manifest.digest);
  const upstream = await startContents(scope, new Map([[path, artifact.manifest]]), 0);
  const options = {prefix, settings: {workers}, ...(profiler ? {profiler} : {})};
  const {url, process} = await startOwn(scope, upstream, options);
  for (let time = 0; time < 2; time++) await download(url + path);
  return {url: url + path, process};
}

const loadWith = (scope: Scope, tools: Toolbox, {threads, prefix}: Case, url: string): Promise<Throughput> =>
  runWrk(scope, tools, {
    ...{url, threads, prefix},
    connections: threads * CONNECTIONS,
    duration: DURATION_S,
  });

async function profileWorkers(load: string, scope: Scope, tools: Toolbox): Promise<Profile | undefined> {
  const one = CASES.find(({name}) => name === load);
  if (!one) return undefined;
  const own = await scope.child();
  const profiler = await createProfiler(own);
  const {url, process} = await startWith(own, one, profiler);
  const run = () => loadWith(own, tools, one, url);
  await run();
  const {threads} = await profiler.capture(process, run);
  await own.end();
  return timeProfile(`${load}: all threads that answer`, ...threads.filter(isBusy));
}

function workersReport(results: readonly WorkersResult[]): PartReport {
  const of = (name: string) => results.find((result) => result.name === name)?.requestsPerSecond ?? 0;
  const two = of(TWO_WORKERS.name);
  const work = {work: 'two workers on two cores, load from both', load: TWO_WORKERS.name};
  return {
    text: table(
      [
        ['', 'requests a second', 'of one worker on two cores'],
        ...results.map(({name, requestsPerSecond}) => [
          name,
          rate(requestsPerSecond),
          `${(requestsPerSecond / of(ONE_WORKER.name)).toFixed(2)} ×`,
        ]),
      ],
      'right',
    ),
    targets: [
      target({...work, beside: 'one worker, load from both'}, two / of(ONE_WORKER.name), {least: MIN_RATIO}),
      target({...work, beside: 'one worker and its load on one core'}, two / of(ONE_CORE.name), {
        least: MIN_RATIO,
      }),
    ],
    faults: results.flatMap(({name, errors}) => (errors > 0 ? [`${name}: ${errors} requests failed`] : [])),
  };
}

/** Threads that answer requests, and the load, share the cores. */
export const WORKERS = part({
  name: 'workers',
  tools: ['wrk'],
  measure: measureWorkers,
  report: workersReport,
  profile: profileWorkers,
});
