import test from 'ava';
import fc from 'fast-check';
import {widenedTtl} from '../../src/registry/quota.ts';
import type {Registry} from '../../src/registry/registries.ts';
import type {Quota} from '../../src/upstream/port.ts';
import {createMovableClock, DAY, startBackref} from '../support/backref.ts';
import {headAnswer, manifestAnswer, plainManifest} from '../support/content.ts';
import {askUntilWritten, descriptorOf, fallbackTagOf, listAnswer, referrerOf} from '../support/referrers.ts';
import {createScriptedUpstream, type ScriptedAnswer} from '../support/scripted-upstream.ts';

type Mode = Registry['quota'];

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const policy = {ttl: MINUTE, maxStale: 7 * DAY};
/** Docker Hub's window. */
const quotaOf = (remaining: number): Quota => ({limit: 100, remaining, window: 6 * HOUR});

const ROWS: {
  title: string;
  mode: Mode;
  quota: Quota | undefined;
  changes?: Partial<typeof policy>;
  is: number;
}[] = [
  {title: 'off, with nothing left', mode: 'off', quota: quotaOf(0), is: MINUTE},
  {title: 'gentle, before the upstream reported anything', mode: 'gentle', quota: undefined, is: MINUTE},
  {title: 'gentle, with half of the limit left', mode: 'gentle', quota: quotaOf(50), is: MINUTE},
  // The geometric mean of a minute and 90 minutes.
  {title: 'gentle, with a quarter left', mode: 'gentle', quota: quotaOf(25), is: 569_210},
  {title: 'gentle, with nothing left', mode: 'gentle', quota: quotaOf(0), is: 1.5 * HOUR},
  {title: 'strict, with all of the limit left', mode: 'strict', quota: quotaOf(100), is: MINUTE},
  {title: 'strict, with half left', mode: 'strict', quota: quotaOf(50), is: 1_138_420},
  {title: 'strict, with nothing left', mode: 'strict', quota: quotaOf(0), is: 6 * HOUR},
  {
    title: 'strict, with nothing left of a limit without a window',
    mode: 'strict',
    quota: {...quotaOf(0), window: undefined},
    is: HOUR,
  },
  {
    title: 'strict, with nothing left of a limit for a year',
    mode: 'strict',
    quota: {...quotaOf(0), window: 365 * DAY},
    is: DAY,
  },
  {
    title: 'strict, with a limit of 0, which says nothing',
    mode: 'strict',
    quota: {...quotaOf(0), limit: 0},
    is: MINUTE,
  },
  {
    title: 'strict, with nothing left and a short maxStale',
    mode: 'strict',
    quota: quotaOf(0),
    changes: {maxStale: HOUR},
    is: HOUR,
  },
  {
    title: 'strict, with nothing left and a maxStale below the lifetime',
    mode: 'strict',
    quota: quotaOf(0),
    changes: {maxStale: 0},
    is: MINUTE,
  },
  {title: 'strict, with a lifetime of 0', mode: 'strict', quota: quotaOf(0), changes: {ttl: 0}, is: 0},
];

for (const {title, mode, quota, changes, is} of ROWS) {
  test(`the lifetime is ${is} ms when the quota is ${title}`, (t) => {
    t.is(widenedTtl({...policy, ...changes}, mode, quota), is);
  });
}

const ms = fc.oneof(fc.nat(10), fc.nat(10 ** 6), fc.nat(10 ** 11));
const policies = fc.record({ttl: ms, maxStale: ms});
const modes = fc.constantFrom<Mode>('off', 'gentle', 'strict');
const quotas = fc.record({
  limit: fc.nat(1000),
  remaining: fc.nat(1200),
  window: fc.option(ms, {nil: undefined}),
});

test('a lifetime is never shorter than configured, and widens to maxStale at most', (t) => {
  fc.assert(
    fc.property(policies, modes, quotas, (some, mode, quota) => {
      const ttl = widenedTtl(some, mode, quota);
      return Number.isInteger(ttl) && ttl >= some.ttl && ttl <= Math.max(some.ttl, some.maxStale);
    }),
    {numRuns: 3000},
  );
  t.pass();
});

