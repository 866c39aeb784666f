import {once} from 'node:events';
import {writeFile} from 'node:fs/promises';
import {type AddressInfo, createServer} from 'node:net';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {ownPort} from '../../rig/port.ts';
import {call, run as runCommand, start} from '../support/command.ts';
import {imageManifest} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {startLegacy} from '../support/legacy.ts';

/** Runs a command line in which `HOME/` stands for a folder with a file to attach and a faulty configuration. */
async function run(t: ExecutionContext, ...args: string[]) {
  const home = await createFolder(t);
  await writeFile(join(home, 'sbom.json'), '{"a":1}');
  await writeFile(join(home, 'faulty.yaml'), 'listen: {port: http}');
  return call(
    args.map((arg) => arg.replace(/^HOME\b/, home)),
    {HOME: home},
  );
}

const lines = (text: string): string[] => text.trimEnd().split('\n');
const TYPE = ['--artifact-type', 'application/spdx+json'];

test('an unknown command gets two lines: the probable command, and where to find the usage', async (t) => {
  const {code, stdout, stderr} = await run(t, 'atach');
  t.is(code, 2);
  t.is(stdout, '');
  t.deepEqual(lines(stderr), [
    "error: unknown command 'atach' (Did you mean attach?)",
    'Run "backref --help" or "backref COMMAND --help" for usage.',
  ]);
});

test('a command in its own process ends with the same exit code and output', async (t) => {
  const cwd = await createFolder(t);
  t.deepEqual(await runCommand(t, ['atach'], {cwd, env: {HOME: cwd}}), await run(t, 'atach'));
});

test('wrong arguments end with 2 and at most two lines', async (t) => {
  const misuses = [
    ['serve', '--nope'],
    ['referrers'],
    ['gc', '--grace', 'x'],
    ['du', '--by', 'tag'],
    ['du', '--top', '-1'],
    ['index', 'library/app', '--budget', '0'],
    ['index', 'BAD/name', '--budget', '1'],
    ['index', 'ghcr.io/', '--budget', '1'],
  ];
  for (const args of misuses) {
    const {code, stdout, stderr} = await run(t, ...args);
    t.is(code, 2, args.join(' '));
    t.is(stdout, '');
    t.true(lines(stderr).length <= 2, stderr);
  }
});

test('with --json errors are objects on stdout as well', async (t) => {
  const wrong: [args: string[], code: number, says: RegExp][] = [
    [['gc', '--grace', 'x'], 2, /--grace "x" is not a duration/],
    [['index', 'library/app', '--budget', 'x'], 2, /--budget "x" is not a number/],
    [['referrers', 'team/app:1'], 2, /does not name a repository of a registry/],
    [['attach', 'r.test/a', 'HOME/sbom.json', ...TYPE], 2, /has no tag or digest/],
    [['attach', 'r.test/a:1', 'none', ...TYPE], 1, /The file none cannot be read/],
    [['reindex', '--config', 'HOME/faulty.yaml'], 2, /must be a whole number/],
    [['config', 'show', '--config', 'HOME/faulty.yaml'], 2, /must be a whole number/],
    [['serve', '--config', 'HOME/faulty.yaml'], 2, /must be a whole number/],
    [['atach'], 2, /^unknown command 'atach' \(Did you mean attach\?\)$/],
    [['gc', '--gracce', '1h'], 2, /^unknown option '--gracce' \(Did you mean --grace\?\)$/],
    [['referrers'], 2, /^missing required argument 'reference'$/],
    [['index', 'library/app'], 2, /^required option '--budget <requests>' not specified$/],
    [['config'], 2, /unknown option '--json'/],
  ];
  for (const [args, expected, says] of wrong) {
    const {code, stdout, stderr} = await run(t, ...args, '--json');
    t.is(code, expected, args.join(' '));
    t.is(stderr, '');
    t.is(lines(stdout).length, 1);
    t.regex(JSON.parse(stdout).error.message, says);
  }
});

test('localhost is reached over plain HTTP, and over HTTPS with --no-plain-http', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const reference = `${legacy.host.replace('127.0.0.1', 'localhost')}/team/app:1`;
  const found = await run(t, 'referrers', reference, '--json');
  t.is(found.code, 0);
  t.is(JSON.parse(found.stdout).subjects[0].digest, image.digest);
  t.is((await run(t, 'referrers', reference, '--no-plain-http')).code, 1);
});

test('--json and the older --format json are the same', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  const reference = `${legacy.host}/team/app:1`;
  const {stdout} = await run(t, 'referrers', reference, '--json');
  t.is((await run(t, 'referrers', reference, '--format', 'json')).stdout, stdout);
  t.true(stdout.startsWith('{'));
});

test('attach --json reports how much is sent, and then the digest', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  const {code, stdout} = await run(
    t,
    'attach',
    `${legacy.host}/team/app:1`,
    'HOME/sbom.json',
    ...TYPE,
    '--json',
  );
  t.is(code, 0);
  const messages = lines(stdout).map((line) => JSON.parse(line));
  t.deepEqual(messages[0], {progress: {sent: 7, total: 7}});
  t.regex(messages.at(-1).result.digest, /^sha256:[0-9a-f]{64}$/);
});

test('health --json prints an object, with a ready server and without one', async (t) => {
  const cwd = await createFolder(t);
  const port = await ownPort();
  const env = {HOME: cwd, BACKREF_LISTEN_HOST: '127.0.0.1', BACKREF_LISTEN_PORT: String(port)};
  const server = start(t, ['serve'], {cwd, env});
  await server.prints(/listens on/);
  const ready = await call(['health', '--json'], env);
  t.is(ready.code, 0);
  t.deepEqual(JSON.parse(ready.stdout).result, {url: `http://127.0.0.1:${port}/readyz`, ready: true});
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
  const gone = await call(['health', '--json'], env);
  t.is(gone.code, 1);
  t.is(gone.stderr, '');
  t.regex(JSON.parse(gone.stdout).error.message, /does not answer/);
});

test('serve --json logs objects, whatever the configuration says', async (t) => {
  const env = {BACKREF_LISTEN_HOST: '127.0.0.1', BACKREF_LISTEN_PORT: '0', BACKREF_LOG_FORMAT: 'pretty'};
  const server = start(t, ['serve', '--json'], {cwd: await createFolder(t), env});
  await server.prints(/"event":"server\.listening"/);
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
  for (const line of lines(server.printed().stdout)) t.notThrows(() => JSON.parse(line), line);
});

test('serve --json says why it cannot start on one line of JSON', async (t) => {
  const cwd = await createFolder(t);
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  t.teardown(() => taken.close());
  const {port} = taken.address() as AddressInfo;
  await writeFile(join(cwd, 'file'), '');
  const reasons: [env: Record<string, string>, says: RegExp][] = [
    [{BACKREF_LISTEN_PORT: String(port)}, /^Port \d+ of 127\.0\.0\.1 is in use: /],
    [{BACKREF_STORAGE_PATH: join(cwd, 'file')}, /^The folder .* cannot be written to \(EEXIST\): /],
  ];
  for (const [env, says] of reasons) {
    const {code, stdout, stderr} = await runCommand(t, ['serve', '--json'], {
      cwd,
      env: {BACKREF_LISTEN_HOST: '127.0.0.1', ...env},
    });
    t.is(code, 1);
    t.is(stderr, '');
    t.is(lines(stdout).length, 1);
    t.regex(JSON.parse(stdout).error.message, says);
  }
});
