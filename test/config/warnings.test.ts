import test from 'ava';
import {configWarnings} from '../../src/config/checks.ts';
import {loadGiven} from '../support/settings.ts';

const PUSHED =
  'registries: {a.test: {}, r.test: {upstream: {url: https://r.test}, push: through}, m.test: {upstream: {url: https://m.test}}}';

test('there is a warning about pushes on an address that others can reach, with the registries', async (t) => {
  for (const host of ['0.0.0.0', '::', '192.168.1.5', 'mirror.lan']) {
    const config = await loadGiven({yaml: `listen: {host: "${host}"}\n${PUSHED}`});
    const [warning, ...others] = configWarnings(config);
    t.is(others.length, 0);
    t.is(warning?.path, 'access.rules');
    const address = `${host === '::' ? '[::]' : host}:5000`;
    t.true(warning?.problem.startsWith(`pushes to a.test, r.test are refused on ${address}: without rules `));
  }
});

test('there is no warning about pushes where rules decide', async (t) => {
  const rules = 'access: {rules: [{who: ["*"], where: ["**"], may: [push]}]}';
  t.deepEqual(configWarnings(await loadGiven({yaml: `${rules}\n${PUSHED}`})), []);
});

test('there is no warning about pushes on loopback, nor about a mirror on any address', async (t) => {
  for (const host of ['127.0.0.1', '127.1.2.3', '::1', 'localhost'])
    t.deepEqual(configWarnings(await loadGiven({yaml: `listen: {host: "${host}"}\n${PUSHED}`})), []);
  t.deepEqual(configWarnings(await loadGiven({})), []);
});

test('of several listeners, the warning names the first that others can reach and push to', async (t) => {
  const listen = '[{port: 1, serve: admin}, {socket: b.sock}, {host: 127.0.0.1}, {host: 10.0.0.1, port: 2}]';
  const [warning] = configWarnings(await loadGiven({yaml: `listen: ${listen}\n${PUSHED}`}));
  t.regex(warning?.problem ?? '', /are refused on 10\.0\.0\.1:2: /);
});

test('there is a warning about each pattern that can match nothing', async (t) => {
  const pins = '["index.docker.io/library/*", "docker.io/alpine", "docker.io/**", "*/**", "ghcr.io/app:1"]';
  const config = await loadGiven({yaml: `pins: ${pins}\ncache: {keep: [{match: "docker.io/*", newest: 3}]}`});
  t.deepEqual(
    configWarnings(config).map(({path, problem}) => `${path} ${problem.slice(0, 60)}`),
    [
      'pins[0] matches nothing: "index.docker.io" is not the name of a regi',
      'pins[1] matches nothing: the repositories of docker.io have two comp',
      'cache.keep[0].match matches nothing: the repositories of docker.io have two comp',
    ],
  );
});

test('there is a warning about each pattern for repositories that names the registry, or lacks "library/"', async (t) => {
  const yaml = `registries:
  docker.io:
    library: true
    upstream: {url: https://registry-1.docker.io}
    repositories: {allow: [library/*, alpine, docker.io/team/app, "*", "**"], deny: [php]}
    tags: [{match: [v1, "alpine:3", "library/alpine:3"], ttl: 1d}]
  r.test: {upstream: {url: https://r.test}, repositories: {deny: [app, r.test/app]}}`;
  t.deepEqual(
    configWarnings(await loadGiven({yaml})).map(({path, problem}) => `${path} ${problem}`),
    [
      'registries.docker.io.repositories.allow[1] matches nothing: the repositories of docker.io have two components at least. Write library/alpine',
      "registries.docker.io.repositories.allow[2] begins with the registry's own name: write team/app",
      'registries.docker.io.repositories.allow[3] matches nothing: the repositories of docker.io have two components at least. Write library/*',
      'registries.docker.io.repositories.deny[0] matches nothing: the repositories of docker.io have two components at least. Write library/php',
      'registries.docker.io.tags[0].match[1] matches nothing: the repositories of docker.io have two components at least. Write library/alpine:3',
      "registries.r.test.repositories.deny[1] begins with the registry's own name: write app",
    ],
  );
});

test('there is a warning about an issuer that serves everybody, until it requires a claim', async (t) => {
  const issuer = (more: string) =>
    `access: {issuers: [{name: gha, issuer: "https://token.actions.githubusercontent.com", audience: b${more}}]}`;
  const [warning, ...others] = configWarnings(await loadGiven({yaml: issuer('')}));
  t.is(others.length, 0);
  t.is(warning?.path, 'access.issuers[0]');
  t.regex(warning?.problem ?? '', /everybody with an account .*add require/);
  const narrow = await loadGiven({yaml: issuer(', require: {repository_owner: org}')});
  t.deepEqual(configWarnings(narrow), []);
  const own = await loadGiven({
    yaml: 'access: {issuers: [{name: a, issuer: "https://idp.test", audience: b}]}',
  });
  t.deepEqual(configWarnings(own), []);
});
