import type {ColdResult} from './cold.ts';
import type {LoginsResult} from './logins.ts';
import type {ReferrersResult} from './referrers.ts';
import type {ServerName, WarmResult} from './warm.ts';

/** What a figure of this run should be. */
export interface Target {
  work: string;
  /** What backref is compared with; empty for a bound of its own. */
  beside: string;
  aim: string;
  /** The measured figure as text; empty if it was not measured. */
  figure: string;
  /** undefined when it was not measured. */
  isMet: boolean | undefined;
}

const MIB = 1024 * 1024;
const SMALL = [
  'manifest by digest',
  'manifest by fresh tag',
  'HEAD of a manifest by digest',
  'manifest not modified (304)',
  'blob of 1 KiB',
];
/** How many times each server's rate backref's should be at least. */
type Least = Partial<Record<ServerName, number>>;

const RATES: readonly [work: string, least: Least][] = [
  ...SMALL.map((work): [string, Least] => [work, {distribution: 12, zot: 5, nginx: 0.7}]),
  ['list of 10 referrers', {zot: 5, nginx: 0.5}],
  ['blob of 1 MiB', {distribution: 4, zot: 2, nginx: 1}],
  ['blob of 1 MiB from disk', {nginx: 0.65}],
  ['blob of 100 MiB, 4 clients', {distribution: 1.8, zot: 1.6, nginx: 1.5}],
];

/**
 * Every target that the parts of a run can show, met or missed; those that no part measures yet are listed as well when
 * the run was whole.
 */
export function targetsOf({
  cold,
  warm,
  logins,
  referrers,
}: {
  cold: readonly ColdResult[];
  warm: readonly WarmResult[];
  logins: readonly LoginsResult[];
  referrers: ReferrersResult | undefined;
}): Target[] {
  const isWhole = cold.length > 0 && warm.length > 0 && logins.length > 0 && referrers !== undefined;
  return [
    ...(warm.length > 0 ? RATES.flatMap(([work, least]) => rateTargets(warm, work, least)) : []),
    ...coldTargets(cold),
    ...logins.map(({work, rates: {none, token}}) =>
      target({work: `a token checked on every request: ${work}`, beside: 'without'}, token / none, {
        least: 0.85,
      }),
    ),
    ...(isWhole
      ? UNMEASURED.map(([work, beside, aim]) => ({work, beside, aim, figure: '', isMet: undefined}))
      : []),
  ];
}

const UNMEASURED = [['two workers on two cores, load from both', 'one worker', '≥ 1.7 ×']] as const;

function rateTargets(warm: readonly WarmResult[], work: string, least: Least): Target[] {
  const figures = warm.find((result) => result.work === work)?.figures ?? {};
  return Object.entries(least).map(([server, factor]) => {
    const other = figures[server as ServerName];
    // A server that answered nothing shows nothing.
    const ratio = other ? (figures.backref ?? 0) / other : undefined;
    return target({work, beside: server}, ratio, {least: factor});
  });
}

function coldTargets(results: readonly ColdResult[]): Target[] {
  const own = results.find(({name}) => name === 'backref');
  if (!own) return [];
  const beside = (name: string) => {
    const other = results.find((result) => result.name === name);
    const work = 'one client, one cold blob of 100 MiB, time';
    return target({work, beside: name}, other && own.onePull / other.onePull, {most: 0.6});
  };
  const crowd = '50 clients, one cold blob of 100 MiB';
  return [
    beside('distribution'),
    beside('zot'),
    target({work: 'cold image of 20 layers with crane, time', beside: 'a direct pull'}, own.imageRatio, {
      most: 1.05,
    }),
    target({work: `${crowd}: upstream GETs`, unit: ''}, own.upstreamGets, {most: 1}),
    target({work: `${crowd}: peak memory`, unit: 'MiB'}, own.peakMemory / MIB, {most: 150}),
    target(
      {work: '100 clients, one warm blob of 100 MiB: peak memory', unit: 'MiB'},
      own.warmPeak && own.warmPeak / MIB,
      {most: 150},
    ),
  ];
}

function target(
  {work, beside = '', unit = '×'}: {work: string; beside?: string; unit?: string},
  value: number | undefined,
  {least, most}: {least?: number; most?: number},
): Target {
  const bound = least ?? most ?? 0;
  const withUnit = (number: string) => (unit === '' ? number : `${number} ${unit}`);
  const digits = unit === '×' ? 2 : 0;
  return {
    work,
    beside,
    aim: `${least === undefined ? '≤' : '≥'} ${withUnit(`${bound}`)}`,
    figure: value === undefined ? '' : withUnit(value.toFixed(digits)),
    isMet: value === undefined ? undefined : least === undefined ? value <= bound : value >= bound,
  };
}
