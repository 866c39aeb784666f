import {isRecord, type SuiteReport, type TestResult, type TestVerdict} from './results.ts';

/** Tests that are expected not to pass. An unexpected pass is a fault too. */
export interface Known {
  /** Why they do not pass; shown in the tables. */
  reason: string;
  verdict: 'failed' | 'skipped';
  /** Names of tests, with how many of this name do not pass. */
  tests: Readonly<Record<string, number>>;
}

/**
 * Judges a run of a server that must conform: every test must pass, except the known ones, which must
 * not.
 * @returns the faults, one line each; empty when there are none.
 */
export const judge = (report: SuiteReport, known: readonly Known[]): string[] => [
  ...compareWithKnown(report.tests, known, 'failed'),
  ...compareWithKnown(report.tests, known, 'skipped'),
  ...judgeTotals(report),
];

/** Whether the suite ran enough tests. @param atLeast tests, as the suite counts them */
export const judgeExtent = ({totals: {tests}}: SuiteReport, atLeast: number): string[] =>
  tests < atLeast ? [`only ${tests} tests were run, of at least ${atLeast}`] : [];

/** Whether the suite used the given settings; it has further ones. */
export const judgeSettings = (report: SuiteReport, given: Readonly<Record<string, unknown>>): string[] =>
  differences(given, report.settings).map((path) => `the suite ran with another ${path} than it was given`);

/**
 * Compares a proxy that writes through with the registry behind it, both with the same settings of the suite.
 * @returns what the registry supports directly but not through the proxy, one line each.
 */
export function judgeLosses(bare: SuiteReport, through: SuiteReport): string[] {
  const countBoth = (matches: (test: TestResult) => boolean) =>
    ({before: countIf(bare.tests, matches), after: countIf(through.tests, matches)}) as const;

  const names = [...new Set(through.tests.map(({name}) => name))];
  const worse = names.flatMap((name) => {
    const {before, after} = countBoth((test) => test.name === name);
    const isLost = after.passed < before.passed && notPassed(after) > notPassed(before);
    // A test that is skipped because the registry lacks a feature must not fail through the proxy either.
    const isWorse = after.skipped < before.skipped && after.failed > before.failed;
    return isLost || isWorse ? [comparison(name, before, after)] : [];
  });
  // The suite pushes in another way when one fails, so names vary between runs. A group that passes completely may
  // therefore be smaller, any other group may not.
  const groups = [...new Set(bare.tests.map(groupOf))];
  const fewer = groups.flatMap((group) => {
    const {before, after} = countBoth((test) => groupOf(test) === group);
    const isWhole = after.passed > 0 && notPassed(after) === 0;
    return after.passed < before.passed && !isWhole ? [comparison(group, before, after)] : [];
  });
  return [...worse, ...fewer];
}

function compareWithKnown(
  tests: readonly TestResult[],
  known: readonly Known[],
  verdict: Known['verdict'],
): string[] {
  const expected = new Map<string, number>();
  for (const entry of known) {
    if (entry.verdict !== verdict) continue;
    for (const [name, times] of Object.entries(entry.tests))
      expected.set(name, (expected.get(name) ?? 0) + times);
  }
  const found = tests.filter((each) => each.verdict === verdict);
  const names = new Set([...found.map(({name}) => name), ...expected.keys()]);
  return [...names].flatMap((name) => {
    const own = found.filter((each) => each.name === name);
    const times = expected.get(name) ?? 0;
    if (own.length > times) return [`${name} ${verdict}${ofSeveral(own.length, times)}: ${firstLine(own)}`];
    if (own.length < times)
      return [`${name} ${verdict} ${own.length} times, but is listed ${times} times: correct the list`];
    return [];
  });
}

/** The list of tests must contain everything that the suite counted. */
function judgeTotals({totals, tests}: SuiteReport): string[] {
  return (['failed', 'skipped'] as const).flatMap((verdict) => {
    const isShown = tests.some((each) => each.verdict === verdict);
    return totals[verdict] > 0 && !isShown
      ? [`the suite counts ${totals[verdict]} ${verdict} and lists none of them`]
      : [];
  });
}

/** The paths of settings whose value differs. */
function differences(given: unknown, own: unknown, path = ''): string[] {
  if (!isRecord(given)) return JSON.stringify(given) === JSON.stringify(own) ? [] : [path];
  const inner = isRecord(own) ? own : {};
  return Object.entries(given).flatMap(([key, value]) =>
    differences(value, inner[key], path ? `${path}.${key}` : key),
  );
}

type Count = Record<TestVerdict, number>;

function countIf(tests: readonly TestResult[], matches: (test: TestResult) => boolean): Count {
  const count: Count = {passed: 0, failed: 0, skipped: 0, off: 0};
  for (const test of tests) if (matches(test)) count[test.verdict] += 1;
  return count;
}

const comparison = (what: string, before: Count, after: Count): string =>
  `${what}: ${countsOf(after)} here, ${countsOf(before)} without backref`;

const notPassed = ({failed, skipped}: Count): number => failed + skipped;

const countsOf = ({passed, failed, skipped}: Count): string =>
  `${passed} passed, ${failed} failed, ${skipped} skipped`;

const groupOf = ({name}: TestResult): string => name.slice(0, Math.max(0, name.lastIndexOf('/')));

const ofSeveral = (found: number, times: number): string =>
  found === 1 && times === 0 ? '' : ` ${found} times, ${times} of them known`;

const firstLine = ([test]: readonly TestResult[]): string =>
  test?.reason.split('\n')[0]?.slice(0, 300) || 'the suite does not say why';
