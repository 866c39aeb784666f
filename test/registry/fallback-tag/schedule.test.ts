import test from 'ava';
import {pauseBefore} from '../../../src/registry/fallback-tag/schedule.ts';

const now = 1_000_000;
const watched = (...ages: number[]) =>
  pauseBefore({now, pending: 0, writtenAt: ages.map((age) => now - age), failures: 0});
const owed = (failures: number, retryAfter?: number) =>
  pauseBefore({now, pending: 1, writtenAt: [now], failures, retryAfter});

test('what was written is looked at again after 2 s, 10 s and 60 s', (t) => {
  t.is(watched(0), 2000);
  t.is(watched(2000), 8000);
  t.is(watched(10_000), 50_000);
});

test('of several changes the next one that is due counts, yet never sooner than in 2 s', (t) => {
  t.is(watched(10_000, 0), 2000);
  t.is(watched(9500), 2000);
  t.is(watched(70_000), 2000);
});

test('what could not be written is tried again with growing pauses', (t) => {
  t.deepEqual(
    [1, 2, 3, 4, 5, 6, 7, 100].map((failures) => owed(failures)),
    [200, 1000, 2000, 10_000, 60_000, 300_000, 300_000, 300_000],
  );
});

test('an upstream that asks for patience gets it', (t) => {
  t.is(owed(1, 30_000), 30_000);
  t.is(owed(5, 30_000), 60_000);
  // A timer does not hold the thirty years that one may ask for.
  t.is(owed(1, 1e12), 60 * 60_000);
});

test('a clock that was set back delays a look by no more than a minute', (t) => {
  t.is(watched(-86_400_000), 60_000);
});

test('what is lost again and again for long is looked at more and more seldom', (t) => {
  const lost = (age: number) =>
    pauseBefore({now, pending: 0, writtenAt: [now], since: now - age, failures: 0});
  t.deepEqual([0, 20_000, 60_000, 600_000, 100_000_000].map(lost), [2000, 2000, 6000, 60_000, 300_000]);
});

test('when nothing is owed and nothing watched, there is nothing to wait for', (t) => {
  t.is(watched(), undefined);
});
