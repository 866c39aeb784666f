import {availableParallelism, cpus} from 'node:os';
import {table} from '../rig/page.ts';
import {type ColdResult, THROTTLE} from './cold.ts';
import type {LoginsResult} from './logins.ts';
import {ENTRIES, LISTED, type PageTimes, REINDEXED, type ReferrersResult} from './referrers.ts';
import type {StartResult} from './start.ts';
import {type Target, targetsOf} from './targets.ts';
import {pinned, SERVERS, type WarmResult} from './warm.ts';

/** Names with versions, as the tables show them. */
export type Versions = Readonly<Record<string, string>>;

const MIB = 1024 * 1024;

/** The results of a run; those that were not requested are missing. */
export interface Results {
  start: readonly StartResult[];
  cold: readonly ColdResult[];
  warm: readonly WarmResult[];
  logins: readonly LoginsResult[];
  referrers: ReferrersResult | undefined;
}

/** All results, as Markdown. */
export function tables({start, cold, warm, logins, referrers}: Results, versions: Versions): string {
  const parts = [machine()];
  if (start.length > 0) parts.push('Started, and left alone:', startTable(start));
  if (cold.length > 0) parts.push('Cold, nothing in the cache:', coldTable(cold, versions));
  if (warm.length > 0) parts.push(warmText(), warmTable(warm, versions));
  if (logins.length > 0) parts.push(LOGINS_TEXT, loginsTable(logins));
  if (referrers) parts.push('Referrers:', referrersTable(referrers));
  const targets = targetsOf({cold, warm, logins, referrers});
  if (targets.length > 0) parts.push('Targets, all from this run:', targetsTable(targets));
  return parts.join('\n\n');
}

const targetsTable = (targets: readonly Target[]): string =>
  table([
    ['work', 'beside', 'aim', 'here', ''],
    ...targets.map(({work, beside, aim, figure: found, isMet}) => [
      work,
      beside,
      aim,
      found,
      isMet === undefined ? 'not measured' : isMet ? 'met' : '**missed**',
    ]),
  ]);

function machine(): string {
  const model = cpus()[0]?.model.trim() || 'unknown processor';
  return `One run on ${availableParallelism()} cores (${model}), Node ${process.versions.node}, all on one machine; backref as the image has and starts it.`;
}

const startTable = (results: readonly StartResult[]): string =>
  table(
    [
      ['', 'aim', ...results.map(({name}) => name)],
      ['command to first answer', '≤ 0.35 s', ...results.map(({time}) => `${(time / 1000).toFixed(2)} s`)],
      ['– processor time, user mode', '', ...results.map(({cpu}) => `${(cpu / 1000).toFixed(2)} s`)],
      ['idle: resident memory', '≤ 90 MiB', ...results.map(({resident}) => `${Math.round(resident)} MiB`)],
      [
        '– without files that processes share',
        '',
        ...results.map(({unshared}) => `${Math.round(unshared)} MiB`),
      ],
    ],
    'right',
  );

function coldTable(results: readonly ColdResult[], versions: Versions): string {
  const row = (name: string, aim: string, value: (result: ColdResult) => string) => [
    name,
    aim,
    ...results.map(value),
  ];
  const [crowd, first] = [
    '50 clients, one blob of 100 MiB: upstream GETs',
    'first byte of a blob, later than direct',
  ];
  const alone = 'one client, one blob of 100 MiB';
  const image = 'an image of 20 layers with crane, time of a direct pull';
  const warmCrowd = '100 clients, one warm blob of 100 MiB: peak resident memory';
  const slow = `100 MiB over ${THROTTLE / 1e6} MB/s, time of a direct pull`;
  return table(
    [
      row('', 'aim', ({name}) => versions[name] ?? name),
      row(crowd, '1', ({upstreamGets}) => `${upstreamGets}`),
      row('– clients with wrong bytes or none', '0', ({wrong}) => `${wrong.length}`),
      row('– peak resident memory', '≤ 150 MiB', ({peakMemory}) => `${Math.round(peakMemory / MIB)} MiB`),
      row('– until the last one has it', '', ({crowd}) => `${(crowd / 1000).toFixed(1)} s`),
      row(alone, '', ({onePull}) => `${(onePull / 1000).toFixed(2)} s`),
      row(image, '≤ 1.05 ×', ({imageRatio}) =>
        imageRatio === undefined ? '' : `${imageRatio.toFixed(3)} ×`,
      ),
      row(warmCrowd, '≤ 150 MiB', ({warmPeak}) =>
        warmPeak === undefined ? '' : `${Math.round(warmPeak / MIB)} MiB`,
      ),
      row(first, '≤ 10 ms', ({firstByteDelay}) => `${firstByteDelay.toFixed(1)} ms`),
      row(slow, '≤ 1.05 ×', ({throttledRatio}) => `${throttledRatio.toFixed(3)} ×`),
    ],
    'right',
  );
}

