import test from 'ava';
import {ANONYMOUS, type Caller} from '../../src/caller.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {parseName, parseReference} from '../../src/oci/name.ts';
import {OwnLogin} from '../../src/own-login.ts';
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
  const answers: Partial<
    Record<'headManifest' | 'headBlob' | 'hasTags' | 'listReferrers' | 'checkLogin', unknown>
  > = {};
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
    hasTags: (_name, caller) => answer('hasTags', caller),
    listReferrers: (_name, _subject, caller) => answer('listReferrers', caller),
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

test('equal questions of one caller at the same time are one', async (t) => {
  const {answers, asked, verdict} = start();
  answers.headManifest = HEAD;
  t.deepEqual(await Promise.all([verdict(alice, TAG), verdict(alice, TAG)]), ['allowed', 'allowed']);
  t.deepEqual(asked, ['headManifest alice']);
});

test('the list of tags is one thing, and content another', async (t) => {
  const {answers, asked, verdict, approvals} = start();
  answers.hasTags = true;
  t.is(await verdict(alice, {kind: 'tags'}), 'allowed');
  t.false(approvals.has(app, alice));
  for (const wanted of [TAG, BLOB]) t.is(await verdict(alice, wanted), 'unknown');
  answers.hasTags = false;
  t.is(await verdict(bob, {kind: 'tags'}), 'unknown');
  t.deepEqual(asked, ['hasTags alice', 'headManifest alice', 'headBlob alice', 'hasTags bob']);
});

test('an absence is not remembered', async (t) => {
  const {answers, verdict} = start();
  t.is(await verdict(alice, TAG), 'unknown');
  answers.headManifest = HEAD;
  t.is(await verdict(alice, TAG), 'allowed');
});

test('referrers that the upstream lists approve as their subject does', async (t) => {
  const {answers, verdict} = start();
  answers.listReferrers = {descriptors: [], skipped: []};
  t.is(await verdict(alice, REFERRERS), 'unknown');
  answers.listReferrers = 'no-api';
  t.is(await verdict(alice, REFERRERS), 'unknown');
  answers.listReferrers = {descriptors: [{digest, mediaType: 'x/y', size: 1}], skipped: []};
  t.is(await verdict(alice, REFERRERS), 'allowed');
});

test('while the upstream cannot be asked, an approval counts for as long as what is wanted may be stale', async (t) => {
  const {answers, clock, verdict} = start();
  answers.headManifest = HEAD;
  await verdict(alice, TAG);
  Object.assign(answers, {headManifest: FAILURE, headBlob: FAILURE, hasTags: FAILURE});
  for (const wanted of [TAG, BLOB, REFERRERS, {kind: 'tags'} as const])
    await t.throwsAsync(verdict(bob, wanted), {is: FAILURE});
  await t.throwsAsync(verdict(alice, {kind: 'tags'}), {is: FAILURE});
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
    clock.move(5000);
    answers.headManifest = FAILURE;
    await t.throwsAsync(verdict(alice, TAG), {is: FAILURE});
  }
});

for (const [what, failure] of Object.entries({
  'another client error': new UpstreamFailure('status', 'r.test', 'answered 423', {status: 423}),
  'a page that is not its own': new UpstreamFailure('protocol', 'r.test', 'sent an HTML page'),
  'a rate limit': new UpstreamFailure('throttled', 'r.test', 'limits our rate'),
  'a refusal of its token service': new UpstreamFailure('token', 'r.test', 'answered 400', {status: 400}),
}))
  test(`${what} is not an outage`, async (t) => {
    const {answers, clock, verdict} = start();
    answers.headManifest = HEAD;
    await verdict(alice, TAG);
    clock.move(60_000);
    answers.headManifest = failure;
    await t.throwsAsync(verdict(alice, TAG), {is: failure});
  });

test('what is not there ends no approval that something else still shows', async (t) => {
  const {answers, asked, clock, verdict} = start();
  answers.headBlob = {size: 1};
  await verdict(alice, BLOB);
  clock.move(60_000);
  t.is(await verdict(alice, TAG), 'allowed');
  t.deepEqual(asked, ['headBlob alice', 'headManifest alice', 'headBlob alice']);
  clock.move(60_000);
  answers.headManifest = DENIED;
  t.is(await verdict(alice, TAG), 'denied');
  t.is(await verdict(alice, BLOB), 'allowed');
  clock.move(60_000);
  answers.headBlob = undefined;
  answers.headManifest = undefined;
  t.is(await verdict(alice, TAG), 'unknown');
  Object.assign(answers, {headManifest: FAILURE, headBlob: FAILURE});
  await t.throwsAsync(verdict(alice, BLOB), {is: FAILURE});
});

test('what is refused is not served because the next question fails', async (t) => {
  for (const refused of [DENIED, undefined]) {
    const {answers, clock, verdict} = start();
    answers.headBlob = {size: 1};
    await verdict(alice, BLOB);
    clock.move(60_000);
    Object.assign(answers, {headManifest: refused, headBlob: FAILURE});
    t.is(await verdict(alice, TAG), refused ? 'denied' : 'unknown');
  }
});

test('a refused login ends all that it was approved for', async (t) => {
  const {answers, clock, verdict, approvals} = start();
  const login = new OwnLogin('r.test', 'r.test', {username: 'alice', password: 'sesame'});
  const carol = {...ANONYMOUS, key: 'carol', login};
  answers.headManifest = HEAD;
  for (const name of [app, other]) await verdict(carol, TAG, name);
  clock.move(60_000);
  answers.headManifest = new UpstreamFailure('denied', 'r.test', 'refuses the login (401)', {status: 401});
  t.is(await verdict(carol, TAG), 'denied');
  answers.headManifest = FAILURE;
  await t.throwsAsync(verdict(carol, TAG, other), {is: FAILURE});
  t.false(approvals.has(other, carol));
});

test('an absence is witnessed by what the caller was approved for', async (t) => {
  const {answers, asked, clock, verdict, approvals} = start();
  const hidden = {message: /does not show this caller the content of team\/app/};
  await t.throwsAsync(approvals.witness(app, alice, 'content'), hidden);
  answers.headBlob = {size: 1};
  await verdict(alice, BLOB);
  await approvals.witness(app, alice, 'content');
  await t.throwsAsync(approvals.witness(app, alice, 'tags'));
  clock.move(5000);
  await approvals.witness(app, alice, 'content');
  t.deepEqual(asked, ['headBlob alice', 'headBlob alice']);
  clock.move(5000);
  answers.headBlob = undefined;
  for (const _ of [1, 2]) await t.throwsAsync(approvals.witness(app, alice, 'content'), hidden);
  t.false(approvals.has(app, alice));
});

test('what a caller wrote approves nothing, and can witness an absence', async (t) => {
  const {answers, approvals, verdict, asked} = start();
  approvals.wrote(app, alice, TAG.reference);
  t.false(approvals.has(app, alice));
  t.is(await verdict(alice, BLOB), 'unknown');
  await t.throwsAsync(approvals.witness(app, alice, 'content'));
  answers.headManifest = HEAD;
  approvals.wrote(app, alice, TAG.reference);
  await approvals.witness(app, alice, 'content');
  t.true(asked.includes('headManifest alice'));
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
