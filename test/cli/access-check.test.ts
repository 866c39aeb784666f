import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {loadConfig} from '../../src/config/load.ts';
import {createServer} from '../../src/server.ts';
import {call} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const CONFIG = `registries:
  docker.io:
    default: true
    library: true
    aliases: [index.docker.io]
    upstream: {url: https://registry-1.docker.io}
    repositories: {deny: [library/secret]}
  apps.local: {}
access:
  groups: {dev: ["user:alice"]}
  rules:
    - {who: ["user:ci", "robot:*"], where: ["apps.local/team-*/**"], may: [pull, push]}
    - {who: ["group:dev"], where: ["apps.local/x:v*"], may: [push]}
    - {who: ["*"], where: ["docker.io/**"], may: [pull, push]}
`;

/** Runs `access check` on the configuration above. */
async function check(t: ExecutionContext, args: readonly string[], text = CONFIG) {
  const file = join(await createFolder(t), 'f.yaml');
  await writeFile(file, text);
  return call(['access', 'check', ...args, '--config', file]);
}

test('access check names the rule that decides, and why the earlier ones do not', async (t) => {
  t.like(await check(t, ['pull', 'alpine:3']), {
    code: 0,
    stdout: `allowed: anonymous to pull docker.io/library/alpine:3
because: rule 3 of access.rules (who: *; where: docker.io/**; may: pull, push)
  rule 1 is not about this caller (who: user:ci, robot:*; where: apps.local/team-*/**; may: pull, push)
  rule 2 is not about this caller (who: group:dev; where: apps.local/x:v*; may: push)
  rule 3 decides (who: *; where: docker.io/**; may: pull, push)
`,
  });
});

const cases: [args: string, code: number, because: RegExp][] = [
  [
    '--as robot:ci push apps.local/team-a/x:1',
    0,
    /^because: rule 1 [\s\S]*There is no store to look the token up in\. A robot's token adds to this/,
  ],
  [
    '--as user:bob push apps.local/team-a/x:1',
    1,
    /no rule of access\.rules allows user:bob to push apps\.local\/team-a\/x:1/,
  ],
  ['--as user:alice push apps.local/x:v1', 0, /rule 2/],
  ['--as user:bob,group:dev push apps.local/x:v1', 0, /rule 2/],
  ['--as user:alice push apps.local/x:main', 1, /rule 2 is about other tags/],
  ['--as user:alice push apps.local/x', 0, /rule 2/],
  ['--as user:alice push apps.local/x:latest', 1, /no rule/],
  [
    '--as user:alice delete apps.local/x:v1',
    1,
    /rule 2 of access\.rules .* does not allow user:alice to delete/,
  ],
  ['--as user:ci pull apps.local', 0, /rule 1/],
  ['pull apps.local', 1, /no rule of access\.rules allows anonymous to pull from apps\.local/],
  ['pull', 0, /rule 3/],
  ['pull index.docker.io/library/alpine', 0, /rule 3/],
  [`pull alpine@sha256:${'a'.repeat(64)}`, 0, /rule 3/],
  ['push alpine', 1, /is a mirror and takes no pushes/],
  ['pull secret', 1, /repositories leaves out library\/secret/],
  ['--local push apps.local/x', 1, /no rule/],
  ['admin', 1, /no rule of access\.rules allows anonymous to operate the server/],
];

for (const [args, code, because] of cases)
  test(`access check ${args.replace(/a{64}/, '…')} ends with ${code}`, async (t) => {
    const ended = await check(t, args.split(' '));
    t.is(ended.code, code);
    t.regex(ended.stdout.slice(ended.stdout.indexOf('because')), because);
    t.is(ended.stdout.startsWith('allowed: '), code === 0);
  });

test('access check without rules tells callers of this machine from others', async (t) => {
  const text = 'registries: {apps.local: {}}';
  t.is((await check(t, ['push', 'apps.local/x', '--local'], text)).code, 0);
  const remote = await check(t, ['push', 'apps.local/x'], text);
  t.is(remote.code, 1);
  t.regex(remote.stdout, /only through a listener that is bound to a loopback address/);
});