function warmText(): string {
  const cores = pinned()
    ? 'Server on one core, wrk on another, the upstream of the mirrors on either.'
    : 'Servers and wrk share one core.';
  return `Warm, all in the cache. ${cores} In brackets: backref's figure as a multiple of this one.`;
}

/** Warm rates of all servers, side by side, as Markdown. */
export function warmTable(results: readonly WarmResult[], versions: Versions): string {
  const servers = SERVERS.filter((name) => results.some(({figures}) => figures[name] !== undefined));
  const rows = results.map(({work, unit, figures, errors}) => [
    `${work}, ${unit}`,
    ...servers.map((name) => {
      const own = figures[name];
      if (own === undefined) return '';
      const failed = errors[name] ? `, ${errors[name]} failed` : '';
      const ratio = name === 'backref' ? '' : ` (${((figures.backref ?? 0) / own).toFixed(2)} ×)`;
      return `${figure(own, unit)}${ratio}${failed}`;
    }),
  ]);
  return table([['', ...servers.map((name) => versions[name] ?? name)], ...rows], 'right');
}

const LOGINS_TEXT =
  'Logins: the same warm manifest from a server with a user and rules, as a share of the rate of a server that has neither.';

function loginsTable(results: readonly LoginsResult[]): string {
  const rate = (value: number) => figure(value, 'req/s');
  const share = (own: number, without: number) =>
    `${(own / without).toFixed(2)} × (${rate(own)} of ${rate(without)} req/s)`;
  return table(
    [
      ['', 'aim', 'backref'],
      ...results.flatMap(({work, rates: {none, token, basic}}) => [
        [`${work}, with a bearer token`, '≥ 0.85 ×', share(token, none)],
        ['– with Basic', '', share(basic, none)],
      ]),
    ],
    'right',
  );
}

function referrersTable(result: ReferrersResult): string {
  const {reindex, firstPage, filtered, warmList, warmManifest, coldTag} = result;
  const ms = (value: number) => `${value.toFixed(1)} ms`;
  const times = ({grown, same, anew}: PageTimes) =>
    `${ms(same)}; ${ms(grown)} with one added, ${ms(anew)} rendered anew`;
  const count = (value: number) => value.toLocaleString('en-US');
  const share = (warmList / warmManifest).toFixed(2);
  return table(
    [
      ['', 'aim', 'backref'],
      [
        `reindex of ${count(REINDEXED)} manifests, beside the server`,
        '≤ 30 s',
        `${(reindex.time / 1000).toFixed(1)} s`,
      ],
      ['– peak resident memory of the server', 'bounded', `${Math.round(reindex.peakMemory / MIB)} MiB`],
      [`${count(LISTED)} referrers of one subject: first page`, '≤ 25 ms', times(firstPage)],
      ['– filtered to a tenth', '≤ 25 ms', times(filtered)],
      [
        'warm list of 10, of the rate of a warm manifest',
        '≥ 0.50 ×',
        `${share} × (${figure(warmList, 'req/s')} of ${figure(warmManifest, 'req/s')} req/s)`,
      ],
      [
        `cold list of ${ENTRIES} from a fallback tag, beyond two round trips (${ms(coldTag.roundTrips)} in all, without a proxy)`,
        '≤ 20 ms',
        ms(coldTag.time - coldTag.roundTrips),
      ],
    ],
    'right',
  );
}

const figure = (value: number, unit: WarmResult['unit']): string =>
  unit === 'GB/s' ? value.toFixed(2) : Math.round(value).toLocaleString('en-US');

/** Wrong behaviour of backref, as opposed to slow: each is a sentence. */
export function faults({cold, warm, logins, referrers}: Results): string[] {
  const found: string[] = [];
  for (const {name, upstreamGets, wrong} of cold) {
    if (name !== 'backref') continue;
    if (upstreamGets !== 1)
      found.push(`50 clients of one blob made ${upstreamGets} upstream GETs instead of 1`);
    if (wrong.length > 0) found.push(`${wrong.length} of 50 clients got wrong bytes or none: ${wrong[0]}`);
  }
  for (const {work, errors} of warm) {
    if (errors.backref) found.push(`${work}: ${errors.backref} requests failed`);
  }
  for (const {work, errors} of logins) {
    if (errors > 0) found.push(`${work}, with and without a login: ${errors} requests failed`);
  }
  if (referrers && referrers.errors > 0) found.push(`warm lists: ${referrers.errors} requests failed`);
  return found;
}
