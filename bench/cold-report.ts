import {table} from '../rig/page.ts';
import {type ColdResult, measureCold, profileCold, THROTTLE} from './cold.ts';
import {MIB, mebibytes, seconds} from './numbers.ts';
import {type PartReport, part, type Versions} from './part.ts';
import {type Target, target} from './targets.ts';

const CROWD = '50 clients, one cold blob of 100 MiB';
const WARM_CROWD = '100 clients, one warm blob of 100 MiB';
const SLOW = `100 MiB over ${THROTTLE / 1e6} MB/s`;

/** Nothing in the cache. */
export const COLD = part({
  name: 'cold',
  tools: ['docker-registry', 'registry', 'crane', 'wrk'],
  measure: measureCold,
  report: coldReport,
  profile: profileCold,
});

function coldReport(results: readonly ColdResult[], versions: Versions): PartReport {
  const own = results.find(({name}) => name === 'backref');
  return {
    text: coldTable(results, versions),
    targets: own ? coldTargets(own, results) : [],
    faults: own ? faultsOf(own) : [],
  };
}

function faultsOf({upstreamGets, wrong}: ColdResult): string[] {
  return [
    ...(upstreamGets === 1 ? [] : [`50 clients of one blob made ${upstreamGets} upstream GETs instead of 1`]),
    ...(wrong.length === 0 ? [] : [`${wrong.length} of 50 clients got wrong bytes or none: ${wrong[0]}`]),
  ];
}

function coldTargets(own: ColdResult, results: readonly ColdResult[]): Target[] {
  const beside = (name: string) => {
    const other = results.find((result) => result.name === name);
    const work = 'one client, one cold blob of 100 MiB, time';
    return target({work, beside: name, load: 'one blob'}, other && own.onePull / other.onePull, {most: 0.6});
  };
  const image = {work: 'cold image of 20 layers with crane, time', load: 'image'};
  const memory = {most: 150};
  return [
    beside('distribution'),
    beside('zot'),
    target({...image, beside: 'a direct pull'}, own.imageRatio, {most: 1.05}),
    target(
      {...image, work: `${image.work}, over ${THROTTLE / 1e6} MB/s`, beside: 'a direct pull'},
      own.slowImageRatio,
      {most: 1.05},
    ),
    target({work: `${CROWD}: upstream GETs`, unit: ''}, own.upstreamGets, {most: 1}),
    target({work: `${CROWD}: peak memory`, unit: 'MiB', load: 'crowd'}, own.peakMemory / MIB, memory),
    target(
      {work: `${WARM_CROWD}: peak memory`, unit: 'MiB', load: 'warm crowd'},
      own.warmPeak && own.warmPeak / MIB,
      memory,
    ),
    target({work: 'first byte of a cold blob', beside: 'a direct pull', unit: 'ms'}, own.firstByteDelay, {
      most: 10,
    }),
    target({work: `${SLOW}, time`, beside: 'a direct pull'}, own.throttledRatio, {most: 1.05}),
  ];
}

function coldTable(results: readonly ColdResult[], versions: Versions): string {
  const row = (name: string, aim: string, value: (result: ColdResult) => string) => [
    name,
    aim,
    ...results.map(value),
  ];
  const times = (ratio: number) => `${ratio.toFixed(3)} ×`;
  const memory = (bytes: number | undefined) => (bytes === undefined ? '' : mebibytes(bytes / MIB));
  const withOneThread = (peak: (own: NonNullable<ColdResult['oneThread']>) => number) =>
    results.some(({oneThread}) => oneThread)
      ? [row('– the same with `workers: 1`', '', ({oneThread}) => memory(oneThread && peak(oneThread)))]
      : [];
  return table(
    [
      row('', 'aim', ({name}) => versions[name] ?? name),
      row(`${CROWD}: upstream GETs`, '1', ({upstreamGets}) => `${upstreamGets}`),
      row('– clients with wrong bytes or none', '0', ({wrong}) => `${wrong.length}`),
      row('– peak resident memory', '≤ 150 MiB', ({peakMemory}) => memory(peakMemory)),
      ...withOneThread(({peakMemory}) => peakMemory),
      row('– until the last one has it', '', ({crowd}) => seconds(crowd)),
      row('one client, one blob of 100 MiB', '', ({onePull}) => seconds(onePull, 2)),
      row('an image of 20 layers with crane, time of a direct pull', '≤ 1.05 ×', ({imageRatio}) =>
        times(imageRatio),
      ),
      row(`– over ${THROTTLE / 1e6} MB/s`, '≤ 1.05 ×', ({slowImageRatio}) => times(slowImageRatio)),
      row(`${WARM_CROWD}: peak resident memory`, '≤ 150 MiB', ({warmPeak}) => memory(warmPeak)),
      ...withOneThread(({warmPeak}) => warmPeak),
      row(
        'first byte of a blob, later than direct',
        '≤ 10 ms',
        ({firstByteDelay}) => `${firstByteDelay.toFixed(1)} ms`,
      ),
      row(`${SLOW}, time of a direct pull`, '≤ 1.05 ×', ({throttledRatio}) => times(throttledRatio)),
    ],
    'right',
  );
}
