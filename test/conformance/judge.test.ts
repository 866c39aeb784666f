import test from 'ava';
import {judge, judgeExtent, judgeLosses, judgeSettings, type Known} from '../../conformance/judge.ts';
import {suiteReport, suiteTest} from './suite-report.ts';

const KNOWN: readonly Known[] = [
  {
    reason: 'the registry knows no sha512',
    verdict: 'failed',
    tests: {'sha512/push/blob-post-put': 2, 'sha512/head/blob-head': 1},
  },
  {reason: 'the registry deletes no tags', verdict: 'skipped', tests: {'image/delete/tag-delete': 1}},
];
const AS_KNOWN = [
  suiteTest('ping'),
  suiteTest('sha512/push/blob-post-put', 'failed', 'no'),
  suiteTest('sha512/push/blob-post-put', 'failed', 'no'),
  suiteTest('sha512/head/blob-head', 'failed', 'no'),
  suiteTest('image/delete/tag-delete', 'skipped', 'no'),
];

test('a run in which everything passes has no fault', (t) => {
  t.deepEqual(judge(suiteReport([suiteTest('ping'), suiteTest('empty/referrers')]), []), []);
});

test('a test that is disabled in the settings is not a fault', (t) => {
  t.deepEqual(judge(suiteReport([suiteTest('ping'), suiteTest('post cancel', 'off')]), []), []);
});

test('a known failure is not a fault', (t) => {
  t.deepEqual(judge(suiteReport(AS_KNOWN), KNOWN), []);
});

test('a new failure is a fault, with the first line of its reason', (t) => {
  const report = suiteReport([...AS_KNOWN, suiteTest('empty/referrers', 'failed', 'received 404\nmore')]);
  t.deepEqual(judge(report, KNOWN), ['empty/referrers failed: received 404']);
});

test('a new skip is a fault', (t) => {
  const report = suiteReport([...AS_KNOWN, suiteTest('mount anonymous', 'skipped', 'returned 202')]);
  t.deepEqual(judge(report, KNOWN), ['mount anonymous skipped: returned 202']);
});

test('a test that is known to be skipped must not fail instead', (t) => {
  const report = suiteReport([
    ...AS_KNOWN.slice(0, -1),
    suiteTest('image/delete/tag-delete', 'failed', 'received 500'),
  ]);
  t.deepEqual(judge(report, KNOWN), [
    'image/delete/tag-delete failed: received 500',
    'image/delete/tag-delete skipped 0 times, but is listed 1 times: correct the list',
  ]);
});

test('one more failure of a known name is a fault', (t) => {
  const report = suiteReport([...AS_KNOWN, suiteTest('sha512/head/blob-head', 'failed', 'received 500')]);
  const [fault = '', ...more] = judge(report, KNOWN);
  t.regex(fault, /^sha512\/head\/blob-head failed 2 times, 1 of them known: /);
  t.deepEqual(more, []);
});

test('a known failure that passes is a fault, so that the list stays true', (t) => {
  const [fault] = judge(suiteReport(AS_KNOWN.slice(0, 3).concat(AS_KNOWN.slice(4))), KNOWN);
  t.is(fault, 'sha512/head/blob-head failed 0 times, but is listed 1 times: correct the list');
});

for (const verdict of ['failed', 'skipped'] as const) {
  test(`tests that the suite counts as ${verdict} and does not list are a fault`, (t) => {
    const report = suiteReport([suiteTest('ping')]);
    report.totals[verdict] = 2;
    t.deepEqual(judge(report, []), [`the suite counts 2 ${verdict} and lists none of them`]);
  });
}

test('too few tests are a fault', (t) => {
  const report = suiteReport([suiteTest('ping'), suiteTest('empty/referrers')]);
  t.deepEqual(judgeExtent(report, 2), []);
  t.deepEqual(judgeExtent(report, 3), ['only 2 tests were run, of at least 3']);
});

