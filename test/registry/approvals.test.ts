import test from 'ava';
import {ANONYMOUS, type Caller} from '../../src/caller.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {parseName, parseReference} from '../../src/oci/name.ts';
import {createApprovals, type Wanted} from '../../src/registry/approvals.ts';
import {createEmptyUpstream} from '../../src/upstream/empty.ts';
import {type Upstream, UpstreamFailure} from '../../src/upstream/port.ts';
import {createMovableClock} from '../support/backref.ts';

const DAY = 24 * 60 * 60_000;
const HOUR = 60 * 60_000;
const app = parseName('team/app');
const other = parseName('team/other');
const alice: Caller = {...ANONYMOUS, key: 'alice'};
const bob: Caller = {...ANONYMOUS, key: 'bob'};
const digest = digestOf(Buffer.from('a'));
const TAG = {kind: 'manifest', reference: parseReference('latest')} as const;
const PINNED = {kind: 'manifest', reference: parseReference('v1')} as const;
const BLOB = {kind: 'blob', digest} as const;
const REFERRERS = {kind: 'referrers', subject: digest} as const;
const HEAD = {digest, mediaType: undefined, size: 1};
const FAILURE = new UpstreamFailure('unreachable', 'r.test', 'is gone');
const DENIED = new UpstreamFailure('denied', 'r.test', 'denies access (403)', {status: 403});

/** What the upstream answers to each question, by its method; a failure is thrown. */
function start() {
  const answers: Partial<Record<'headManifest' | 'headBlob' | 'hasTagList' | 'checkLogin', unknown>> = {};
  const asked: string[] = [];
  const answer = async (method: keyof typeof answers, {key}: Caller): Promise<never> => {
    asked.push(`${method} ${key}`);
    const given = answers[method];
    if (given instanceof Error) throw given;
    return given as never;
  };
  const upstream: Upstream = {
    ...createEmptyUpstream('r.test'),
    headManifest: (_name, _reference, caller) => answer('headManifest', caller),
    headBlob: (_name, _digest, caller) => answer('headBlob', caller),
    hasTagList: (_name, caller) => answer('hasTagList', caller),
    checkLogin: (caller) => answer('checkLogin', caller),
  };
  const tags = {ttl: 0, maxStale: DAY, keepDeleted: 0, absentTtl: 0};
  const clock = createMovableClock();
  const tagRules = [
    {matches: (_: unknown, tag: string) => tag === 'v1', policy: {...tags, maxStale: 30 * DAY}},
  ];
  const policies = {tags, tagRules, referrers: {maxStale: HOUR}};
  const approvals = createApprovals({upstream, policies, clock});
  const verdict = async (caller: Caller, wanted: Wanted, name = app) =>
    (await approvals.decide(name, caller, wanted)).verdict;
  return {approvals, answers, asked, clock, verdict};
}

test('what the upstream shows approves one caller in one repository for a minute', async (t) => {
  const {answers, asked, clock, verdict, approvals} = start();
  answers.headBlob = {size: 1};
  t.is(await verdict(alice, BLOB), 'allowed');
  t.is(await verdict(alice, TAG), 'allowed');
  t.true(approvals.has(app, alice));
  t.false(approvals.has(app, bob));
  t.false(approvals.has(other, alice));
  t.deepEqual(asked, ['headBlob alice']);
  await verdict(bob, BLOB);
  await verdict(alice, BLOB, other);
  clock.move(60_000);
  await verdict(alice, BLOB);
  t.deepEqual(asked, ['headBlob alice', 'headBlob bob', 'headBlob alice', 'headBlob alice']);
});

test('questions of one caller at the same time are one', async (t) => {
  const {answers, asked, verdict} = start();
  answers.headManifest = HEAD;
  t.deepEqual(await Promise.all([verdict(alice, TAG), verdict(alice, REFERRERS)]), ['allowed', 'allowed']);
  t.deepEqual(asked, ['headManifest alice']);
});

test('where the content is not there, the list of tags decides, and nothing of that is remembered', async (t) => {
  const {answers, asked, verdict} = start();
  answers.hasTagList = true;
  t.is(await verdict(alice, TAG), 'allowed');
  answers.hasTagList = false;
  t.is(await verdict(bob, TAG), 'unknown');
  t.is(await verdict(bob, {kind: 'tags'}), 'unknown');
  t.deepEqual(asked, [
    'headManifest alice',
    'hasTagList alice',
    'headManifest bob',
    'hasTagList bob',
    'hasTagList bob',
  ]);
});

test('while the upstream cannot be asked, an approval counts for as long as what is wanted may be stale', async (t) => {
  const {answers, clock, verdict} = start();
  answers.headManifest = HEAD;
  await verdict(alice, TAG);
  Object.assign(answers, {headManifest: FAILURE, headBlob: FAILURE, hasTagList: FAILURE});
  for (const wanted of [TAG, BLOB, REFERRERS, {kind: 'tags'} as const])
    await t.throwsAsync(verdict(bob, wanted), {is: FAILURE});
  clock.move(HOUR - 1);
  t.is(await verdict(alice, REFERRERS), 'allowed');
  clock.move(1);
  await t.throwsAsync(verdict(alice, REFERRERS), {is: FAILURE});
  t.is(await verdict(alice, TAG), 'allowed');
  clock.move(DAY);
  await t.throwsAsync(verdict(alice, TAG), {is: FAILURE});
  await t.throwsAsync(verdict(alice, BLOB), {is: FAILURE});
  t.is(await verdict(alice, PINNED), 'allowed');
});

test('a denial, and an absence, end an approval', async (t) => {
  for (const [last, verdictThen] of [
    [DENIED, 'denied'],
    [undefined, 'unknown'],
  ] as const) {
    const {answers, clock, verdict} = start();
    answers.headManifest = HEAD;
    await verdict(alice, TAG);
    clock.move(60_000);
    answers.headManifest = last;
    t.is(await verdict(alice, TAG), verdictThen);
    answers.headManifest = FAILURE;
    await t.throwsAsync(verdict(alice, TAG), {is: FAILURE});
  }
});

test('an absence is witnessed by what the caller was approved for', async (t) => {
  const {answers, asked, clock, verdict, approvals} = start();
  await approvals.witness(app, alice);
  answers.headBlob = {size: 1};
  await verdict(alice, BLOB);
  await approvals.witness(app, alice);
  clock.move(5000);
  await approvals.witness(app, alice);
  t.deepEqual(asked, ['headBlob alice', 'headBlob alice']);
  clock.move(5000);
  answers.headBlob = undefined;
  await t.throwsAsync(approvals.witness(app, alice), {message: /no longer lets this caller pull/});
  t.false(approvals.has(app, alice));
});

test('a login that is accepted is not checked again for a minute', async (t) => {
  const {answers, asked, clock, approvals} = start();
  t.is(await approvals.login(alice), 'accepted');
  t.is(await approvals.login(alice), 'accepted');
  clock.move(60_000);
  answers.checkLogin = DENIED;
  t.is(await approvals.login(alice), 'refused');
  answers.checkLogin = FAILURE;
  t.is(await approvals.login(alice), 'unasked');
  t.is(asked.length, 3);
});
