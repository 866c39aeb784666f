import test from 'ava';
import {digestOf} from '../../src/oci/digest.ts';
import {parseImageGlob, parseRepositoryGlob} from '../../src/oci/image-glob.ts';
import {parseReference} from '../../src/oci/name.ts';

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
