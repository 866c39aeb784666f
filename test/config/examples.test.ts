import {readdir, readFile} from 'node:fs/promises';
import test from 'ava';
import {checkAccess} from '../../src/access-check.ts';
import {loadConfig} from '../../src/config/load.ts';
import {AUTHORITY} from '../support/certificates.ts';

/** What the examples expect of the machine they run on. */
const SURROUNDINGS: Record<string, string> = {
  '/etc/backref/example-ca.pem': AUTHORITY,
  '/run/secrets/registry-password': 'hunter2\n',
  '/etc/backref/htpasswd': '',
};
const ENV = {DOCKERHUB_USER: 'me', DOCKERHUB_TOKEN: 'dckr_pat_1'};

const loadExample = (name: string) =>
  loadConfig({
    file: `config/examples/${name}`,
    env: ENV,
    readFile: async (path) => SURROUNDINGS[path] ?? readFile(path, 'utf8'),
  });

test('Docker Hub with an account', async (t) => {
  const {registries} = await loadExample('docker-hub-account.yaml');
  t.like(registries[0], {name: 'docker.io', default: true, library: true});
  t.deepEqual(registries[0]?.upstream?.credentials, {kind: 'basic', username: 'me', password: 'dckr_pat_1'});
});

test('a private registry with a CA of its own', async (t) => {
  const {registries} = await loadExample('private-registry.yaml');
  t.deepEqual(registries[0]?.upstream?.credentials, {
    kind: 'basic',
    username: 'backref',
    password: 'hunter2',
  });
  t.deepEqual(registries[0]?.upstream?.ca, [AUTHORITY]);
  t.deepEqual(registries[0]?.upstream?.realmHosts, ['login.example.net']);
});

test('a legacy registry without TLS', async (t) => {
  const {registries} = await loadExample('plain-http-registry.yaml');
  t.like(registries[0], {name: 'legacy.internal:5000'});
  t.like(registries[0]?.upstream, {url: 'http://legacy.internal:5000', insecure: true});
});

test('a hosted registry beside a mirror', async (t) => {
  const [mirror, hosted] = (await loadExample('hosted-registry.yaml')).registries;
  t.like(mirror, {name: 'docker.io', push: 'deny'});
  t.like(hosted, {name: 'apps.local', upstream: undefined, push: 'local', hosts: ['registry.example.com']});
  t.is(hosted?.referrers.keep, 50);
});

test('signatures laid over an upstream that is never written to', async (t) => {
  const {registries} = await loadExample('attach-to-upstream.yaml');
  t.like(registries[0], {name: 'docker.io', push: 'local', overlay: {tags: 'deny'}});
});

test('pushes through to the registry behind', async (t) => {
  const {registries} = await loadExample('push-through.yaml');
  t.like(registries[0], {push: 'through', maxManifest: 8 * 2 ** 20});
  t.deepEqual(registries[0]?.upstream?.credentials, {kind: 'basic', username: 'ci', password: 'hunter2'});
});

test('a registry for several teams, with rules', async (t) => {
  const config = await loadExample('team-registry.yaml');
  const isAllowed = (own: string, action: 'pull' | 'push', place: string) =>
    checkAccess(config, {names: [own], action, place, isLocal: false, bound: undefined}).isAllowed;
  t.true(isAllowed('user:alice', 'push', 'apps.local/team-a/app:1'));
  t.false(isAllowed('user:alice', 'push', 'apps.local/team-a/app:prod-1'));
  t.false(isAllowed('user:carol', 'push', 'apps.local/team-a/app:1'));
  t.true(isAllowed('user:carol', 'pull', 'apps.local/team-a/app:1'));
  t.false(isAllowed('anonymous', 'pull', 'apps.local/team-a/app:1'));
  t.true(isAllowed('anonymous', 'pull', 'alpine:3'));
});

test('every example is tested here', async (t) => {
  t.deepEqual((await readdir('config/examples')).sort(), [
    'attach-to-upstream.yaml',
    'docker-hub-account.yaml',
    'hosted-registry.yaml',
    'plain-http-registry.yaml',
    'private-registry.yaml',
    'push-through.yaml',
    'team-registry.yaml',
  ]);
});
