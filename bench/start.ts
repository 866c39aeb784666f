import {spawn} from 'node:child_process';
import {once} from 'node:events';
import {mkdir, readFile, writeFile} from 'node:fs/promises';
import {connect} from 'node:net';
import {join} from 'node:path';
import {performance} from 'node:perf_hooks';
import {setTimeout as delay} from 'node:timers/promises';
import {BUILT, NODE_FLAGS} from '../rig/backref.ts';
import {table} from '../rig/page.ts';
import {ownPort} from '../rig/port.ts';
import {ready, type Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {median} from './download.ts';
import {MIB, mebibytes, seconds} from './numbers.ts';
import {type PartReport, part} from './part.ts';
import {createProfiler} from './profile/capture.ts';
import type {Profile} from './profile/profile.ts';
import {memoryProfile, timeProfile} from './profile/summary.ts';
import {target} from './targets.ts';

const ROUNDS = 7;
/** From then on an idle server does nothing that its first seconds have not shown. */
const IDLE_MS = 3000;
/** When the command has stored its compiled code; see `cli/published.ts`. */
const STORED_MS = 8000;
const POLL_MS = 2;
const TIME_LIMIT_MS = 60_000;
/** Seconds, and MiB. */
const MAX_TIME = 0.35;
const MAX_MEMORY = 90;

/** Medians over the rounds. */
interface StartResult {
  name: string;
  /** Milliseconds from the command to its first answer. */
  time: number;
  /** Milliseconds of processor time until then, in user mode. */
  cpu: number;
  /** MiB a few seconds later: all pages, and those that are not of a file that other processes share. */
  resident: number;
  unshared: number;
}

/** A server of node alone: what no server that runs on it can fall below. */
const BARE = `
  const port = Number(process.argv[1]);
  require('node:http').createServer((_, response) => response.end('{}')).listen(port, '127.0.0.1');
`;

/** Measures the start of the published command, and of node alone, alternately. `say` reports progress. */
async function measureStart(
  scope: Scope,
  _tools: Toolbox,
  say: (line: string) => void,
): Promise<StartResult[]> {
  const {port, serve, env} = await prepare(scope);
  const without = {...env, NODE_DISABLE_COMPILE_CACHE: '1'};
  const cases = [
    {name: 'backref', args: serve, env},
    {name: 'the first time, without compiled code', args: serve, env: without},
    {name: 'an empty server of node', args: ['-e', BARE, `${port}`], env},
  ];
  say('start: the first time');
  await startOnce(scope, {args: serve, env, port, restMs: STORED_MS});
  const samples = cases.map(() => [] as Omit<StartResult, 'name'>[]);
  for (let round = 1; round <= ROUNDS; round++) {
    say(`start: round ${round} of ${ROUNDS}`);
    for (const [index, one] of cases.entries())
      samples[index]?.push(await startOnce(scope, {...one, port, restMs: IDLE_MS}));
  }
  return cases.map(({name}, index) => {
    const of = (figure: 'time' | 'cpu' | 'resident' | 'unshared') =>
      median(samples[index]?.map((sample) => sample[figure]) ?? []);
    return {name, time: of('time'), cpu: of('cpu'), resident: of('resident'), unshared: of('unshared')};
  });
}

function startReport(results: readonly StartResult[]): PartReport {
  const own = results[0];
  const row = (name: string, aim: string, value: (result: StartResult) => string) => [
    name,
    aim,
    ...results.map(value),
  ];
  const text = table(
    [
      row('', 'aim', ({name}) => name),
      row('command to first answer', `≤ ${MAX_TIME} s`, ({time}) => seconds(time, 2)),
      row('– processor time, user mode', '', ({cpu}) => seconds(cpu, 2)),
      row('idle: resident memory', `≤ ${MAX_MEMORY} MiB`, ({resident}) => mebibytes(resident)),
      row('– without files that processes share', '', ({unshared}) => mebibytes(unshared)),
    ],
    'right',
  );
  const targets = [
    target({work: 'command to first answer', unit: 's', load: 'start'}, own && own.time / 1000, {
      most: MAX_TIME,
    }),
    target({work: 'idle: resident memory', unit: 'MiB', load: 'idle'}, own?.resident, {most: MAX_MEMORY}),
  ];
  return {text, targets, faults: []};
}

/** Started, and left alone. */
export const START = part({
  name: 'start',
  tools: [],
  measure: measureStart,
  report: startReport,
  profile: profileStart,
});

/** The published command, and what it begins with. */
async function prepare(scope: Scope) {
  const port = await ownPort();
  const file = join(scope.folder, 'start.yaml');
  const folder = join(scope.folder, 'cache');
  await mkdir(folder);
  const config = {listen: {host: '127.0.0.1', port}, storage: {path: folder}, log: {level: 'warn'}};
  await writeFile(file, JSON.stringify(config)); // JSON is YAML.
  const serve = [...NODE_FLAGS, BUILT, 'serve', '--config', file];
  return {port, serve, env: {...process.env, XDG_CACHE_HOME: join(scope.folder, 'caches')}};
}

/** Shows where the time of a start goes, or the memory of a server that has started. It keeps no compiled code. */
async function profileStart(load: string, scope: Scope): Promise<Profile | undefined> {
  const own = await scope.child();
  const {port, serve, env} = await prepare(own);
  await startOnce(own, {args: serve, env, port, restMs: STORED_MS});
  const profiler = await createProfiler(own);
  const started = own.start(process.execPath, [...profiler.flags, ...serve], {
    env: {...env, ...profiler.env, BENCH_PROFILE_START: '1'},
  });
  await ready(started, 'backref', () => answers(port));
  const {threads, memory} = await profiler.end(started);
  await own.end();
  if (load === 'idle') return memoryProfile('after the start', memory);
  return threads[0] && timeProfile('from the start of node to the first answer', threads[0]);
}

interface Start {
  args: readonly string[];
  env: NodeJS.ProcessEnv;
  port: number;
  /** How long it is left alone before its memory is read. */
  restMs: number;
}

async function startOnce(scope: Scope, {args, env, port, restMs}: Start): Promise<Omit<StartResult, 'name'>> {
  const began = performance.now();
  const child = spawn(process.execPath, args, {env, stdio: 'ignore'});
  const ended = once(child, 'exit');
  scope.defer(() => void child.kill('SIGKILL'));
  while (!(await answers(port))) {
    if (child.exitCode !== null || performance.now() - began > TIME_LIMIT_MS)
      throw new Error(`node ${args.join(' ')} does not answer`);
    await delay(POLL_MS);
  }
  const time = performance.now() - began;
  const cpu = await userTime(child.pid ?? 0);
  await delay(restMs);
  const memory = await memoryOf(child.pid ?? 0);
  child.kill('SIGTERM');
  await ended;
  return {time, cpu, ...memory};
}

/** Whether a server answers a request on a connection of its own: a client that keeps a pool would wait for it. */
async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1');
  try {
    await once(socket, 'connect');
    socket.end('GET /v2/ HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n');
    const [first] = await once(socket, 'data');
    return String(first).startsWith('HTTP/1.1 200 ');
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

/** Milliseconds of processor time in user mode. Linux, proc_pid_stat(5): field 14, in hundredths of a second. */
async function userTime(pid: number): Promise<number> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8');
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[11]) * 10;
}

async function memoryOf(pid: number): Promise<Pick<StartResult, 'resident' | 'unshared'>> {
  const status = await readFile(`/proc/${pid}/status`, 'utf8');
  const bytes = (name: string) => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, 'm').exec(status)?.[1]) * 1024;
  return {resident: bytes('VmRSS') / MIB, unshared: bytes('RssAnon') / MIB};
}
