import {table} from '../rig/page.ts';
import type {Known} from './judge.ts';
import {KNOWN_IN_BOTH, KNOWN_IN_DEV} from './known.ts';
import type {SuiteReport} from './results.ts';

/** The outcome of one run. */
export interface RunOutcome {
  /** Its name, for `--only`. */
  run: string;
  /** The server's name in the table. */
  server: string;
  /** The specification's version, as the suite names it. */
  version: string;
  /** undefined when the suite wrote none. */
  report: SuiteReport | undefined;
  /** One line each. */
  faults: readonly string[];
  ms: number;
  /** Where the suite's own reports are. */
  folder: string;
}

/** The number of runs with faults. */
export const countFaulty = (outcomes: readonly RunOutcome[]): number =>
  outcomes.filter(({faults}) => faults.length > 0).length;

/** An outcome without the tests that passed, of which there are hundreds. */
export const forMachines = ({report, ...about}: RunOutcome) => ({
  ...about,
  totals: report?.totals,
  notPassed: report?.tests.filter(({verdict}) => verdict !== 'passed'),
});

const SHOWN_FAULTS = 40;

/** A run's result, for the progress output. */
export function outcomeText({run, report, faults, ms}: RunOutcome): string {
  const took = `(${(ms / 1000).toFixed(1)} s)`;
  const {tests, passed, failed, skipped} = report?.totals ?? {};
  const counts = report
    ? `${tests} tests, ${passed} passed, ${failed} failed, ${skipped} skipped`
    : 'no report';
  const shown = faults.slice(0, SHOWN_FAULTS).map((fault) => `  ✗ ${fault}`);
  const more = faults.length > SHOWN_FAULTS ? [`  and ${faults.length - SHOWN_FAULTS} more`] : [];
  return [`${faults.length === 0 ? '✓' : '✗'} ${run}: ${counts} ${took}`, ...shown, ...more].join('\n');
}

/** The results, and the known failures with their reasons, as Markdown. */
export function tables(outcomes: readonly RunOutcome[]): string {
  const rows = outcomes.map(({server, version, report}) => {
    const {tests = '–', failed = 'no report', skipped = '–', off = '–'} = report?.totals ?? {};
    return [`${server}, ${version}`, String(tests), String(failed), String(skipped), String(off)];
  });
  const results = table([['', 'tests', 'failed', 'skipped', 'disabled'], ...rows], 'right');
  const known = [...KNOWN_IN_BOTH, ...KNOWN_IN_DEV];
  return known.length === 0 ? results : `${results}\n\n${reasons(known)}`;
}

function reasons(known: readonly Known[]): string {
  const texts = [...new Set(known.map(({reason}) => reason))];
  const rows = texts.map((reason) => {
    const own = known.filter((entry) => entry.reason === reason);
    const sum = own.flatMap(({tests}) => Object.values(tests)).reduce((total, times) => total + times, 0);
    return [reason, String(sum)];
  });
  return table([['Tests that do not pass with `push: through`, dev', 'tests'], ...rows], 'right');
}
