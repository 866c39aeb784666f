import test from 'ava';
import {ClaimFault, demandClaims, namesOf} from '../../src/identity/claims.ts';

test('texts, numbers, true, false and the items of lists make names, the subject first', (t) => {
  const claims = {
    iss: 'https://issuer.test',
    aud: 'backref',
    exp: 2_000_000_000,
    iat: 1,
    nbf: 1,
    jti: 'one',
    repository: 'org/app',
    ref_protected: true,
    run_attempt: 1,
    groups: ['dev', 'ops', {nested: 'no'}, 'dev'],
    address: {country: 'CH'},
    nothing: null,
    sub: 'repo:org/app',
  };
  t.deepEqual(namesOf('gha', claims, undefined), [
    'gha:sub=repo:org/app',
    'gha:repository=org/app',
    'gha:ref_protected=true',
    'gha:run_attempt=1',
    'gha:groups=dev',
    'gha:groups=ops',
  ]);
});

test('of a token of Kubernetes, the namespace and the names of its objects make names', (t) => {
  const claims = {
    sub: 'system:serviceaccount:team:app',
    'kubernetes.io': {
      namespace: 'team',
      node: {name: 'node-1', uid: '1'},
      pod: {name: 'app-5d', uid: '2'},
      serviceaccount: {name: 'app', uid: '3'},
    },
  };
  t.deepEqual(namesOf('k8s', claims, undefined), [
    'k8s:sub=system:serviceaccount:team:app',
    'k8s:namespace=team',
    'k8s:node=node-1',
    'k8s:pod=app-5d',
    'k8s:serviceaccount=app',
  ]);
});

test('where claims are listed, only they and the subject make names', (t) => {
  const claims = {
    sub: 'a',
    ref: 'main',
    actor: 'eve',
    'kubernetes.io': {namespace: 'team', pod: {name: 'x'}},
  };
  t.deepEqual(namesOf('gha', claims, ['ref', 'namespace', 'missing']), [
    'gha:sub=a',
    'gha:ref=main',
    'gha:namespace=team',
  ]);
});

test('a token with more values than a rule could rely on is refused', (t) => {
  const groups = Array.from({length: 256}, (_, index) => `group-${index}`);
  t.is(namesOf('idp', {sub: 'a', groups: groups.slice(1)}, undefined).length, 256);
  t.throws(() => namesOf('idp', {sub: 'a', groups}, undefined), {
    instanceOf: ClaimFault,
    message: /more than 256 values of claims: list those that rules need/,
  });
  t.is(namesOf('idp', {sub: 'a', groups}, ['email']).length, 1);
});

for (const [what, claims] of [
  ['a control character in a value', {ref: 'main\nadmin'}],
  ['a control character in a claim', {'a\u0000': 'b'}],
  ['a number that is not exact', {id: 2 ** 53}],
  ['a control character in the subject', {sub: 'a\tb'}],
] as const)
  test(`a token with ${what} is refused`, (t) => {
    t.throws(() => namesOf('idp', {sub: 'a', ...claims}, undefined), {instanceOf: ClaimFault});
  });

test('required claims must have a value that matches, of a list one item', (t) => {
  const claims = {
    sub: 'a',
    repository_owner: 'org',
    groups: ['dev', 'ops'],
    run: 1,
    'kubernetes.io': {namespace: 'team-a'},
  };
  for (const required of [
    {},
    {repository_owner: 'org'},
    {groups: 'o*', run: '1'},
    {namespace: 'team-*', sub: '?'},
  ] as Record<string, string>[])
    t.notThrows(() => demandClaims(claims, required), JSON.stringify(required));
  for (const required of [
    {repository_owner: 'organization'},
    {repository_owner: 'org', groups: 'admin'},
    {missing: '**'},
    {toString: '**'},
    {namespace: 'team-b'},
  ] as Record<string, string>[])
    t.throws(() => demandClaims(claims, required), {
      instanceOf: ClaimFault,
      message: /does not have the claim/,
    });
});