test('the less is left, the longer the window or the stricter the mode, the longer is a lifetime', (t) => {
  fc.assert(
    fc.property(policies, modes, quotas, fc.nat(1000), ms, (some, mode, quota, fewer, longer) => {
      const ttl = widenedTtl(some, mode, quota);
      const less = {...quota, remaining: Math.max(0, quota.remaining - fewer)};
      const wider = {...quota, window: quota.window && quota.window + longer};
      return (
        widenedTtl(some, mode, less) >= ttl &&
        widenedTtl(some, mode, wider) >= ttl &&
        widenedTtl(some, 'strict', quota) >= ttl &&
        widenedTtl(some, 'off', quota) <= ttl
      );
    }),
    {numRuns: 3000},
  );
  t.pass();
});

test('what is configured to live longer does', (t) => {
  fc.assert(
    fc.property(policies, modes, quotas, ms, (some, mode, quota, more) => {
      const longer = {ttl: some.ttl + more, maxStale: some.maxStale + more};
      return widenedTtl(longer, mode, quota) >= widenedTtl(some, mode, quota);
    }),
    {numRuns: 3000},
  );
  t.pass();
});

const image = plainManifest();
const [signed, unsigned] = [plainManifest(), plainManifest()];
const signature = referrerOf(signed);
const TAG = '/v2/library/app/manifests/1';
const limited = (answer: ScriptedAnswer, remaining: number): ScriptedAnswer => ({
  ...answer,
  headers: {
    ...answer.headers,
    'ratelimit-limit': '100;w=21600',
    'ratelimit-remaining': `${remaining};w=21600`,
  },
});

test('while the limit is running out, a tag lives longer, and Cache-Status says so', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${TAG}`, answer: limited(manifestAnswer(image), 25)},
    {request: `HEAD ${TAG}`, answer: limited(headAnswer(image), 80), times: 2},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}], clock: createMovableClock()});
  const status = async (headers = {}) =>
    (await proxy.ask('/v2/app/manifests/1', {headers})).headers['cache-status'];
  t.is(await status(), 'backref;fwd=uri-miss;stored;ttl=570');
  proxy.clock.move(59_000);
  t.is(await status(), 'backref;hit;ttl=511', 'it would have been a hit in any case');
  proxy.clock.move(5 * MINUTE);
  t.is(await status(), 'backref;hit;ttl=211;detail=quota');
  t.is(
    await status({'cache-control': 'no-cache'}),
    'backref;fwd=request;ttl=60;detail=unchanged',
    'a client may insist; by now more is left',
  );
  proxy.clock.move(MINUTE);
  t.is(await status(), 'backref;fwd=stale;ttl=60;detail=unchanged');
});

test('with quota: off, a tag lives as long as configured', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${TAG}`, answer: limited(manifestAnswer(image), 0)},
    {request: `HEAD ${TAG}`, answer: limited(headAnswer(image), 0)},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: {quota: 'off'}}]});
  await proxy.ask('/v2/app/manifests/1');
  proxy.clock.move(MINUTE);
  const {headers} = await proxy.ask('/v2/app/manifests/1');
  t.is(headers['cache-status'], 'backref;fwd=stale;ttl=60;detail=unchanged');
});

test('a list of referrers lives longer too, but not an empty one: it would hide a new signature', async (t) => {
  const list = (subject: {digest: string}) => `/v2/library/app/referrers/${subject.digest}`;
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: `GET ${list(signed)}`, answer: limited(listAnswer([descriptorOf(signature)]), 0)},
      {request: `GET ${list(unsigned)}`, answer: limited(listAnswer([]), 0), times: 2},
      {request: `GET /v2/library/app/manifests/${fallbackTagOf(signed)}`, answer: {status: 404}},
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {registries: [{url: upstream.url}], clock: createMovableClock()});
  await askUntilWritten(proxy, `/v2/app/referrers/${signed.digest}`);
  await askUntilWritten(proxy, `/v2/app/referrers/${unsigned.digest}`);
  proxy.clock.move(2 * MINUTE);
  const kept = await proxy.ask(`/v2/app/referrers/${signed.digest}`);
  t.is(kept.headers['cache-status'], 'backref;hit;ttl=5280;detail=quota');
  const asked = await proxy.ask(`/v2/app/referrers/${unsigned.digest}`);
  t.is(asked.headers['cache-status'], 'backref;fwd=stale;stored;ttl=5');
});
