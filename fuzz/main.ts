import {mkdir} from 'node:fs/promises';
import {join} from 'node:path';
import {type Options, runCommand, say} from '../rig/command.ts';
import {table, writeSection} from '../rig/page.ts';
import type {Scope} from '../rig/scope.ts';
import {askBehindSpoilingUpstream} from './answers.ts';
import {type Statuses, sendRequests, startMoodyUpstream} from './requests.ts';
import {type FuzzedServer, startFuzzedServer} from './server-process.ts';
import {startSpoilingUpstream} from './spoiling-upstream.ts';

const USAGE = `Sends malformed requests to a server, and has its upstream give it malformed answers. Exits with 1 when the server answers
what it must not, reports an error that nothing handled, or keeps memory.

  --only requests|answers  only one part
  --requests N             mutated requests (default: 200000)
  --answers N              mutated answers of the upstream (default: 50000)
  --seed N                 decides about all of them (default: 1); a failure names the request and the last answers
  --json                   the results as JSON instead of a table
  --write                  write the table of a whole run into docs/reliability.md
`;
const TIME_LIMIT = 60 * 60_000;
const CONNECTIONS = 8;
/** Equal parts of a run; after each, the server reports its memory. */
const PARTS = 4;
/** Bytes that the heap may grow for each request or answer of the second half, when the caches are full. */
const MAX_GROWTH = 640;
const MIB = 2 ** 20;

interface PartResult {
  name: string;
  /** Mutated requests or answers. */
  mutated: number;
  /** The server's answers by status. */
  statuses: Record<string, number>;
  /** Bytes of the heap after each part of the run. */
  heaps: number[];
  /** Errors that nothing handled. */
  faults: string[];
}

async function fuzz(scope: Scope, {only, json, write, given}: Options): Promise<number> {
  if (!['', 'requests', 'answers'].includes(only))
    throw new Error(`--only takes requests or answers, not "${only}"`);
  const seed = numberOf(given, 'seed', 1);
  const results: PartResult[] = [];
  if (only !== 'answers') results.push(await fuzzRequests(scope, seed, numberOf(given, 'requests', 200_000)));
  if (only !== 'requests') results.push(await fuzzAnswers(scope, seed, numberOf(given, 'answers', 50_000)));
  const text = tableOf(results);
  process.stdout.write(json ? `${JSON.stringify({seed, results}, undefined, 2)}\n` : `${text}\n`);
  const wrong = results.flatMap(problemsOf);
  for (const problem of wrong) say(`fuzz: ${problem} (--seed ${seed})`);
  if (write && only === '' && wrong.length === 0) await writeSection('docs/reliability.md', 'fuzz', text);
  return wrong.length > 0 ? 1 : 0;
}

function numberOf(given: Options['given'], name: string, otherwise: number): number {
  const number = Number(given[name] ?? otherwise);
  if (Number.isSafeInteger(number) && number > 0) return number;
  throw new Error(`--${name} takes a whole number above 0, not "${given[name]}"`);
}

async function fuzzRequests(scope: Scope, seed: number, total: number): Promise<PartResult> {
  const upstream = await startMoodyUpstream(seed);
  scope.defer(upstream.close);
  const server = await startServer(scope, upstream.url, 'requests');
  const requests = Math.ceil(total / PARTS / CONNECTIONS);
  let sent = 0;
  return inParts('mutated requests', server, async (part, statuses) => {
    const count = () => {
      sent += 1;
      if (sent % 10_000 === 0) say(`${sent} of ${total} requests`);
    };
    const partSeed = seed * 1_000_003 + part * CONNECTIONS;
    const {port} = server;
    await sendRequests({port, seed: partSeed, connections: CONNECTIONS, requests, statuses, sent: count});
    return sent;
  });
}

async function fuzzAnswers(scope: Scope, seed: number, total: number): Promise<PartResult> {
  const upstream = await startSpoilingUpstream(seed);
  scope.defer(upstream.close);
  const server = await startServer(scope, upstream.url, 'answers');
  return inParts('mutated answers of the upstream', server, async (part, statuses) => {
    const answers = Math.ceil((total * (part + 1)) / PARTS);
    const partSeed = seed * 1_000_003 + part * 1000;
    await askBehindSpoilingUpstream({port: server.port, upstream, seed: partSeed, answers, statuses});
    say(`${upstream.spoiled} of ${total} answers`);
    return upstream.spoiled;
  });
}

/** @param run sends one part. @returns the number of mutations so far */
async function inParts(
  name: string,
  server: FuzzedServer,
  run: (part: number, statuses: Statuses) => Promise<number>,
): Promise<PartResult> {
  const statuses: Statuses = new Map();
  const heaps: number[] = [];
  let mutated = 0;
  let faults: string[] = [];
  for (let part = 0; part < PARTS; part++) {
    mutated = await run(part, statuses);
    const report = await server.report();
    heaps.push(report.heap);
    faults = report.faults;
  }
  const sorted = [...statuses].map(([status, count]) => [String(status), count] as const);
  sorted.sort(([one], [other]) => one.localeCompare(other));
  return {name, mutated, statuses: Object.fromEntries(sorted), heaps, faults};
}

async function startServer(scope: Scope, upstream: string, name: string): Promise<FuzzedServer> {
  const [store, cwd] = [join(scope.folder, name), join(scope.folder, `${name}-cwd`)];
  await mkdir(cwd);
  const server = await startFuzzedServer({upstream, store, cwd});
  scope.defer(server.kill);
  return server;
}

function problemsOf({name, mutated, heaps, faults}: PartResult): string[] {
  const [, middle = 0, , last = 0] = heaps;
  const growth = last - middle;
  return [
    ...faults.slice(0, 5).map((fault) => `${name}: an error that nothing handled: ${fault}`),
    ...(growth > (MAX_GROWTH * mutated) / 2
      ? [`${name}: the heap grew by ${growth} bytes in the second half`]
      : []),
  ];
}

function tableOf(results: readonly PartResult[]): string {
  const rows = results.map(({name, mutated, statuses, heaps, faults}) => [
    name,
    mutated.toLocaleString('en'),
    Object.entries(statuses)
      .map(([status, count]) => `${status}: ${count.toLocaleString('en')}`)
      .join(', '),
    String(faults.length),
    heaps.map((heap) => (heap / MIB).toFixed(0)).join(', '),
  ]);
  const head = [
    '',
    'sent',
    'answers by status',
    'errors that nothing handled',
    'heap after each quarter, MiB',
  ];
  return table([head, ...rows]);
}

const options = ['seed', 'requests', 'answers'];
await runCommand({name: 'fuzz', usage: USAGE, timeLimit: TIME_LIMIT, options}, fuzz);