test('settings that the suite did not use are a fault, whatever further ones it has', (t) => {
  const report = suiteReport([suiteTest('ping')], {
    version: '1.1',
    registry: '127.0.0.1:5000',
    data: {sparse: false, sha512: true},
  });
  t.deepEqual(judgeSettings(report, {registry: '127.0.0.1:5000', data: {sha512: true}}), []);
  t.deepEqual(judgeSettings(report, {version: 'dev', data: {sparse: true, new: {deep: 1}}}), [
    'the suite ran with another version than it was given',
    'the suite ran with another data.sparse than it was given',
    'the suite ran with another data.new.deep than it was given',
  ]);
});

const push = (way: string, verdict: 'passed' | 'failed' | 'skipped') =>
  suiteTest(`image/push/${way}`, verdict);

test('a proxy that passes everything that the registry behind it passes has lost nothing', (t) => {
  const bare = suiteReport([suiteTest('ping'), suiteTest('empty/referrers', 'failed')]);
  t.deepEqual(judgeLosses(bare, bare), []);
  t.deepEqual(judgeLosses(bare, suiteReport([suiteTest('ping'), suiteTest('empty/referrers')])), []);
});

test('a test that the registry alone passes and that fails through the proxy is lost', (t) => {
  const bare = suiteReport([suiteTest('image/head/blob-head'), suiteTest('image/head/blob-head')]);
  const through = suiteReport([
    suiteTest('image/head/blob-head'),
    suiteTest('image/head/blob-head', 'failed'),
  ]);
  t.deepEqual(judgeLosses(bare, through), [
    'image/head/blob-head: 1 passed, 1 failed, 0 skipped here, 2 passed, 0 failed, 0 skipped without backref',
    'image/head: 1 passed, 1 failed, 0 skipped here, 2 passed, 0 failed, 0 skipped without backref',
  ]);
});

test('a test that the registry alone passes and that is skipped through the proxy is lost', (t) => {
  const losses = judgeLosses(
    suiteReport([suiteTest('a/tag-delete')]),
    suiteReport([suiteTest('a/tag-delete', 'skipped')]),
  );
  t.is(losses.length, 2);
});

test('a test that the registry alone skips must not fail through the proxy', (t) => {
  const losses = judgeLosses(
    suiteReport([suiteTest('a/tag-delete', 'skipped')]),
    suiteReport([suiteTest('a/tag-delete', 'failed')]),
  );
  t.deepEqual(losses, [
    'a/tag-delete: 0 passed, 1 failed, 0 skipped here, 0 passed, 0 failed, 1 skipped without backref',
  ]);
});

test('a test that is not run through the proxy is lost', (t) => {
  const bare = suiteReport([suiteTest('image/head/blob-head'), suiteTest('ping')]);
  t.deepEqual(judgeLosses(bare, suiteReport([suiteTest('ping')])), [
    'image/head: 0 passed, 0 failed, 0 skipped here, 1 passed, 0 failed, 0 skipped without backref',
  ]);
});

test('a test that the registry alone never reached is not lost', (t) => {
  const bare = suiteReport([suiteTest('push', 'failed'), suiteTest('a/tag-delete', 'skipped')]);
  const through = suiteReport([
    suiteTest('push'),
    suiteTest('a/tag-delete', 'skipped'),
    suiteTest('a/tag-delete', 'skipped'),
    suiteTest('b/tag-delete', 'failed'),
  ]);
  t.deepEqual(judgeLosses(bare, through), []);
});

test('a blob that the proxy accepts at once needs no second way of pushing it', (t) => {
  const bare = suiteReport([push('blob-post-put', 'failed'), push('blob-patch-stream', 'passed')]);
  t.deepEqual(judgeLosses(bare, suiteReport([push('blob-post-put', 'passed')])), []);
});

test('a group that passes completely may be smaller, because it needs no second way of pushing; any other may not', (t) => {
  const bare = suiteReport([
    push('by-digest', 'skipped'),
    push('by-tag', 'passed'),
    push('by-tag', 'passed'),
  ]);
  t.deepEqual(judgeLosses(bare, suiteReport([push('by-digest', 'passed')])), []);
  t.deepEqual(judgeLosses(bare, suiteReport([push('by-digest', 'passed'), push('other', 'failed')])), [
    'image/push: 1 passed, 1 failed, 0 skipped here, 2 passed, 0 failed, 1 skipped without backref',
  ]);
});
