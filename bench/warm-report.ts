import {table} from '../rig/page.ts';
import {rate} from './numbers.ts';
import {type PartReport, part, type Versions} from './part.ts';
import {type Target, target} from './targets.ts';
import {measureWarm, profileWarm, SERVERS, type ServerName, type WarmResult} from './warm.ts';

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

/** All in the cache. */
export const WARM = part({
  name: 'warm',
  tools: ['docker-registry', 'registry', 'nginx', 'wrk'],
  measure: measureWarm,
  report: warmReport,
  profile: profileWarm,
});

function warmReport(results: readonly WarmResult[], versions: Versions): PartReport {
  return {
    text: warmTable(results, versions),
    targets: RATES.flatMap(([work, least]) => rateTargets(results, work, least)),
    faults: results.flatMap(({work, errors}) =>
      errors.backref ? [`${work}: ${errors.backref} requests failed`] : [],
    ),
  };
}

function rateTargets(results: readonly WarmResult[], work: string, least: Least): Target[] {
  const figures = results.find((result) => result.work === work)?.figures ?? {};
  return Object.entries(least).map(([server, factor]) => {
    const other = figures[server as ServerName];
    // A server that answered nothing shows nothing.
    const ratio = other ? (figures.backref ?? 0) / other : undefined;
    return target({work, beside: server, load: work}, ratio, {least: factor});
  });
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
      return `${unit === 'GB/s' ? own.toFixed(2) : rate(own)}${ratio}${failed}`;
    }),
  ]);
  return table([['', ...servers.map((name) => versions[name] ?? name)], ...rows], 'right');
}
