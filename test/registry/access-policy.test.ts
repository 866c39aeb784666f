import test from 'ava';
import fc from 'fast-check';
import {type Action, ANONYMOUS, type Caller} from '../../src/caller.ts';
import {type AccessSettings, createAccessPolicy, WITHOUT_RULES} from '../../src/registry/access-policy.ts';
import type {Place} from '../../src/registry/access-rules.ts';

const ACTIONS: readonly Action[] = ['pull', 'push', 'delete', 'attach', 'admin'];

const named = (...names: [string, ...string[]]): Caller => ({...ANONYMOUS, isLocal: false, names});
const ALICE = named('user:alice');
const robot = (may: Action[], ...on: string[]): Caller => ({...named('robot:ci'), bound: {may, on}});

/** `registry/repository:tag`, `registry/repository`, or a registry. */
function place(text: string): Place {
  const [, registry, repository, tag] = /^([^/]+)(?:\/([^:]+))?(?::(.+))?$/.exec(text) ?? [];
  return {registry, repository, tag};
}

const policyOf = (
  rules: AccessSettings['rules'],
  more: Partial<Pick<AccessSettings, 'mode' | 'groups'>> = {},
) => createAccessPolicy({mode: 'enforce', groups: {}, ...more, rules});

type Rule = NonNullable<AccessSettings['rules']>[number];
const rule = (who: string, where: string, ...may: Action[]): Rule => ({
  who: who.split(' '),
  where: where.split(' '),
  may,
});

/** The actions that a caller may do at a place. */
const allowed = (rules: AccessSettings['rules'], caller: Caller, at: string): string =>
  ACTIONS.filter((action) => policyOf(rules).decide(caller, place(at), action).isAllowed).join(' ');

const EXAMPLE = [
  rule('user:ci robot:*', 'apps.local/team-*/**', 'pull', 'push', 'delete'),
  rule('gha:repository=org/*', 'apps.local/org/**', 'pull', 'attach'),
  rule('anonymous user:*', 'docker.io/**', 'pull'),
];

const cases: [caller: Caller, at: string, allowed: string][] = [
  [named('user:ci'), 'apps.local/team-a/x:1', 'pull push delete attach'],
  [named('user:ci'), 'apps.local/other/x:1', ''],
  [named('user:ci'), 'docker.io/library/alpine:3', 'pull'],
  [ALICE, 'docker.io/library/alpine', 'pull'],
  [ALICE, 'apps.local/team-a/x', ''],
  [ANONYMOUS, 'docker.io/library/alpine', 'pull'],
  [ANONYMOUS, 'apps.local/org/x', ''],
  [named('gha:sub=a', 'gha:repository=org/app'), 'apps.local/org/x', 'pull attach'],
  [named('gha:sub=a', 'gha:repository=organ/app'), 'apps.local/org/x', ''],
  [named('gha:sub=a', 'gha:repository=org/app/x'), 'apps.local/org/x', ''],
];

for (const [caller, at, expected] of cases)
  test(`${caller.names.join(' ')} may ${expected || 'do nothing'} at ${at}`, (t) => {
    t.is(allowed(EXAMPLE, caller, at), expected);
  });

test('the first rule that matches the caller and the place decides alone, whatever later ones allow', (t) => {
  const rules = [
    rule('user:alice', 'apps.local/secret/**'),
    rule('user:*', 'apps.local/**', 'pull', 'push'),
    rule('*', '**', 'pull', 'delete'),
  ];
  t.is(allowed(rules, ALICE, 'apps.local/secret/x'), '');
  t.is(allowed(rules, ALICE, 'apps.local/x'), 'pull push attach');
  t.is(allowed(rules, named('user:bob'), 'apps.local/secret/x'), 'pull push attach');
  t.is(allowed(rules, ANONYMOUS, 'apps.local/x'), 'pull delete');
});

test('a local caller is an anonymous one where there are rules, whatever the listener', (t) => {
  t.true(ANONYMOUS.isLocal);
  t.is(allowed([rule('user:*', '**', 'pull')], ANONYMOUS, 'apps.local/x'), '');
});

test('without rules everybody may pull and read the metrics, and local callers may do everything', (t) => {
  const may = (caller: Caller) =>
    ACTIONS.filter((action) => WITHOUT_RULES.decide(caller, place('apps.local/x'), action).isAllowed).join(
      ' ',
    );
  t.is(may(ANONYMOUS), 'pull push delete attach admin');
  t.is(may({...ANONYMOUS, isLocal: false}), 'pull admin');
  t.is(may(ALICE), 'pull admin');
});

test('who may push may attach, and not the other way round', (t) => {
  t.is(allowed([rule('*', '**', 'push')], ALICE, 'apps.local/x'), 'push attach');
  t.is(allowed([rule('*', '**', 'attach')], ALICE, 'apps.local/x'), 'attach');
});

const TAGS = [rule('*', 'apps.local/x:v*', 'pull', 'push', 'delete'), rule('*', 'apps.local/y', 'pull')];
const subject = 'a'.repeat(64);

