import test from 'ava';
import {configWarnings} from '../../src/config/checks.ts';
import {formatConfig} from '../../src/config/show.ts';
import {loadGiven, oneRegistry, refusal} from '../support/settings.ts';

const registry = (...lines: string[]): string =>
  [
    'registries:',
    '  r.test:',
    ...['upstream: {url: https://r.test, credentials: passthrough}', ...lines].map((line) => `    ${line}`),
  ].join('\n');
const HOSTS = 'hosts: [r.mirror.test]';

test('credentials may be those of each caller, and what is deleted upstream is then not kept', async (t) => {
  const config = await loadGiven({yaml: registry(HOSTS, 'tags: [{match: "v*", ttl: 1h}, {ttl: 1m}]')});
  const [{upstream, tags, tagRules}] = config.registries as [(typeof config.registries)[0]];
  t.deepEqual(upstream?.credentials, {kind: 'passthrough'});
  t.is(tags.keepDeleted, 0);
  t.is(tagRules[0]?.keepDeleted, 0);
  t.regex(formatConfig(config), /credentials: passthrough/);
  t.deepEqual(configWarnings(config), []);
  const [shared] = (await loadGiven({yaml: oneRegistry()})).registries;
  t.not(shared?.tags.keepDeleted, 0);
});

test('what the upstream cannot decide about is refused', async (t) => {
  const faults: [lines: string[], path: string][] = [
    [[HOSTS, 'push: local'], 'registries.r.test.push'],
    [[HOSTS, 'tags: {keepDeleted: 1d}'], 'registries.r.test.tags.keepDeleted'],
    [
      [HOSTS, 'tags: [{match: v*, keepDeleted: forever}, {ttl: 1m}]'],
      'registries.r.test.tags[0].keepDeleted',
    ],
  ];
  for (const [lines, path] of faults) {
    const {faults: found} = await refusal({yaml: registry(...lines)});
    t.deepEqual(
      found.map((fault) => fault.path),
      [path],
    );
  }
  t.truthy(await loadGiven({yaml: registry(HOSTS, 'push: through', 'tags: {keepDeleted: 0}')}));
});

test('there is a warning where clients could log in nowhere', async (t) => {
  const [warning, ...others] = configWarnings(await loadGiven({yaml: registry()}));
  t.is(others.length, 0);
  t.is(warning?.path, 'registries.r.test.hosts');
  t.regex(warning?.problem ?? '', /Add one, e\.g\. r\.test\.mirror\.example/);
});

test('another word is not a way to log in', async (t) => {
  const yaml = registry(HOSTS).replace('credentials: passthrough', 'credentials: passthru');
  const {faults} = await refusal({yaml});
  t.deepEqual(
    faults.map(({path}) => path),
    ['registries.r.test.upstream.credentials'],
  );
});
