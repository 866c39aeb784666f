import test from 'ava';
import fc from 'fast-check';
import {
  type Freshness,
  type FreshnessQuestion,
  freshness,
  NO_CACHE_FLOOR_MS,
  servableUntil,
} from '../../src/registry/freshness.ts';

const NOW = 1_000_000_000;
const policy = {ttl: 60_000, maxStale: 600_000, keepDeleted: 300_000, absentTtl: 5000};

interface FreshnessCase {
  title: string;
  /** Milliseconds since the last check. */
  age: number;
  /** Milliseconds since the upstream first said that it is gone. */
  gone?: number;
  upstream?: FreshnessQuestion['upstream'];
  noCache?: boolean;
  changes?: Partial<typeof policy>;
  is: Freshness;
}

const rows: FreshnessCase[] = [
  {title: 'just checked', age: 0, is: 'fresh'},
  {title: 'a millisecond younger than its lifetime', age: 59_999, is: 'fresh'},
  {title: 'as old as its lifetime', age: 60_000, is: 'revalidate'},
  {title: 'of any age, before the upstream was asked', age: 10 ** 12, is: 'revalidate'},
  {title: 'checked in the future, after the clock was set back', age: -1, is: 'revalidate'},
  {title: 'checked in the future, with no-cache', age: -5000, noCache: true, is: 'revalidate'},
  {
    title: 'checked in the future, while the upstream fails',
    age: -5000,
    upstream: 'failed',
    is: 'stale',
  },
  {title: 'known to be deleted in the future', age: -5000, gone: -5000, is: 'revalidate'},
  {title: 'with a lifetime of 0, just checked', age: 0, changes: {ttl: 0}, is: 'revalidate'},
  {title: 'with no-cache, within the second', age: NO_CACHE_FLOOR_MS - 1, noCache: true, is: 'fresh'},
  {title: 'with no-cache, after the second', age: NO_CACHE_FLOOR_MS, noCache: true, is: 'revalidate'},
  {
    title: 'with no-cache and a lifetime below a second, after that lifetime',
    age: 500,
    noCache: true,
    changes: {ttl: 500},
    is: 'revalidate',
  },
  {title: 'while the upstream fails, just checked', age: 0, upstream: 'failed', is: 'stale'},
  {title: 'while the upstream fails, as old as maxStale', age: 600_000, upstream: 'failed', is: 'stale'},
  {title: 'while the upstream fails, older than maxStale', age: 600_001, upstream: 'failed', is: 'gone'},
  {
    title: 'while the upstream fails and maxStale is 0, a millisecond old',
    age: 1,
    upstream: 'failed',
    changes: {maxStale: 0},
    is: 'gone',
  },
  {
    title: 'that the upstream says is absent for the first time',
    age: 70_000,
    upstream: 'absent',
    is: 'stale',
  },
  {title: 'absent for less than keepDeleted', age: 0, gone: 299_999, upstream: 'absent', is: 'stale'},
  {title: 'absent for keepDeleted', age: 0, gone: 300_000, upstream: 'absent', is: 'gone'},
  {
    title: 'absent for the first time, with keepDeleted 0',
    age: 0,
    upstream: 'absent',
    changes: {keepDeleted: 0},
    is: 'gone',
  },
  {
    title: 'deleted in the future, after the clock was set back, with keepDeleted 0',
    age: 0,
    gone: -1,
    changes: {keepDeleted: 0},
    is: 'gone',
  },
  {title: 'known to be deleted, within its lifetime', age: 10, gone: 10, is: 'stale'},
  {
    title: 'known to be deleted for longer than keepDeleted, within its lifetime',
    age: 10,
    gone: 300_000,
    is: 'gone',
  },
  {title: 'known to be deleted, after its lifetime', age: 60_000, gone: 60_000, is: 'revalidate'},
  {
    title: 'known to be deleted, while the upstream fails',
    age: 60_000,
    gone: 60_000,
    upstream: 'failed',
    is: 'stale',
  },
  {
    title: 'deleted longer than keepDeleted ago, while the upstream fails',
    age: 60_000,
    gone: 300_000,
    upstream: 'failed',
    is: 'gone',
  },
  {
    title: 'deleted and older than maxStale, while the upstream fails',
    age: 600_001,
    gone: 1,
    upstream: 'failed',
    is: 'gone',
  },
];

