import {table} from '../../rig/page.ts';
import {count, ms, rate} from '../numbers.ts';
import type {PartReport} from '../part.ts';
import {target} from '../targets.ts';
import type {Latency} from '../wrk.ts';
import {type ConnectionsResult, MAX_SPREAD} from './connections.ts';
import {COMMITS_LOAD, HOT_LOAD, type ManifestsResult, SPREAD_LOAD} from './manifests.ts';
import type {MixedResult} from './mixed.ts';
import type {GrowingListResult} from './referrers.ts';

/** Of the rate with the fewest manifests, with the most. */
const MIN_SHARE = 0.8;

const faultsOf = (results: readonly {errors: number}[]): string[] => {
  const failed = results.reduce((sum, {errors}) => sum + errors, 0);
  return failed > 0 ? [`${failed} requests failed`] : [];
};

export function manifestsReport(results: readonly ManifestsResult[]): PartReport {
  const figures = [
    [HOT_LOAD, ({hotRate}: ManifestsResult) => hotRate],
    [SPREAD_LOAD, ({spreadRate}: ManifestsResult) => spreadRate],
    [COMMITS_LOAD, ({commitRate}: ManifestsResult) => commitRate],
    ['evictions of an image', ({evictionRate}: ManifestsResult) => evictionRate],
  ] as const;
  const [first, last] = [results[0], results.at(-1)];
  const share = (of: (result: ManifestsResult) => number) =>
    first && last ? of(last) / of(first) : Number.NaN;
  const rows = figures.map(([name, of]) => [
    `${name}, a second`,
    `≥ ${MIN_SHARE} ×`,
    ...results.map((result) => rate(of(result))),
    `${share(of).toFixed(2)} ×`,
  ]);
  return {
    text: table(
      [
        ['stored manifests', 'aim', ...results.map(({size}) => count(size)), 'most to fewest'],
        ...rows,
        [
          'written to files for a commit',
          '',
          ...results.map(
            ({commitBytes, commitWrites}) =>
              `${(commitBytes / 1024).toFixed(1)} KiB, ${commitWrites.toFixed(1)} times`,
          ),
          '',
        ],
      ],
      'right',
    ),
    chart: {
      title: 'Rates against what is stored',
      axis: 'stored manifests',
      steps: results.map(({size}) => count(size)),
      panels: [
        {
          name: 'manifests a second',
          series: [
            {name: 'the same 1,000', values: results.map(({hotRate}) => hotRate)},
            {name: 'all over the store', values: results.map(({spreadRate}) => spreadRate)},
          ],
        },
        {
          name: 'changes a second',
          series: [
            {name: 'commits', values: results.map(({commitRate}) => commitRate)},
            {name: 'evictions', values: results.map(({evictionRate}) => evictionRate)},
          ],
        },
      ],
    },
    targets: figures.map(([work, of]) =>
      target(
        {
          work: `${count(last?.size ?? 0)} stored: ${work}`,
          beside: `${count(first?.size ?? 0)} stored`,
          load: work,
        },
        share(of),
        {least: MIN_SHARE},
      ),
    ),
    faults: faultsOf(results),
  };
}

export function connectionsReport(results: readonly ConnectionsResult[]): PartReport {
  const spread = ({p99, p50}: Latency) => p99 / p50;
  return {
    text: table(
      [
        [
          'connections',
          'requests a second',
          'p50',
          'p90',
          'p99',
          'p99.9',
          'longest',
          `p99 of p50, aim ≤ ${MAX_SPREAD} ×`,
          'of nginx',
          'refused or unanswered, aim 0',
        ],
        ...results.map((result) => {
          const {connections, requestsPerSecond, latency, errors, nginx} = result;
          const {p50, p90, p99, p999, longest} = latency;
          return [
            count(connections),
            rate(requestsPerSecond),
            ...[p50, p90, p99, p999, longest].map(ms),
            `${spread(latency).toFixed(1)} ×`,
            `${spread(nginx).toFixed(1)} ×`,
            count(errors),
          ];
        }),
      ],
      'right',
    ),
    chart: {
      title: 'One warm manifest against connections',
      axis: 'connections',
      steps: results.map(({connections}) => count(connections)),
      panels: [
        {
          name: 'times p50',
          series: (['p90', 'p99', 'p999'] as const).map((name) => ({
            name: name === 'p999' ? 'p99.9' : name,
            values: results.map(({latency}) => latency[name] / latency.p50),
          })),
        },
        {
          name: 'requests a second',
          series: [{name: 'rate', values: results.map((one) => one.requestsPerSecond)}],
        },
      ],
    },
    targets: results.map((result) =>
      target(
        {work: `${count(result.connections)} connections: p99`, beside: 'p50', load: `${result.connections}`},
        spread(result.latency),
        {most: MAX_SPREAD},
      ),
    ),
    faults: faultsOf(results),
  };
}

export const listsReport = (results: readonly GrowingListResult[]): PartReport => ({
  text: table(
    [
      [
        'referrers of one subject',
        'first page',
        'filtered to a tenth',
        'with one added',
        'first pages a second, 4 clients',
      ],
      ...results.map(({referrers, firstPage, filtered, grown, rate: pages}) => [
        count(referrers),
        ...[firstPage, filtered, grown].map(ms),
        rate(pages),
      ]),
    ],
    'right',
  ),
  chart: {
    title: 'A list of referrers against its length',
    axis: 'referrers of one subject',
    steps: results.map(({referrers}) => count(referrers)),
    panels: [
      {
        name: 'milliseconds for a page',
        series: [
          {name: 'first page', values: results.map(({firstPage}) => firstPage)},
          {name: 'filtered', values: results.map(({filtered}) => filtered)},
          {name: 'one added', values: results.map(({grown}) => grown)},
        ],
      },
      {name: 'first pages a second', series: [{name: '4 clients', values: results.map((one) => one.rate)}]},
    ],
  },
  targets: [],
  faults: faultsOf(results),
});

export const mixedReport = (results: readonly MixedResult[]): PartReport => ({
  text: table(
    [
      [
        'clients that push',
        'pulls a second',
        'pull, p50',
        'pull, p99',
        'images pushed a second',
        'push, p50',
        'push, p99',
      ],
      ...results.map(({pushers, pullsPerSecond, pull, pushesPerSecond, push}) => [
        count(pushers),
        rate(pullsPerSecond),
        ms(pull.p50),
        ms(pull.p99),
        rate(pushesPerSecond),
        push ? ms(push.p50) : '',
        push ? ms(push.p99) : '',
      ]),
    ],
    'right',
  ),
  chart: {
    title: 'Pulls of 32 clients beside pushes',
    axis: 'clients that push',
    steps: results.map(({pushers}) => count(pushers)),
    panels: [
      {
        name: 'pulls a second',
        series: [{name: 'manifest by digest', values: results.map((one) => one.pullsPerSecond)}],
      },
      {
        name: 'milliseconds, p99',
        series: [
          {name: 'pull of a manifest', values: results.map(({pull}) => pull.p99)},
          {name: 'push of an image', values: results.map(({push}) => push?.p99)},
        ],
      },
    ],
  },
  targets: [],
  faults: faultsOf(results),
});