test('access check says what the rules would deny where they are only audited', async (t) => {
  const {code, stdout} = await check(
    t,
    ['pull', 'apps.local/x'],
    CONFIG.replace('access:\n', 'access:\n  mode: audit\n'),
  );
  t.is(code, 0);
  t.regex(stdout, /because: no rule of access\.rules allows anonymous to pull apps\.local\/x/);
});

test('access check --json writes the same as an object', async (t) => {
  const {code, stdout} = await check(t, ['push', 'apps.local/x:v1', '--as', 'user:alice', '--json']);
  t.is(code, 0);
  const {result} = JSON.parse(stdout);
  t.like(result, {allowed: true, question: 'push apps.local/x:v1', names: ['user:alice', 'group:dev']});
  t.deepEqual(
    result.rules.map(({rule, match}: {rule: number; match: string}) => [rule, match]),
    [
      [1, 'caller'],
      [2, 'decides'],
    ],
  );
});

test('access check reports wrong arguments with 2, and a registry that is not configured with 1', async (t) => {
  const wrong = await check(t, ['read', 'alpine']);
  t.is(wrong.code, 2);
  t.regex(wrong.stderr, /"read" is not an action: write one of pull, push, delete, attach, admin/);
  t.is((await check(t, ['pull', 'alpine', '--as', ','])).code, 2);
  const unknown = await check(t, ['pull', 'ghcr.io/org/app']);
  t.is(unknown.code, 1);
  t.regex(unknown.stderr, /registry "ghcr\.io" is not configured here/);
});

/** A store with two robots, and what `access check` says of one of them. */
async function withRobots(t: ExecutionContext) {
  const folder = await createFolder(t);
  const file = join(folder, 'f.yaml');
  await writeFile(
    file,
    `${CONFIG}storage: {path: ${join(folder, 'data')}}\nlisten: {host: 127.0.0.1, port: 0}\n`,
  );
  const create = (name: string, expires: string) =>
    call([
      'token',
      'create',
      name,
      '--may',
      'pull,delete',
      '--on',
      'apps.local/**',
      '--expires',
      expires,
      '--config',
      file,
    ]);
  t.is((await create('ci', 'never')).code, 0);
  t.is((await create('old', '1ms')).code, 0);
  const asked = (args: string) => call(['access', 'check', ...args.split(' '), '--config', file]);
  return {file, asked};
}

test('access check counts the token of a robot, from the store alone and from its server', async (t) => {
  const {file, asked} = await withRobots(t);
  const all = async () => {
    const push = await asked('--as robot:ci push apps.local/team-a/x:1');
    t.is(push.code, 1, 'a rule allows it, and the token does not');
    t.regex(
      push.stdout,
      /because: the token of robot:ci \(may: pull, delete; on: apps\.local\/\*\*\) is not for this/,
    );
    const granted = await asked('--as robot:ci delete apps.local/other:1');
    t.is(granted.code, 0, granted.stdout);
    t.regex(granted.stdout, /because: its token grants it, and no rule is about it/);
    t.regex(granted.stdout, /Its token: may pull, delete; on apps\.local\/\*\*; expires never\./);
    const {stdout} = await asked('--as robot:ci pull apps.local/team-a/x --json');
    t.like(JSON.parse(stdout).result, {
      allowed: true,
      token: {may: ['pull', 'delete'], on: ['apps.local/**']},
    });
    const expired = await asked('--as robot:old pull apps.local/team-a/x');
    t.is(expired.code, 1);
    t.regex(expired.stdout, /because: the token of robot:old has expired/);
    const absent = await asked('--as robot:gone push apps.local/team-a/x:1');
    t.is(absent.code, 0);
    t.regex(absent.stdout, /The store has no robot "gone"\. A robot's token adds to this/);
  };
  await all();
  const server = createServer(await loadConfig({file, env: {}}), {env: {}});
  t.teardown(() => server.close());
  await server.listen();
  await all();
});
