import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../src/caller.ts';
import {type Clock, patientClock, systemClock} from '../src/clock.ts';
import {createEvents} from '../src/events.ts';
import {parseName} from '../src/oci/name.ts';
import {createNegativeCache} from '../src/registry/negative-cache.ts';
import {createCapabilities} from '../src/registry/referrers/discovery.ts';
import {createLoginGate} from '../src/upstream/auth/login.ts';
import {createBreaker} from '../src/upstream/transport/breaker.ts';
import {startBudget} from '../src/upstream/transport/budget.ts';
import {DAY} from './support/backref.ts';
import {createManualClock} from './support/clock.ts';
import {registryOver} from './support/registry.ts';
import {createScriptedUpstream} from './support/scripted-upstream.ts';
import {caller, createClient, latest, MANIFEST_PATH, repository} from './support/upstream.ts';

const SECOND = 1000;
const YEAR = 365 * DAY;

for (const [name, clock] of Object.entries({systemClock, patientClock})) {
  test(`the ${name} counts whole milliseconds that never go back`, (t) => {
    const readings = Array.from({length: 1000}, () => clock.monotonic());
    t.true(readings.every(Number.isInteger));
    t.deepEqual(
      readings,
      readings.toSorted((one, other) => one - other),
    );
  });
}

/** Begins something that lasts ten seconds, and gives whether it still does. */
type Begin = (clock: Clock) => Lasts | Promise<Lasts>;
type Lasts = () => boolean | Promise<boolean>;

const lifetimes: Record<string, Begin> = {
  'an open circuit': (clock) => {
    const breaker = createBreaker({failures: 1, openFor: 10 * SECOND}, clock, () => {});
    breaker.enter()?.('failing');
    return () => breaker.retryAfter() !== undefined;
  },
  'the gate after refused credentials': async (clock) => {
    const gate = createLoginGate(
      10 * SECOND,
      clock,
      () => new Error('closed'),
      () => {},
    );
    const {signal} = new AbortController();
    const login = async (verdict: 'refused' | 'undecided') => {
      const attempt = gate.login(
        async () => {},
        () => verdict,
        signal,
      );
      return attempt.then(
        () => false,
        () => true,
      );
    };
    await login('refused');
    return () => login('undecided');
  },
  'a remembered absence': (clock) => {
    const negativeCache = createNegativeCache(clock);
    negativeCache.remember('team/app:1', ANONYMOUS);
    return () => negativeCache.has('team/app:1', ANONYMOUS, 10 * SECOND);
  },
  'the time budget of a call': (clock) => {
    const budget = startBudget(clock, 10 * SECOND);
    return () => budget.left() > 0;
  },
};

for (const [what, begin] of Object.entries(lifetimes)) {
  test(`${what} ends on time, even if the wall clock is set back meanwhile`, async (t) => {
    const clock = createManualClock();
    const lasts = await begin(clock);
    clock.moveWall(-YEAR);
    await clock.advance(10 * SECOND - 1);
    t.true(await lasts());
    await clock.advance(1);
    t.false(await lasts());
  });

  test(`${what} lasts its full time, even if the wall clock is set forward meanwhile`, async (t) => {
    const clock = createManualClock();
    const lasts = await begin(clock);
    clock.moveWall(YEAR);
    t.true(await lasts());
  });
}

test('whether an upstream has the Referrers API is asked again on time, even if the wall clock is set back', async (t) => {
  const clock = createManualClock();
  const capabilities = createCapabilities(clock, createEvents());
  const name = parseName('team/app');
  const registry = registryOver('upstream.example', {});
  const route = {registry, repository: {registry: registry.name, name}, asked: name};
  capabilities.learn(route, 'unsupported');
  clock.moveWall(-YEAR);
  await clock.advance(10 * 60 * SECOND - 1);
  t.is(capabilities.of(route), 'unsupported');
  await clock.advance(1);
  t.is(capabilities.of(route), 'unknown');
});

/** An upstream that issues tokens for five minutes, and expects the first one in `uses` requests. */
async function withToken(t: ExecutionContext, uses: number) {
  const HEAD = `HEAD ${MANIFEST_PATH}`;
  const TOKEN = '/token?service=registry&scope=repository%3Ateam%2Fapp%3Apull';
  const challenge = () => ({
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${upstream.url}/token",service="registry"`},
  });
  const token = (value: string) => ({body: JSON.stringify({token: value, expires_in: 300})});
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: challenge},
    {request: `GET ${TOKEN}`, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}, times: uses},
    ...(uses > 1
      ? []
      : [
          {request: `GET ${TOKEN}`, answer: token('T2')},
          {request: HEAD, sends: {authorization: 'Bearer T2'}},
        ]),
  ]);
  return upstream;
}

test('a token is renewed on time, even if the wall clock is set back', async (t) => {
  const clock = createManualClock();
  const {client} = createClient(t, (await withToken(t, 1)).url, {}, {clock});
  await client.headManifest(repository, latest, caller);
  clock.moveWall(-YEAR);
  await clock.advance(270 * SECOND);
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('a token is used until it expires, even if the wall clock is set forward', async (t) => {
  const clock = createManualClock();
  const {client} = createClient(t, (await withToken(t, 2)).url, {}, {clock});
  await client.headManifest(repository, latest, caller);
  clock.moveWall(YEAR);
  t.truthy(await client.headManifest(repository, latest, caller));
});
