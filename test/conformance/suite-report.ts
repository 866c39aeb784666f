import type {SuiteReport, TestResult, TestVerdict} from '../../conformance/results.ts';

const STATUS: Record<TestVerdict, string> = {
  passed: 'passed',
  failed: 'failure',
  skipped: 'skipped',
  off: 'skipped',
};

/** A test as the suite lists it; passed by default. */
export const suiteTest = (name: string, verdict: TestVerdict = 'passed', reason = ''): TestResult => ({
  name,
  verdict,
  reason,
});

/** A report that lists these tests and counts each of them once. */
export function suiteReport(
  tests: readonly TestResult[],
  settings: Record<string, unknown> = {},
): SuiteReport {
  const count = (verdict: TestVerdict) => tests.filter((each) => each.verdict === verdict).length;
  const totals = {
    tests: tests.length,
    passed: count('passed'),
    failed: count('failed'),
    skipped: count('skipped'),
    off: count('off'),
  };
  return {totals, tests: [...tests], settings};
}

/** The suite's junit.xml of a report, in the form of Go's encoder: texts escaped, zeros left out. */
export function junitXml({totals, tests}: SuiteReport): string {
  const counts = [
    ['tests', totals.tests],
    ['failures', totals.failed],
    ['skipped', totals.skipped],
    ['disabled', totals.off],
  ].flatMap(([name, count]) => (count === 0 ? [] : [`${name}="${count}"`]));
  const cases = tests.map(({name, verdict, reason}) => {
    const log =
      verdict === 'off' ? `${name}: skipping test:\n  api x is disabled in the configuration` : 'GET';
    const out = reason === '' ? '' : `<system-out>${escaped(reason)}</system-out>`;
    const tag = `<testcase name="${escaped(`OCI Conformance Test/${name}`)}" classname="" status="${STATUS[verdict]}">`;
    return `    ${tag}\n      ${out}\n      <system-err>${escaped(log)}</system-err>\n    </testcase>`;
  });
  return [
    `<testsuites time="1.5" ${counts.join(' ')}>`,
    '  <testsuite name="OCI Conformance Test">',
    ...cases,
    '  </testsuite>',
    '</testsuites>',
  ].join('\n');
}

/** The suite's results.yaml of a report. */
export const resultsYaml = ({settings}: SuiteReport): string => JSON.stringify({config: settings, apis: {}});

const escaped = (text: string): string =>
  text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&#34;')
    .replaceAll('\n', '&#xA;');