for (const {title, age, gone, upstream = 'unasked', noCache, changes, is} of rows) {
  test(`what is ${title} is ${is}`, (t) => {
    const known = {checkedAt: NOW - age, ...(gone === undefined ? {} : {goneAt: NOW - gone})};
    const question = {now: NOW, known, policy: {...policy, ...changes}, upstream};
    t.is(freshness(noCache === undefined ? question : {...question, noCache}), is);
  });
}

const ms = fc.oneof(fc.nat(5), fc.nat(10_000), fc.nat(10 ** 10));
const policies = fc.record({ttl: ms, maxStale: ms, keepDeleted: ms, absentTtl: ms});
const upstreams = fc.constantFrom('unasked' as const, 'failed' as const, 'absent' as const);
const questions = fc.record({
  now: fc.nat(10 ** 10).map((time) => time + NOW),
  known: fc.record({checkedAt: fc.nat(10 ** 10), goneAt: fc.option(fc.nat(10 ** 10), {nil: undefined})}),
  policy: policies,
  upstream: upstreams,
  noCache: fc.boolean(),
});
const verify = (property: (question: FreshnessQuestion) => boolean) =>
  fc.assert(fc.property(questions, property), {numRuns: 2000});
const ageOf = ({now, known}: FreshnessQuestion) => now - known.checkedAt;

test('nothing is fresh beyond its lifetime, nor after the upstream was asked', (t) => {
  verify(
    (question) =>
      freshness(question) !== 'fresh' ||
      (question.upstream === 'unasked' && ageOf(question) < question.policy.ttl),
  );
  t.pass();
});

test('nothing is stale beyond maxStale while the upstream fails', (t) => {
  verify(
    (question) =>
      question.upstream !== 'failed' ||
      freshness(question) !== 'stale' ||
      ageOf(question) <= question.policy.maxStale,
  );
  t.pass();
});

test('with keepDeleted 0, a deleted tag is never served', (t) => {
  verify((question) => {
    const {known, upstream} = question;
    const verdict = freshness({...question, policy: {...question.policy, keepDeleted: 0}});
    const deleted = known.goneAt !== undefined || upstream === 'absent';
    return !deleted || verdict === 'gone' || verdict === 'revalidate';
  });
  t.pass();
});

test('once the upstream was asked, the verdict never asks for it again', (t) => {
  verify((question) => question.upstream === 'unasked' || freshness(question) !== 'revalidate');
  t.pass();
});

test('no-cache never serves what would not be served without it', (t) => {
  verify((question) => {
    const without = freshness({...question, noCache: false});
    const withIt = freshness({...question, noCache: true});
    return withIt === without || withIt === 'revalidate';
  });
  t.pass();
});

test('an answer that was checked in the future is not served before the upstream was asked', (t) => {
  verify(
    (question) =>
      question.upstream !== 'unasked' || ageOf(question) >= 0 || freshness(question) === 'revalidate',
  );
  t.pass();
});

test('as time passes, fresh becomes revalidate and stale becomes gone, never the other way round', (t) => {
  const order: Freshness[] = ['fresh', 'stale', 'gone', 'revalidate'];
  fc.assert(
    fc.property(questions, ms, (question, later) => {
      fc.pre(ageOf(question) >= 0);
      const before = freshness(question);
      const after = freshness({...question, now: question.now + later});
      return order.indexOf(before) <= order.indexOf(after);
    }),
    {numRuns: 2000},
  );
  t.pass();
});

test('an answer is served while the upstream fails until the moment that servableUntil names', (t) => {
  const time = fc.integer({min: NOW - 1000, max: NOW + 1000});
  const duration = fc.integer({min: 0, max: 1500});
  fc.assert(
    fc.property(
      time,
      fc.option(time, {nil: undefined}),
      duration,
      duration,
      (checkedAt, goneAt, maxStale, keepDeleted) => {
        const known = {checkedAt, goneAt};
        const changed = {...policy, maxStale, keepDeleted};
        const served = freshness({now: NOW, known, policy: changed, upstream: 'failed'}) === 'stale';
        return served === NOW <= servableUntil(known, changed);
      },
    ),
  );
  t.pass();
});