test('a rule for tags decides about the requests that name such a tag', (t) => {
  t.is(allowed(TAGS, ALICE, 'apps.local/x:v1'), 'pull push delete attach');
  t.is(allowed(TAGS, ALICE, 'apps.local/x:main'), '');
  t.is(allowed(TAGS, ALICE, 'apps.local/y:v1'), 'pull');
});

test('a rule for tags allows what names no tag, but no deletion, which would take every tag', (t) => {
  t.is(allowed(TAGS, ALICE, 'apps.local/x'), 'pull push attach');
});

test('the tags that belong to a digest are as good as the digest, but for their deletion', (t) => {
  for (const tag of [`sha256-${subject}`, `sha256-${subject}.sig`])
    t.is(allowed(TAGS, ALICE, `apps.local/x:${tag}`), 'pull push attach', tag);
  t.is(allowed(TAGS, ALICE, `apps.local/x:sha256-${subject.slice(1)}`), '');
});

test('a rule that protects tags keeps manifests from being deleted by digest, and nothing from being pushed by it', (t) => {
  const rules = [
    rule('*', 'apps.local/**:prod-*', 'pull'),
    rule('*', 'apps.local/**', 'pull', 'push', 'delete'),
  ];
  t.is(allowed(rules, ALICE, 'apps.local/x:prod-1'), 'pull');
  t.is(allowed(rules, ALICE, 'apps.local/x:dev-1'), 'pull push delete attach');
  t.is(allowed(rules, ALICE, 'apps.local/x'), 'pull push attach');
  const ruling = policyOf(rules).decide(ALICE, place('apps.local/x'), 'delete');
  t.regex(
    String(!ruling.isAllowed && ruling.reason),
    /delete apps\.local\/x: without a tag, that could delete tags/,
  );
});

test('a registry as a whole is open to those whom some rule allows something there', (t) => {
  const rules = [
    rule('user:alice', 'apps.local/secret/**'),
    rule('user:*', 'apps.local/team/**', 'pull'),
    rule('user:*', '{quay.io/a,ghcr.io/b}/**', 'pull'),
  ];
  t.is(allowed(rules, ALICE, 'apps.local'), 'pull');
  t.is(allowed(rules, ANONYMOUS, 'apps.local'), '');
  t.is(allowed(rules.slice(0, 2), ALICE, 'docker.io'), '');
  t.is(allowed(rules, ALICE, 'quay.io'), 'pull');
  const anywhere = {registry: undefined, repository: undefined, tag: undefined};
  t.true(policyOf(rules).decide(ALICE, anywhere, 'pull').isAllowed);
  t.false(policyOf(rules).decide(ANONYMOUS, anywhere, 'pull').isAllowed);
});

test('a group is a further name of its members', (t) => {
  const groups = {dev: ['user:alice', 'gha:repository=org/*']};
  const policy = policyOf([rule('group:dev', 'apps.local/**', 'pull')], {groups});
  const may = (caller: Caller) => policy.decide(caller, place('apps.local/x'), 'pull').isAllowed;
  t.true(may(ALICE));
  t.true(may(named('gha:sub=1', 'gha:repository=org/app')));
  t.true(may(named('user:carol', 'group:dev')));
  t.false(may(named('user:bob')));
  t.false(may(ANONYMOUS));
});

test("a robot's token grants what no rule is about, and bounds what rules allow", (t) => {
  const ci = robot(['pull', 'push'], 'apps.local/team/**');
  const cases: [rules: AccessSettings['rules'], at: string, allowed: string][] = [
    [undefined, 'apps.local/team/x', 'pull push attach'],
    [undefined, 'docker.io/library/alpine', ''],
    [[rule('user:*', '**', 'pull')], 'apps.local/team/x', 'pull push attach'],
    [[rule('robot:*', '**', 'pull', 'delete')], 'apps.local/team/x', 'pull'],
    [[rule('robot:*', '**', 'pull')], 'apps.local/other/x', ''],
    [[rule('robot:ci', 'apps.local/team/x')], 'apps.local/team/x', ''],
    [[rule('robot:ci', 'apps.local/team/x')], 'apps.local/team/y', 'pull push attach'],
    [[rule('robot:ci', 'docker.io/**', 'pull')], 'apps.local', 'pull push attach'],
  ];
  for (const [rules, at, expected] of cases)
    t.is(allowed(rules, ci, at), expected, `${JSON.stringify(rules)} ${at}`);
});

