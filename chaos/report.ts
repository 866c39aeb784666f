import {cpus} from 'node:os';
import {table} from '../rig/page.ts';
import {PROMISES, type Tally} from './tally.ts';

export interface Run {
  seed: string;
  /** Milliseconds. */
  took: number;
  /** What could not be injected here, with the reasons. */
  lacking: readonly string[];
  tally: Tally;
}

/** The share of cold pulls that should be served. */
const COLD_TARGET = 0.9;

const number = (value: number): string => value.toLocaleString('en');

function share(served: number, of: number): string {
  return of === 0 ? 'none' : `${number(served)} of ${number(of)} (${(served / of).toFixed(3)})`;
}

/** A promise is a check: it failed when it was broken at least once. */
export function countChecks({tally}: Run): {passed: number; failed: number} {
  const failed = new Set(tally.violations.map(({promise}) => promise)).size;
  return {passed: PROMISES.length - failed, failed};
}

/** The results as Markdown tables. */
export function tables(run: Run): string {
  const {seed, took, lacking, tally} = run;
  const minutes = (took / 60_000).toFixed(1);
  const machine = `${cpus().length} cores (${cpus()[0]?.model.trim()}), Node ${process.versions.node}`;
  return [
    `One run of ${minutes} minutes with seed ${seed} on ${machine}: ${number(tally.steps.length)} steps.`,
    table([['promise', 'broken'], ...promiseRows(tally)], 'right'),
    table([['availability', 'served'], ...availabilityRows(tally)], 'right'),
    table([['work', 'times'], ...workRows(tally)], 'right'),
    table([['injected fault', 'times'], ...faultRows(tally)], 'right'),
    ...(lacking.length > 0
      ? [`Not injected on this machine:\n${lacking.map((each) => `- ${each}`).join('\n')}`]
      : []),
  ].join('\n\n');
}

const promiseRows = ({violations}: Tally): string[][] =>
  PROMISES.map((promise) => [
    promise,
    number(violations.filter((violation) => violation.promise === promise).length),
  ]);

const availabilityRows = ({of}: Tally): string[][] => [
  [
    'images in the cache, while an upstream fails',
    share(of('warm pulls served while an upstream fails'), of('warm pulls while an upstream fails')),
  ],
  [
    `images never pulled before, behind an upstream that spoils 30 % of its answers (aim: ≥ ${COLD_TARGET})`,
    share(of('cold pulls served'), of('cold pulls')),
  ],
];

const WORK = [
  'pulls served',
  'blobs served',
  'lists served',
  'pulls by crane',
  'pulls by oras',
  'pulls by skopeo',
  'pushes accepted',
  'pushes by crane',
  'pushes by oras',
  'pushes by skopeo',
  'pushes checked',
  'pushes refused or interrupted',
  'pushes deleted',
  'deletions checked',
  'failed answers',
  'broken off',
  'downloads',
  'resumptions',
  'downloads killed halfway',
  'downloads resumed',
  'evictions',
  'damaged files found',
  'starts',
] as const;

const workRows = ({of}: Tally): string[][] => WORK.map((name) => [name, number(of(name))]);

function faultRows({faults, of}: Tally): string[][] {
  const spoiled = [...faults].toSorted(([, a], [, b]) => b - a).map(([name, count]) => [name, number(count)]);
  return [...spoiled, ['answers spoiled by upstreams', number(of('answers spoiled'))]];
}

/** The results for machines. */
export const forMachines = (run: Run): object => ({
  seed: run.seed,
  minutes: run.took / 60_000,
  ...countChecks(run),
  faults: Object.fromEntries(run.tally.faults),
  counts: Object.fromEntries(run.tally.counts),
  promises: Object.fromEntries(
    promiseRows(run.tally).map(([name, count]) => [name, Number(count?.replaceAll(',', ''))]),
  ),
  lacking: run.lacking,
  violations: run.tally.violations,
  steps: run.tally.steps,
});

/** How to see the violations again. */
export function trail({seed, tally}: Run): string {
  const found = new Set(tally.violations.map(({step}) => step));
  const last = tally.steps.findLastIndex((step) => found.has(step));
  const until = tally.steps
    .slice(0, last + 1)
    .map((step) => `  ${step}${found.has(step) ? '   ← here' : ''}`);
  return `seed ${seed}; the steps that led to the violations:\n${until.join('\n')}`;
}
