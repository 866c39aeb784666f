import test from 'ava';
import {createLoginGate, type Verdict} from '../../../src/upstream/auth/login.ts';
import {createManualClock} from '../../support/clock.ts';

const {signal} = new AbortController();
const refused = {instanceOf: Error, message: /^closed for/};

function setUp() {
  const clock = createManualClock();
  const refusals: number[] = [];
  const gate = createLoginGate(
    60_000,
    clock,
    (left) => new Error(`closed for ${left}`),
    () => refusals.push(clock.now()),
  );
  /** A login that is under way until `end` is called with its verdict. */
  const login = () => {
    const {promise, resolve: end} = Promise.withResolvers<Verdict>();
    let started = false;
    const attempt = () => {
      started = true;
      return promise;
    };
    return {done: gate.login(attempt, (verdict) => verdict, signal), end, started: () => started};
  };
  return {clock, login, refusals};
}

const settle = () => new Promise((resolve) => setImmediate(resolve));

test('until credentials are known to work, logins run one at a time', async (t) => {
  const {login} = setUp();
  const [first, second, third] = [login(), login(), login()];
  await settle();
  t.deepEqual([first.started(), second.started(), third.started()], [true, false, false]);
  first.end('accepted');
  await first.done;
  await settle();
  t.deepEqual([second.started(), third.started()], [true, true]);
  second.end('accepted');
  third.end('accepted');
  await Promise.all([second.done, third.done]);
});

test('a refusal fails all waiting logins, and new ones until the pause is over', async (t) => {
  const {clock, login, refusals} = setUp();
  const [first, second] = [login(), login()];
  first.end('refused');
  await t.throwsAsync(first.done, {message: 'closed for 60000'});
  await t.throwsAsync(second.done, refused);
  t.false(second.started());
  await clock.advance(59_999);
  await t.throwsAsync(login().done, {message: 'closed for 1'});
  await clock.advance(1);
  const later = login();
  later.end('accepted');
  t.is(await later.done, 'accepted');
  t.is(refusals.length, 1);
});

test('an undecided login does not change the gate', async (t) => {
  const {login} = setUp();
  const [first, second] = [login(), login()];
  first.end('undecided');
  t.is(await first.done, 'undecided');
  await settle();
  t.true(second.started());
  const third = login();
  await settle();
  t.false(third.started());
  second.end('accepted');
  third.end('accepted');
  await third.done;
});

test('"forbidden" is a refusal only while the credentials have never been accepted', async (t) => {
  const {login, refusals} = setUp();
  const good = login();
  good.end('accepted');
  await good.done;
  const foreign = login();
  foreign.end('forbidden');
  t.is(await foreign.done, 'forbidden');
  t.is(refusals.length, 0);

  const {login: unproven} = setUp();
  const first = unproven();
  first.end('forbidden');
  await t.throwsAsync(first.done, refused);
  await t.throwsAsync(unproven().done, refused);
});
