import {readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {loadConfig} from '../../src/config/load.ts';
import {call, run} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const FAULTY =
  'listen: {port: http}\nregistries:\n  r.test: {upstream: {url: https://r.test}, tags: {tll: 5s}}\n';

test('--version gives the version of the package', async (t) => {
  const {version} = JSON.parse(await readFile('package.json', 'utf8'));
  t.like(await call(['--version']), {
    code: 0,
    stdout: `${version}\n`,
    stderr: '',
  });
});

test('--help names every command', async (t) => {
  const {code, stdout} = await call(['--help']);
  t.is(code, 0);
  for (const command of ['serve', 'health', 'attach', 'referrers', 'config'])
    t.regex(stdout, new RegExp(`^ {2}${command}`, 'm'));
});

test('an unknown command or option ends with 2', async (t) => {
  for (const args of [['sevre'], ['serve', '--confg', 'x'], []])
    t.is((await call(args)).code, 2, args.join(' '));
});

test('config check without a file finds the built-in default valid', async (t) => {
  const {code, stdout, stderr} = await run(t, ['config', 'check'], {cwd: await createFolder(t)});
  t.is(code, 0);
  t.regex(stdout, /valid \(built-in default\): 7 registries/);
  t.is(stderr, '');
});

test('config check reports every fault on stderr and ends with 2', async (t) => {
  const cwd = await createFolder(t);
  await writeFile(join(cwd, 'f.yaml'), FAULTY);
  const file = join(cwd, 'f.yaml');
  const {code, stdout, stderr} = await call(['config', 'check', '--config', file]);
  t.is(code, 2);
  t.is(stdout, '');
  t.is(
    stderr,
    `The configuration cannot be used (${file}): 2 faults
  listen.port (${file}:1:16)
    must be a whole number from 0 to 65535; found "http"
  registries.r.test.tags.tll (${file}:3:57)
    is not known (did you mean "ttl"?): allowed here are ttl, maxStale, keepDeleted, absentTtl
`,
  );
});

test('config check --json reports the same as an object', async (t) => {
  const cwd = await createFolder(t);
  await writeFile(join(cwd, 'f.yaml'), FAULTY);
  const file = join(cwd, 'f.yaml');
  const {code, stdout} = await call(['config', 'check', '--json'], {BACKREF_CONFIG: file});
  t.is(code, 2);
  const {ok, source, faults} = JSON.parse(stdout);
  t.false(ok);
  t.is(source, file);
  t.like(faults[0], {path: 'listen.port', value: '"http"', where: `${file}:1:16`});
  t.is(faults.length, 2);
});

test('config check warns that pushes are refused on an address that others can reach, and ends with 0', async (t) => {
  const cwd = await createFolder(t);
  await writeFile(join(cwd, 'f.yaml'), 'registries: {apps.local: {}}');
  const env = {BACKREF_CONFIG: join(cwd, 'f.yaml')};
  const {code, stdout, stderr} = await call(['config', 'check'], env);
  t.is(code, 0);
  t.regex(stdout, /valid/);
  t.regex(stderr, /^Warning: access\.rules: pushes to apps\.local are refused on 0\.0\.0\.0:5000: .*\.\n$/);
  const json = await call(['config', 'check', '--json'], env);
  t.like(JSON.parse(json.stdout), {ok: true, faults: [], warnings: {0: {path: 'access.rules'}}});
});

test('config show prints a file that has the same effect', async (t) => {
  const cwd = await createFolder(t);
  const {code, stdout} = await run(t, ['config', 'show'], {cwd, env: {BACKREF_SHUTDOWN_GRACE: '90s'}});
  t.is(code, 0);
  const shown = await loadConfig({env: {}, file: 'shown.yaml', readFile: async () => stdout});
  const nowhere = join(cwd, 'none.yaml');
  await writeFile(nowhere, 'shutdown: {grace: 90s}');
  t.deepEqual(shown, await loadConfig({env: {}, file: nowhere}));
});

test('config show prints a hosted registry in the same way', async (t) => {
  const cwd = await createFolder(t);
  const file = join(cwd, 'hosted.yaml');
  await writeFile(
    file,
    'registries: {apps.local: {referrers: {keep: 50}}, r.test: {upstream: {url: https://r.test}, push: through}}',
  );
  const {code, stdout} = await call(['config', 'show', '--config', file]);
  t.is(code, 0);
  t.regex(stdout, /keep: 50/);
  t.regex(stdout, /maxManifest: 4MiB/);
  const shown = await loadConfig({env: {}, file: 'shown.yaml', readFile: async () => stdout});
  t.deepEqual(shown, await loadConfig({env: {}, file}));
});

test('config show prints patterns for repositories and tags in the same way', async (t) => {
  const cwd = await createFolder(t);
  const file = join(cwd, 'patterns.yaml');
  await writeFile(
    file,
    `registries:
  r.test:
    upstream: {url: https://r.test}
    repositories: {allow: ['team/**'], deny: [team/secret]}
    limits: {blob: 2GiB, repository: 10GB, children: 5, depth: 2}
    tags: [{match: v*, ttl: forever}, {match: ['team/*:latest'], ttl: 0}, {maxStale: 1d}]`,
  );
  const {code, stdout} = await call(['config', 'show', '--config', file]);
  t.is(code, 0);
  t.regex(stdout, /ttl: forever/);
  const shown = await loadConfig({env: {}, file: 'shown.yaml', readFile: async () => stdout});
  t.deepEqual(shown, await loadConfig({env: {}, file}));
});

test('config show never prints a password', async (t) => {
  const cwd = await createFolder(t);
  const credentials = 'credentials: {username: me, password: "${TOKEN}"}';
  await writeFile(
    join(cwd, 'f.yaml'),
    `registries: {r.test: {upstream: {url: "https://r.test", ${credentials}}}}`,
  );
  for (const format of [[], ['--json']]) {
    const args = ['config', 'show', '--config', join(cwd, 'f.yaml'), ...format];
    const {code, stdout} = await call(args, {TOKEN: 'hunter2'});
    t.is(code, 0);
    t.regex(stdout, /username"?: "?me/);
    t.regex(stdout, /\[redacted\]/);
    t.notRegex(stdout, /hunter2/);
  }
});
