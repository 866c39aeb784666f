import {MIB} from '../numbers.ts';
import type {MemorySample} from './capture.ts';
import type {Profile, ProfileRow} from './profile.ts';

/** What V8 writes, as far as it is read here. */
export interface CpuProfile {
  nodes: readonly {id: number; callFrame: {functionName: string; url: string}}[];
  /** The node in which each sample was taken. */
  samples?: readonly number[];
  /** Microseconds between one sample and the next. */
  timeDeltas?: readonly number[];
}

type Frame = CpuProfile['nodes'][number]['callFrame'];

/** How many functions or files are named of a row. */
const MAX_NAMED = 6;
/** Rows that are smaller are left out, and names below the first two of a row. */
const MIN_SHARE = 0.005;
const MIN_NAMED = 2;
const MAX_IDLE = 0.95;

const IDLE = 'waiting for work';
const SOCKET_WRITES = new Set([
  'writev',
  'writeBuffer',
  'writeUtf8String',
  'writeLatin1String',
  'writeAsciiString',
  'shutdown',
]);
/** What a frame of node's own modules belongs to, by the beginning of its name. */
const NODE_MODULES: readonly [prefix: string, what: string][] = [
  ['node:_http', "node's HTTP server"],
  ['node:http', "node's HTTP server"],
  ['node:internal/http', "node's HTTP server"],
  ['node:net', "node's sockets and streams"],
  ['node:stream', "node's sockets and streams"],
  ['node:internal/stream', "node's sockets and streams"],
  ['node:internal/streams', "node's sockets and streams"],
  ['node:internal/crypto', "node's cryptography"],
  ['node:crypto', "node's cryptography"],
  ['node:sqlite', 'SQLite'],
];

/** What the time in a function counts as, and the name that is shown of it; undefined for what the profiler itself takes. */
function classify({functionName, url}: Frame): {what: string; name: string} | undefined {
  if (url === 'node:inspector' || url.endsWith('/profile/preload.ts')) return undefined;
  if (url === '' && functionName === 'memoryUsage') return undefined;
  if (functionName === '(idle)') return {what: IDLE, name: ''};
  if (functionName === '(garbage collector)') return {what: 'garbage collection', name: ''};
  if (functionName === '(program)' || functionName === '(root)')
    return {what: 'the kernel, libuv, the HTTP parser and V8, outside of functions', name: ''};
  if (functionName.startsWith('RegExp: ')) return {what: 'native functions of node and V8', name: 'RegExp'};
  if (url === '') {
    const what = SOCKET_WRITES.has(functionName) ? 'writing to sockets' : 'native functions of node and V8';
    return {what, name: `${functionName || 'anonymous'}()`};
  }
  if (url.endsWith('/dist/backref.cjs'))
    return {what: 'the bundle', name: `${functionName || 'anonymous'}()`};
  const own = /\/src\/(.*)$/.exec(url)?.[1];
  const packaged = /\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1];
  if (packaged !== undefined) return {what: 'packages', name: packaged};
  if (own !== undefined) return {what: 'backref', name: own};
  const [, what = 'node, the rest'] = NODE_MODULES.find(([prefix]) => url.startsWith(prefix)) ?? [];
  return {what, name: url};
}

/** Where the time of threads goes: the largest share first. @param title what the table is called */
export function timeProfile(title: string, ...threads: readonly CpuProfile[]): Profile {
  const groups = new Map<string, Map<string, number>>();
  for (const thread of threads) addTimes(groups, thread);
  const whole = sumOf([...groups.values()].map((group) => sumOf(group.values())));
  const rows = [...groups].map(([what, group]) => rowOf(what, group, whole));
  return {
    title,
    unit: 'share',
    rows: rows.filter(({value}) => value >= MIN_SHARE).toSorted((a, b) => b.value - a.value),
  };
}

/** Whether a thread did anything worth showing: the one that commits has nothing to do under most loads. */
export function isBusy(thread: CpuProfile): boolean {
  const idle = timeProfile('', thread).rows.find(({what}) => what === IDLE);
  return (idle?.value ?? 0) < MAX_IDLE;
}

/** @param groups times by what they count as, and by name */
function addTimes(
  groups: Map<string, Map<string, number>>,
  {nodes, samples = [], timeDeltas = []}: CpuProfile,
): void {
  const kinds = new Map(nodes.map(({id, callFrame}) => [id, classify(callFrame)]));
  for (const [index, id] of samples.entries()) {
    const kind = kinds.get(id);
    if (!kind) continue;
    const {what, name} = kind;
    const group = groups.get(what) ?? new Map<string, number>();
    group.set(name, (group.get(name) ?? 0) + Math.max(0, timeDeltas[index] ?? 0));
    groups.set(what, group);
  }
}

const sumOf = (values: Iterable<number>): number => [...values].reduce((sum, value) => sum + value, 0);

function rowOf(what: string, group: ReadonlyMap<string, number>, whole: number): ProfileRow {
  const sum = sumOf(group.values());
  const named = [...group]
    .filter(([name]) => name !== '')
    .toSorted(([, a], [, b]) => b - a)
    .slice(0, MAX_NAMED)
    .filter(([, time], index) => index < MIN_NAMED || time >= MIN_SHARE * whole)
    .map(([name, time]) => `${name} ${((100 * time) / whole).toFixed(1)} %`);
  return {what, value: sum / Math.max(1, whole), detail: named.join(', ')};
}

/** What the memory of a process consists of. */
export function memoryProfile(title: string, sample: MemorySample): Profile {
  const {rss, heapTotal, heapUsed, external, arrayBuffers} = sample;
  const rest = rss - heapTotal - external;
  const rows = [
    {what: 'heap of the main thread', bytes: heapTotal, detail: `${Math.round(heapUsed / MIB)} MiB in use`},
    {what: 'buffers', bytes: arrayBuffers, detail: ''},
    {what: 'other memory that objects hold', bytes: external - arrayBuffers, detail: ''},
    {
      what: 'the rest',
      bytes: rest,
      detail: 'the node executable, other threads, SQLite, what is freed but kept',
    },
  ];
  return {
    title,
    unit: 'MiB',
    rows: rows
      .map(({what, bytes, detail}) => ({what, value: bytes / MIB, detail}))
      .toSorted((a, b) => b.value - a.value),
  };
}
