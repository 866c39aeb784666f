import test from 'ava';
import {createBreaker, type Reachability} from '../../../src/upstream/transport/breaker.ts';
import {createManualClock} from '../../support/clock.ts';

function setUp(confirm?: () => Promise<boolean>) {
  const clock = createManualClock();
  const changes: string[] = [];
  const policy = {failures: 2, openFor: 1000};
  const breaker = createBreaker(policy, clock, (state) => changes.push(state), confirm);
  const report = (reachability: Reachability) => breaker.enter()?.(reachability);
  return {clock, changes, breaker, report};
}

test('opens after the configured number of failures in a row', (t) => {
  const {breaker, changes, report} = setUp();
  report('failing');
  report('reachable');
  report('failing');
  t.is(breaker.retryAfter(), undefined);
  report('failing');
  t.is(breaker.retryAfter(), 1000);
  t.is(breaker.enter(), undefined);
  t.deepEqual(changes, ['open']);
});

test('a request that never reached the upstream does not count', (t) => {
  const {breaker, report} = setUp();
  report('failing');
  report('unknown');
  report('failing');
  t.is(breaker.retryAfter(), 1000);
});

test('once it has been open for its time, exactly one probe is let through, and its success closes the circuit', async (t) => {
  const {breaker, changes, clock, report} = setUp();
  report('failing');
  report('failing');
  await clock.advance(1000);
  const probe = breaker.enter();
  t.truthy(probe);
  t.is(breaker.enter(), undefined);
  t.true((breaker.retryAfter() ?? 0) > 0);
  probe?.('reachable');
  t.truthy(breaker.enter());
  t.truthy(breaker.enter());
  t.deepEqual(changes, ['open', 'half-open', 'closed']);
});

test('a failed probe opens the circuit for its full time again', async (t) => {
  const {breaker, clock, report} = setUp();
  report('failing');
  report('failing');
  await clock.advance(1500);
  report('failing');
  t.is(breaker.retryAfter(), 1000);
});

test('a probe without a result lets the next one through', async (t) => {
  const {breaker, clock, report} = setUp();
  report('failing');
  report('failing');
  await clock.advance(1000);
  report('unknown');
  t.is(breaker.retryAfter(), undefined);
  t.truthy(breaker.enter());
});

test('requests let through before the circuit opened do not close it', (t) => {
  const {breaker, report} = setUp();
  const early = breaker.enter();
  report('failing');
  report('failing');
  early?.('reachable');
  t.is(breaker.enter(), undefined);
});

test('with a confirmation, the circuit opens only once it is confirmed', async (t) => {
  const {promise, resolve} = Promise.withResolvers<boolean>();
  const {breaker, changes, report} = setUp(() => promise);
  for (const _ of [1, 2, 3]) report('failing');
  t.truthy(breaker.enter());
  resolve(true);
  await breaker.confirming();
  t.is(breaker.enter(), undefined);
  t.deepEqual(changes, ['open']);
});

test('after a denied confirmation, failures are counted from zero', async (t) => {
  let asked = 0;
  const {breaker, changes, report} = setUp(async () => {
    asked += 1;
    return false;
  });
  for (const count of [0, 1, 1, 2]) {
    report('failing');
    await breaker.confirming();
    t.is(asked, count);
  }
  t.deepEqual(changes, []);
});

test('a success during the confirmation keeps the circuit closed', async (t) => {
  const {promise, resolve} = Promise.withResolvers<boolean>();
  const {breaker, report} = setUp(() => promise);
  report('failing');
  report('failing');
  report('reachable');
  resolve(true);
  await breaker.confirming();
  t.truthy(breaker.enter());
});
