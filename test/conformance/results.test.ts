import test from 'ava';
import {merge, parseReport} from '../../conformance/results.ts';
import {junitXml, resultsYaml, suiteReport, suiteTest} from './suite-report.ts';

const report = suiteReport(
  [
    suiteTest('ping'),
    suiteTest('image/pull/blob-get', 'failed', 'expected "<a & b>",\nreceived none'),
    suiteTest('sha256 blobs/mount anonymous/blob-mount-anonymous', 'skipped', 'fell back to POST+PUT'),
    suiteTest('sha256 blobs/post cancel/blob-post-cancel', 'off'),
  ],
  {version: '1.1', apis: {push: true}},
);
const files = {junit: junitXml(report), results: resultsYaml(report)};

test("reads counts, tests, reasons and settings from the suite's two files", (t) => {
  t.deepEqual(parseReport(files), report);
});

test('counts an error of the suite as a failure', (t) => {
  const junit = files.junit.replace('failures="1"', 'errors="1"').replace('"failure"', '"error"');
  const {totals, tests} = parseReport({...files, junit});
  t.is(totals.failed, 1);
  t.is(tests[1]?.verdict, 'failed');
});

test('reads what the suite skipped because of its settings as disabled', (t) => {
  t.deepEqual(
    parseReport(files).tests.map(({verdict}) => verdict),
    ['passed', 'failed', 'skipped', 'off'],
  );
});

for (const [what, broken, expected] of [
  ['an empty junit.xml', {junit: ''}, 'junit.xml has no <testsuites>'],
  ['a junit.xml that is cut short', {junit: files.junit.slice(0, -20)}, 'junit.xml is cut short'],
  ['a junit.xml without a test', {junit: '<testsuites tests="982"></testsuites>'}, 'junit.xml lists no test'],
  [
    'a status that the suite does not have',
    {junit: files.junit.replace('"passed"', '"fine"')},
    'junit.xml has the status "fine" for "OCI Conformance Test/ping", which is not a status of the suite',
  ],
  ['an empty results.yaml', {results: ''}, 'results.yaml has no "config"'],
] as const) {
  test(`refuses ${what}`, (t) => {
    t.throws(() => parseReport({...files, ...broken}), {message: expected});
  });
}

test('merges the parts of a run: counts are added, tests follow each other', (t) => {
  const more = suiteReport([suiteTest('empty/tag list'), suiteTest('empty/referrers', 'failed')]);
  const {totals, tests} = merge([report, more]);
  t.deepEqual(totals, {tests: 6, passed: 2, failed: 2, skipped: 1, off: 1});
  t.deepEqual(tests, [...report.tests, ...more.tests]);
});

test('refuses to merge no reports', (t) => {
  t.throws(() => merge([]), {message: 'the suite was not run at all'});
});
