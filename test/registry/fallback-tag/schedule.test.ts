import test from 'ava';
import {pauseBefore} from '../../../src/registry/fallback-tag/schedule.ts';

const now = 1_000_000;
const afterWrites = (...ages: number[]) =>
  pauseBefore({now, pending: 0, writtenAt: ages.map((age) => now - age), failures: 0});
const afterFailures = (failures: number, retryAfter?: number) =>
  pauseBefore({now, pending: 1, writtenAt: [now], failures, retryAfter});

test('a written change is checked again after 2 s, 10 s and 60 s', (t) => {
  t.is(afterWrites(0), 2000);
  t.is(afterWrites(2000), 8000);
  t.is(afterWrites(10_000), 50_000);
});

test('of several changes the one that is due next counts, but never sooner than in 2 s', (t) => {
  t.is(afterWrites(10_000, 0), 2000);
  t.is(afterWrites(9500), 2000);
  t.is(afterWrites(70_000), 2000);
});

test('a change that could not be written is tried again at growing intervals', (t) => {
  t.deepEqual(
    [1, 2, 3, 4, 5, 6, 7, 100].map((failures) => afterFailures(failures)),
    [200, 1000, 2000, 10_000, 60_000, 300_000, 300_000, 300_000],
  );
});

test('the Retry-After of an upstream is respected, up to an hour', (t) => {
  t.is(afterFailures(1, 30_000), 30_000);
  t.is(afterFailures(5, 30_000), 60_000);
  // A timer does not hold the thirty years that one may ask for.
  t.is(afterFailures(1, 1e12), 60 * 60_000);
});

test('a clock that was set back delays a check by at most a minute', (t) => {
  t.is(afterWrites(-86_400_000), 60_000);
});

test('a change that is lost again and again is checked less and less often', (t) => {
  const lost = (age: number) =>
    pauseBefore({now, pending: 0, writtenAt: [now], since: now - age, failures: 0});
  t.deepEqual([0, 20_000, 60_000, 600_000, 100_000_000].map(lost), [2000, 2000, 6000, 60_000, 300_000]);
});

test('when nothing is pending or watched, there is nothing to wait for', (t) => {
  t.is(afterWrites(), undefined);
});
