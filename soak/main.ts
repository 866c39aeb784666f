import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {setTimeout as delay} from 'node:timers/promises';
import {fileURLToPath} from 'node:url';
import {type RunningBackref, SOURCES, serveRegistries} from '../rig/backref.ts';
import {type Options, runCommand, say} from '../rig/command.ts';
import {table, writeSection} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import {applyLoad, type LoadCounts} from './load.ts';
import {plotSamples} from './plot.ts';
import {type Sample, type Trend, takeSample, trendsOf} from './samples.ts';
import {startSoakUpstream} from './upstream.ts';

const USAGE = `Runs a server with a small cache at full load for a long time. Exits with 1 when its memory or its open files grow, or when
a client gets a wrong answer.

  --minutes N   how long (default: 10)
  --seed N      decides what the clients do (default: 1)
  --json        the results as JSON instead of a table
  --write       write the table and the plot into docs/
`;
const TIME_LIMIT = 60 * 60_000;
const CLIENTS = 16;
const PLOT = fileURLToPath(new URL('../docs/soak.svg', import.meta.url));
const SAMPLE_INTERVAL_MS = 1000;
const REPORT_INTERVAL_S = 30;
/** After the load, in which connections that are no longer used are closed. */
const REST_MS = 5000;
/** The descriptors of a server without clients: files of the store, sockets that listen. */
const MAX_DESCRIPTORS_AT_REST = 80;
const MIB = 2 ** 20;

interface SoakResult extends LoadCounts {
  minutes: number;
  seed: number;
  samples: Sample[];
  trends: Trend[];
  descriptorsAtRest: number;
  evictedRoots: number;
}

async function soak(scope: Scope, {json, write, given}: Options): Promise<number> {
  const minutes = numberOf(given, 'minutes', 10);
  const seed = numberOf(given, 'seed', 1);
  const upstream = await startSoakUpstream(scope);
  const server = await startServer(scope, upstream.url);
  const counts: LoadCounts = {requests: 0, pulls: 0, pushes: 0, aborted: 0, failures: []};
  const ending = new AbortController();
  const load = applyLoad({url: server.url, seed, clients: CLIENTS, signal: ending.signal}, counts);
  const samples = await watch(server, minutes * 60, counts, load);
  ending.abort();
  await load;
  await delay(REST_MS);
  const atRest = await takeSample(server.process.pid, server.url, minutes * 60);
  const result: SoakResult = {
    minutes,
    seed,
    ...counts,
    samples,
    trends: trendsOf(samples),
    descriptorsAtRest: atRest.descriptors,
    evictedRoots: await evictedRoots(server),
  };
  const text = tableOf(result);
  process.stdout.write(json ? `${JSON.stringify(result, undefined, 2)}\n` : `${text}\n`);
  const problems = problemsOf(result);
  for (const problem of problems) say(`soak: ${problem} (--seed ${seed})`);
  if (write && problems.length === 0) {
    await writeFile(PLOT, plotSamples(samples));
    await writeSection(
      'docs/reliability.md',
      'soak',
      `${text}\n\n![Memory and open files over time](soak.svg)`,
    );
  }
  return problems.length > 0 ? 1 : 0;
}

function numberOf(given: Options['given'], name: string, otherwise: number): number {
  const number = Number(given[name] ?? otherwise);
  if (number > 0) return number;
  throw new Error(`--${name} takes a number above 0, not "${given[name]}"`);
}

/** Small enough that eviction runs all the time, and two kinds of registries. */
const startServer = (scope: Scope, upstream: string): Promise<RunningBackref> =>
  serveRegistries(scope, {
    main: SOURCES,
    folder: join(scope.folder, 'data'),
    settings: {
      cache: {maxSize: '120MiB', minFree: '64MiB', memory: '24MiB'},
      garbage: {interval: '1m', grace: '1m'},
    },
    registries: {
      'docker.io': {
        default: true,
        upstream: {url: upstream, insecure: true},
        tags: {ttl: '10s'},
        referrers: {ttl: '10s', prefetch: 'manifests'},
      },
      'apps.local': {push: 'local'},
    },
  });

/** Samples the server once a second. @throws what ended the load */
async function watch(
  {process: server, url}: RunningBackref,
  seconds: number,
  counts: LoadCounts,
  load: Promise<void>,
): Promise<Sample[]> {
  const samples: Sample[] = [];
  const begin = performance.now();
  for (;;) {
    await Promise.race([delay(SAMPLE_INTERVAL_MS), load]);
    const second = (performance.now() - begin) / 1000;
    const sample = await takeSample(server.pid, url, second);
    samples.push(sample);
    if (samples.length % REPORT_INTERVAL_S === 0)
      say(
        `${second.toFixed(0)} of ${seconds} s: ${counts.requests} requests, ${(sample.resident / MIB).toFixed(0)} MiB, ${sample.descriptors} descriptors`,
      );
    if (second >= seconds) return samples;
  }
}

async function evictedRoots({url}: RunningBackref): Promise<number> {
  const metrics = await (await fetch(`${url}/metrics`)).text();
  const counts = [...metrics.matchAll(/^backref_evictions_total(?:\{.*\})? (\S+)$/gm)];
  return counts.reduce((sum, [, count]) => sum + Number(count), 0);
}

function problemsOf({trends, failures, descriptorsAtRest, evictedRoots: evicted}: SoakResult): string[] {
  return [
    ...failures.map((failure) => `a client got a wrong answer: ${failure}`),
    ...trends
      .filter(({last, limit}) => !(last <= limit))
      .map(({what, middle, last}) => `${what} grew from ${middle.toFixed(0)} to ${last.toFixed(0)}`),
    ...(descriptorsAtRest > MAX_DESCRIPTORS_AT_REST
      ? [`${descriptorsAtRest} descriptors are open although no client is connected`]
      : []),
    ...(evicted === 0 ? ['the cache was too large for eviction to run'] : []),
  ];
}

function tableOf(result: SoakResult): string {
  const {minutes, requests, pulls, pushes, aborted, failures, trends, descriptorsAtRest} = result;
  const shown = (what: string, value: number) =>
    what.startsWith('descriptors') ? value.toFixed(0) : `${(value / MIB).toFixed(0)} MiB`;
  const number = (value: number) => value.toLocaleString('en');
  const rows = trends.map(({what, middle, last, limit}) => [
    what,
    shown(what, middle),
    shown(what, last),
    shown(what, limit),
  ]);
  const summary = `${minutes} minutes, ${CLIENTS} clients: ${number(requests)} requests, ${number(pulls)} whole pulls, ${number(pushes)} pushes, ${number(aborted)} aborted downloads, ${number(result.evictedRoots)} images evicted, ${failures.length} wrong answers, ${descriptorsAtRest} descriptors afterwards.`;
  return `${summary}\n\n${table([['', 'second third', 'last third', 'at most'], ...rows], 'right')}`;
}

const options = ['minutes', 'seed'];
await runCommand({name: 'soak', usage: USAGE, timeLimit: TIME_LIMIT, options}, soak);
