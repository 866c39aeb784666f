import test from 'ava';
import {digestOf} from '../../src/oci/digest.ts';
import {
  parseImageGlob,
  parseNameGlob,
  parsePlaceGlob,
  parseRepositoryGlob,
  parseTagGlob,
} from '../../src/oci/image-glob.ts';
import {parseName, parseReference, type Tag} from '../../src/oci/name.ts';

const digest = digestOf(Buffer.from('hello'));
const matches = (glob: string, name: string, ...references: string[]) =>
  parseImageGlob(glob)?.matches('docker.io', name, references.map(parseReference));

test('a star stands for one path component, two stars for any number of them', (t) => {
  t.true(matches('docker.io/library/*', 'library/alpine'));
  t.false(matches('docker.io/library/*', 'library/a/b'));
  t.true(matches('docker.io/**', 'library/alpine'));
  t.true(matches('*/**', 'library/alpine'));
  t.true(matches('docker.io/library/{alpine,busybox}', 'library/busybox'));
  t.false(matches('docker.io/library/[b-z]*', 'library/alpine'));
  t.false(matches('ghcr.io/**', 'library/alpine'));
});

test('a pattern without a tag matches an image whatever its tags are', (t) => {
  t.true(matches('docker.io/library/alpine', 'library/alpine'));
  t.true(matches('docker.io/library/alpine', 'library/alpine', digest, '3.20'));
});

test('a pattern with a tag matches an image that has such a tag', (t) => {
  t.true(matches('docker.io/library/alpine:3.*', 'library/alpine', digest, 'latest', '3.20'));
  t.false(matches('docker.io/library/alpine:3.*', 'library/alpine', digest, 'latest'));
  t.false(matches('docker.io/library/alpine:*', 'library/alpine', digest));
});

test('a pattern with a digest matches that image', (t) => {
  t.true(matches(`docker.io/library/alpine@${digest}`, 'library/alpine', digest, 'latest'));
  t.false(matches(`docker.io/library/alpine@${digest}`, 'library/alpine', digestOf(Buffer.from('other'))));
});

test('a port is not a tag', (t) => {
  const port = parseImageGlob('registry.local:5000/app');
  t.true(port?.matches('registry.local:5000', 'app', []));
});

test('anything else is not a pattern', (t) => {
  for (const text of [
    '',
    'alpine',
    'registry.local:5000',
    'a/[b',
    'a/{b',
    'a/b}',
    'a/b:',
    'a/b@latest',
    'a/ b',
    'a/(b|c)',
  ])
    t.is(parseImageGlob(text), undefined, text);
  t.is(parseImageGlob(`a/${'b'.repeat(2000)}`), undefined);
});

test('a pattern for repositories has neither tag nor digest', (t) => {
  t.true(parseRepositoryGlob('ghcr.io/team/*')?.matches('ghcr.io', 'team/app'));
  t.is(parseRepositoryGlob('ghcr.io/team/app:1'), undefined);
  t.is(parseRepositoryGlob(`ghcr.io/team/app@${digest}`), undefined);
  t.truthy(parseRepositoryGlob('registry.local:5000/app'));
});

const NAMES: [glob: string, name: string, matches: boolean][] = [
  ['library/*', 'library/alpine', true],
  ['library/*', 'library/a/b', false],
  ['library/*', 'alpine', false],
  ['**', 'library/a/b', true],
  ['*', 'alpine', true],
  ['*', 'library/alpine', false],
  ['team/**', 'team/a/b', true],
  ['team/**', 'teams/a', false],
  ['**/app', 'team/a/app', true],
  ['{team,org}/app-?', 'org/app-1', true],
  ['team/app', 'team/app', true],
  ['team/app', 'team/app/deep', false],
  ['docker.io/library/*', 'library/alpine', false],
];

for (const [glob, name, expected] of NAMES)
  test(`${glob} ${expected ? 'matches' : 'does not match'} the repository ${name}`, (t) => {
    t.is(parseNameGlob(glob)?.matches(parseName(name)), expected);
  });

const TAGS: [glob: string, image: string, matches: boolean][] = [
  ['v[0-9]*', 'library/nginx:v1.27.0', true],
  ['v[0-9]*', 'library/nginx:version', false],
  ['[0-9]*.[0-9]*.[0-9]*', 'library/nginx:1.27', false],
  ['[0-9]*.[0-9]*.[0-9]*', 'library/nginx:1.27.0-alpine', true],
  ['latest', 'app:latest', true],
  ['*', 'team/app:_hidden', true],
  ['library/nginx:1.*', 'library/nginx:1.27', true],
  ['library/nginx:1.*', 'library/httpd:1.27', false],
  ['library/nginx:1.*', 'library/nginx:2.0', false],
  ['team/**:*', 'team/a/b:x', true],
  ['team/**:{a,b}', 'team/a:c', false],
];

for (const [glob, image, expected] of TAGS)
  test(`${glob} ${expected ? 'matches' : 'does not match'} the tag ${image}`, (t) => {
    const [name = '', tag = ''] = image.split(':');
    t.is(parseTagGlob(glob)?.matches(parseName(name), tag as Tag), expected);
  });

test('anything else is not a pattern for repositories of one registry, or for tags', (t) => {
  for (const text of ['', 'a:1', 'a b', 'a/[b', `a@${digest}`, 'r.test:5000/app'])
    t.is(parseNameGlob(text), undefined, text);
  for (const text of ['', 'library/nginx', ':1', 'a:', 'a:b:c', 'a/{b:1', 'v[0', 'r.test:5000/app', 'a@b'])
    t.is(parseTagGlob(text), undefined, text);
});

test('a text that is longer than any name and tag matches nothing, in no time', (t) => {
  const isTag = parsePlaceGlob('apps.local/**:v*.*.*')?.matchesTag;
  t.true(isTag?.('v1.2.3'));
  t.false(isTag?.(`v${'.'.repeat(8000)}//`));
  t.false(parseRepositoryGlob('docker.io/**')?.matches('docker.io', 'a/'.repeat(400)));
});