test('a denial names the rule that decides, or that there is none, and what is denied to whom', (t) => {
  const reasonOf = (caller: Caller, at: string, action: Action, policy = policyOf(EXAMPLE)) => {
    const ruling = policy.decide(caller, place(at), action);
    return ruling.isAllowed ? undefined : ruling.reason;
  };
  t.is(
    reasonOf(ALICE, 'docker.io/library/alpine:3', 'push'),
    'rule 3 of access.rules (who: anonymous, user:*; where: docker.io/**; may: pull) does not allow user:alice to push docker.io/library/alpine:3',
  );
  t.is(
    reasonOf(ALICE, 'apps.local/x', 'pull'),
    'no rule of access.rules allows user:alice to pull apps.local/x',
  );
  t.is(
    reasonOf(robot(['pull'], 'apps.local/**'), 'docker.io/library/a', 'pull'),
    'the token of robot:ci (may: pull; on: apps.local/**) is not for this: it cannot pull docker.io/library/a',
  );
  t.regex(
    String(reasonOf(ALICE, 'apps.local/x', 'push', WITHOUT_RULES)),
    /only through a listener .* loopback/,
  );
});

test('mode audit allows what is allowed without rules, and says what the rules would deny', (t) => {
  const policy = policyOf([rule('user:bob', '**', 'push')], {mode: 'audit'});
  t.deepEqual(policy.decide(ALICE, place('apps.local/x'), 'pull'), {
    isAllowed: true,
    audited: 'no rule of access.rules allows user:alice to pull apps.local/x',
  });
  t.false(policy.decide(ALICE, place('apps.local/x'), 'push').isAllowed);
  t.true(policy.decide({...ALICE, isLocal: true}, place('apps.local/x'), 'push').isAllowed);
  t.deepEqual(policy.decide(named('user:bob'), place('apps.local/x'), 'push'), {
    isAllowed: true,
    audited: undefined,
  });
  t.true(policy.isOpenTo(ALICE));
  t.is(policy.tagFilter(ALICE, place('apps.local/x')), undefined);
  t.true(policy.repositoryFilter(ALICE, 'apps.local')?.('x'));
});

test('names that hold what separates names are not taken for others', (t) => {
  const policy = policyOf([rule('group:admin', '**', 'push')]);
  const names = ['user:x', 'gha:a=1", "group:admin'] as const;
  t.true(policy.decide(named('user:x', 'group:admin'), place('apps.local/x'), 'push').isAllowed);
  t.false(policy.decide(named(...names), place('apps.local/x'), 'push').isAllowed);
  t.false(
    policy.decide(named('user:x'), {...place('apps.local/x'), tag: '1 ["group:admin"]'}, 'push').isAllowed,
  );
});

test('a tag called undefined is a tag', (t) => {
  const policy = policyOf([rule('*', 'apps.local/x:v*', 'pull')]);
  t.true(policy.decide(ALICE, place('apps.local/x'), 'pull').isAllowed);
  t.false(policy.decide(ALICE, place('apps.local/x:undefined'), 'pull').isAllowed);
});

const anyRule = fc.record({
  who: fc.subarray(['anonymous', 'user:alice', 'user:*', 'robot:*', 'group:dev', '*'], {minLength: 1}),
  where: fc.subarray(['**', 'r.test/**', 'r.test/a', 'r.test/*:v*', 'r.test/a:v1', 's.test/*'], {
    minLength: 1,
  }),
  may: fc.subarray([...ACTIONS]),
});
const anyCaller = fc.constantFrom<Caller>(
  ANONYMOUS,
  ALICE,
  named('user:bob'),
  robot(['pull', 'push'], 'r.test/a'),
  robot(['pull'], 'r.test/*:v1'),
);
const anyMode = fc.constantFrom('enforce' as const, 'audit' as const);

test('lists show a tag or repository exactly if a pull of it is allowed', (t) => {
  fc.assert(
    fc.property(
      fc.array(anyRule, {minLength: 1, maxLength: 5}),
      anyCaller,
      anyMode,
      (rules, caller, mode) => {
        const policy = policyOf(rules, {mode, groups: {dev: ['user:alice']}});
        const may = (at: string) => policy.decide(caller, place(at), 'pull').isAllowed;
        for (const registry of ['r.test', 's.test']) {
          const isVisible = policy.repositoryFilter(caller, registry) ?? (() => false);
          for (const name of ['a', 'b', 'a/b']) t.is(isVisible(name), may(`${registry}/${name}`), name);
        }
        if (!may('r.test/a')) return;
        const isVisible = policy.tagFilter(caller, place('r.test/a')) ?? (() => true);
        for (const tag of ['v1', 'v2', 'main', `sha256-${subject}`])
          t.is(isVisible(tag), may(`r.test/a:${tag}`), tag);
      },
    ),
  );
});

test('an explanation ends with the rule that decides, and its ruling is the decision', (t) => {
  const policy = policyOf(EXAMPLE);
  const {ruling, names, steps} = policy.explain(ALICE, place('docker.io/library/alpine'), 'pull');
  t.true(ruling.isAllowed);
  t.deepEqual(names, ['user:alice']);
  t.deepEqual(
    steps.map(({rule: number, match}) => [number, match]),
    [
      [1, 'caller'],
      [2, 'caller'],
      [3, 'decides'],
    ],
  );
  const denied = policy.explain(named('user:ci'), place('apps.local/x'), 'pull');
  t.false(denied.ruling.isAllowed);
  t.deepEqual(
    denied.steps.map(({match}) => match),
    ['place', 'caller', 'place'],
  );
});
