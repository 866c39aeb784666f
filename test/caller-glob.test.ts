import test from 'ava';
import {kindOfName, parseCallerGlob} from '../src/caller-glob.ts';

const matches = (glob: string, name: string): boolean | undefined => parseCallerGlob(glob)?.matches(name);

const cases: [glob: string, matching: string[], others: string[]][] = [
  ['anonymous', ['anonymous'], ['anonymous2', 'user:anonymous']],
  ['user:alice', ['user:alice'], ['user:alic', 'user:alice2', 'USER:alice']],
  ['user:*', ['user:alice', 'user:', 'user:a.b@c'], ['users:alice', 'user', 'user:a/b']],
  [
    'gha:repository=org/*',
    ['gha:repository=org/app'],
    ['gha:repository=org/a/b', 'gha:repository=organ/app'],
  ],
  ['gha:repository=org/**', ['gha:repository=org/app', 'gha:repository=org/a/b'], ['gha:repository=org']],
  [
    'gha:sub=repo:org/**:ref:refs/tags/*',
    ['gha:sub=repo:org/a/b:ref:refs/tags/v1'],
    ['gha:sub=repo:org/a:ref:refs/tags/v/1'],
  ],
  ['user:?', ['user:a', 'user:ä', 'user:😀'], ['user:', 'user:ab', 'user:/']],
  ['k8s:a=[x](y)+.{z}', ['k8s:a=[x](y)+.{z}'], ['k8s:a=x']],
  ['*', ['anonymous', 'gha:repository=org/app', ''], []],
  ['**', ['anonymous', 'gha:repository=org/app'], []],
  ['*:*b', ['user:ab', 'x:b'], ['user:ba', 'user']],
];

for (const [glob, matching, others] of cases)
  test(`${glob} matches names in full`, (t) => {
    for (const name of matching) t.true(matches(glob, name), name);
    for (const name of others) t.false(matches(glob, name), name);
  });

test('an empty, overlong or unprintable pattern is none', (t) => {
  for (const glob of ['', 'a'.repeat(513), 'user:a\nb', 'user:\u0000'])
    t.is(parseCallerGlob(glob), undefined, JSON.stringify(glob));
});

test('no pattern makes matching slow', (t) => {
  const glob = `${'*a'.repeat(250)}b`;
  // Backtracking would not end.
  t.false(matches(glob, 'a'.repeat(2000)));
});

test('the kind of a name is what comes before its first colon', (t) => {
  t.is(kindOfName('gha:sub=a:b'), 'gha');
  t.is(kindOfName('anonymous'), 'anonymous');
});
