import {isRecord, type Report, type TestResult, type Verdict} from './results.ts';

/** Tests that do not pass, and must not pass unnoticed either. */
export interface Known {
  /** Why they do not, for people. */
  reason: string;
  verdict: 'failed' | 'skipped';
  /** Names of tests, with how many of this name do not pass. */
  tests: Readonly<Record<string, number>>;
}

/**
 * Judges a run of a server that has to be right: every test passes, except those that are known not to, which must
 * not either.
 * @returns what is wrong, each in one line; empty when nothing is.
 */
export const judge = (report: Report, known: readonly Known[]): string[] => [
  ...compareWithKnown(report.tests, known, 'failed'),
  ...compareWithKnown(report.tests, known, 'skipped'),
  ...judgeTotals(report),
];

/** Whether the suite tried all that it should have. @param atLeast tests, as the suite counts them */
export const judgeExtent = ({totals: {tests}}: Report, atLeast: number): string[] =>
  tests < atLeast ? [`only ${tests} tests were run, of at least ${atLeast}`] : [];

/** Whether the suite took the settings that it was given; it has further ones. */
export const judgeSettings = (report: Report, given: Readonly<Record<string, unknown>>): string[] =>
  differences(given, report.settings).map((path) => `the suite ran with another ${path} than it was given`);

/**
 * Compares a proxy that writes through with the registry behind it, both with the same settings of the suite.
 * @returns what the registry alone does and the proxy before it does not, each in one line.
 */
export function judgeLosses(bare: Report, through: Report): string[] {
  const countBoth = (matches: (test: TestResult) => boolean) =>
    ({before: countIf(bare.tests, matches), after: countIf(through.tests, matches)}) as const;

  const names = [...new Set(through.tests.map(({name}) => name))];
  const worse = names.flatMap((name) => {
    const {before, after} = countBoth((test) => test.name === name);
    const isLost = after.passed < before.passed && notPassed(after) > notPassed(before);
    // What the registry skipped, as it lacks it, must not turn into a failure either.
    const isWorse = after.skipped < before.skipped && after.failed > before.failed;
    return isLost || isWorse ? [comparison(name, before, after)] : [];
  });
  // What cannot be pushed in one way is pushed in another: names come and go, and a group that passes whole may be
  // smaller for it, but not one that does not.
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
      return [`${name} ${verdict} ${own.length} times, and is known to do so ${times} times: mend the list`];
    return [];
  });
}

/** The list of tests must show everything that the suite counted. */
function judgeTotals({totals, tests}: Report): string[] {
  return (['failed', 'skipped'] as const).flatMap((verdict) => {
    const isShown = tests.some((each) => each.verdict === verdict);
    return totals[verdict] > 0 && !isShown
      ? [`the suite counts ${totals[verdict]} ${verdict} and lists none of them`]
      : [];
  });
}

/** The paths of settings that another value has taken the place of. */
function differences(given: unknown, own: unknown, path = ''): string[] {
  if (!isRecord(given)) return JSON.stringify(given) === JSON.stringify(own) ? [] : [path];
  const inner = isRecord(own) ? own : {};
  return Object.entries(given).flatMap(([key, value]) =>
    differences(value, inner[key], path ? `${path}.${key}` : key),
  );
}

type Count = Record<Verdict, number>;

function countIf(tests: readonly TestResult[], matches: (test: TestResult) => boolean): Count {
  const count: Count = {passed: 0, failed: 0, skipped: 0, off: 0};
  for (const test of tests) if (matches(test)) count[test.verdict] += 1;
  return count;
}

const comparison = (what: string, before: Count, after: Count): string =>
  `${what}: ${told(after)} here, ${told(before)} without backref`;

const notPassed = ({failed, skipped}: Count): number => failed + skipped;

const told = ({passed, failed, skipped}: Count): string =>
  `${passed} passed, ${failed} failed, ${skipped} skipped`;

const groupOf = ({name}: TestResult): string => name.slice(0, Math.max(0, name.lastIndexOf('/')));

const ofSeveral = (found: number, times: number): string =>
  found === 1 && times === 0 ? '' : ` ${found} times, ${times} of them known`;

const firstLine = ([test]: readonly TestResult[]): string =>
  test?.reason.split('\n')[0]?.slice(0, 300) || 'the suite does not say why';
