import test from 'ava';
import {createBreaker, type Finding} from '../../src/upstream/breaker.ts';
import {createManualClock} from '../support/clock.ts';

function setUp() {
  const clock = createManualClock();
  const changes: string[] = [];
  const breaker = createBreaker({failures: 2, openFor: 1000}, clock, (state) => changes.push(state));
  const report = (finding: Finding) => breaker.enter()?.(finding);
  return {clock, changes, breaker, report};
}

test('opens after so many failures in a row', (t) => {
  const {breaker, changes, report} = setUp();
  report('failing');
  report('reachable');
  report('failing');
  t.is(breaker.closedFor(), undefined);
  report('failing');
  t.is(breaker.closedFor(), 1000);
  t.is(breaker.enter(), undefined);
  t.deepEqual(changes, ['open']);
});

test('what never reached the upstream counts neither way', (t) => {
  const {breaker, report} = setUp();
  report('failing');
  report('unknown');
  report('failing');
  t.is(breaker.closedFor(), 1000);
});

test('after its time exactly one probe is let through, and its success closes the circuit', async (t) => {
  const {breaker, changes, clock, report} = setUp();
  report('failing');
  report('failing');
  await clock.advance(1000);
  const probe = breaker.enter();
  t.truthy(probe);
  t.is(breaker.enter(), undefined);
  t.true((breaker.closedFor() ?? 0) > 0);
  probe?.('reachable');
  t.truthy(breaker.enter());
  t.truthy(breaker.enter());
  t.deepEqual(changes, ['open', 'half-open', 'closed']);
});

test('a failed probe opens the circuit for the whole time again', async (t) => {
  const {breaker, clock, report} = setUp();
  report('failing');
  report('failing');
  await clock.advance(1500);
  report('failing');
  t.is(breaker.closedFor(), 1000);
});

test('a probe that showed nothing makes room for the next', async (t) => {
  const {breaker, clock, report} = setUp();
  report('failing');
  report('failing');
  await clock.advance(1000);
  report('unknown');
  t.is(breaker.closedFor(), undefined);
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
