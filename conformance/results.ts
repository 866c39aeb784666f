import {parse} from 'yaml';

/** `off`: disabled in the suite's settings. */
export type TestVerdict = 'passed' | 'failed' | 'skipped' | 'off';

/** One test of the suite. Several have the same name: `image/head/blob-head` is run once for each blob. */
export interface TestResult {
  name: string;
  verdict: TestVerdict;
  /** What the suite found wrong; empty for a test that passed. */
  reason: string;
}

/** As the suite counts: one test may count several times. */
export interface Totals extends Record<TestVerdict, number> {
  tests: number;
}

/** The suite's report of one run. */
export interface SuiteReport {
  totals: Totals;
  tests: TestResult[];
  /** The configuration that it reports. */
  settings: Record<string, unknown>;
}

/** The prefix of each test's name in the suite's own files. */
export const SUITE = 'OCI Conformance Test/';
const VERDICTS: Record<string, TestVerdict> = {
  passed: 'passed',
  failure: 'failed',
  error: 'failed',
  skipped: 'skipped',
};
/** The suite calls both skipped, and says in the test's log why. */
const DISABLED = 'is disabled in the configuration';

/**
 * Reads a report of the suite.
 * @param files the texts of its `junit.xml` and `results.yaml`.
 * @throws Error that says what is missing in which file: the suite exits with 0 even when it could not begin.
 */
export function parseReport({junit, results}: {junit: string; results: string}): SuiteReport {
  const totals = parseTotals(junit);
  const tests = parseTests(junit);
  if (tests.length === 0) throw new Error('junit.xml lists no test');
  return {totals, tests, settings: parseSettings(results)};
}

/** One report of several parts of a run. @throws Error when there is none */
export function merge([first, ...more]: readonly SuiteReport[]): SuiteReport {
  if (!first) throw new Error('the suite was not run at all');
  return more.reduce<SuiteReport>(
    (whole, part) => ({
      totals: sum(whole.totals, part.totals),
      tests: [...whole.tests, ...part.tests],
      settings: whole.settings,
    }),
    first,
  );
}

const sum = (one: Totals, other: Totals): Totals => ({
  tests: one.tests + other.tests,
  passed: one.passed + other.passed,
  failed: one.failed + other.failed,
  skipped: one.skipped + other.skipped,
  off: one.off + other.off,
});

function parseTotals(junit: string): Totals {
  const tag = /<testsuites\b[^>]*>/.exec(junit)?.[0];
  if (!tag) throw new Error('junit.xml has no <testsuites>');
  if (!junit.trimEnd().endsWith('</testsuites>')) throw new Error('junit.xml is cut short');
  // The suite omits zeros.
  const count = (name: string): number => Number(attribute(tag, name) ?? 0);
  const tests = count('tests');
  const failed = count('failures') + count('errors');
  const skipped = count('skipped');
  const off = count('disabled');
  return {tests, passed: tests - failed - skipped - off, failed, skipped, off};
}

/** Go's encoder escapes every `<`, `>` and `"` in texts and attributes, so that this finds exactly the elements. */
function parseTests(junit: string): TestResult[] {
  const elements = junit.matchAll(/(?<tag><testcase\b[^>]*>)(?<body>.*?)<\/testcase>/gs);
  return [...elements].map(({groups: {tag = '', body = ''} = {}}) => {
    const name = attribute(tag, 'name') ?? '';
    const status = attribute(tag, 'status') ?? '';
    const verdict = VERDICTS[status];
    if (!verdict)
      throw new Error(
        `junit.xml has the status "${status}" for "${name}", which is not a status of the suite`,
      );
    const log = text(body, 'system-err');
    const isOff = verdict === 'skipped' && log.includes(DISABLED);
    return {
      name: name.startsWith(SUITE) ? name.slice(SUITE.length) : name,
      verdict: isOff ? 'off' : verdict,
      reason: text(body, 'system-out'),
    };
  });
}

function parseSettings(results: string): Record<string, unknown> {
  const document: unknown = parse(results);
  const settings = isRecord(document) ? document['config'] : undefined;
  if (!isRecord(settings)) throw new Error('results.yaml has no "config"');
  return settings;
}

export const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

const attribute = (tag: string, name: string): string | undefined => {
  const value = new RegExp(`\\s${name}="([^"]*)"`).exec(tag)?.[1];
  return value === undefined ? undefined : unescaped(value);
};

const text = (body: string, element: string): string =>
  unescaped(new RegExp(`<${element}>([^<]*)</${element}>`).exec(body)?.[1] ?? '').trim();

const ENTITIES: Record<string, string> = {lt: '<', gt: '>', amp: '&', quot: '"', apos: "'"};

const unescaped = (value: string): string =>
  value.replace(/&(?:#x([0-9a-f]+)|#(\d+)|([a-z]+));/gi, (whole, hex, decimal, name) => {
    if (name) return ENTITIES[name] ?? whole;
    return String.fromCodePoint(hex ? Number.parseInt(hex, 16) : Number(decimal));
  });
