import {access, stat} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {parseName} from '../../src/oci/name.ts';
import type {Change} from '../../src/storage/metadata.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {
  call,
  PATIENT,
  type RunningCommand,
  run,
  signalAfter,
  start,
  startInTerminal,
} from '../support/command.ts';
import {configured, serveFile} from '../support/configured.ts';
import {headAnswer, imageManifest, manifestAnswer} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {listAnswer, referrerOf} from '../support/referrers.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';

const LISTENS = /listens on (http:\/\/127\.0\.0\.1:\d+)/;
const repository = {registry: 'r.test', name: parseName('team/app')};
const image = imageManifest();

/** A folder with a configuration, and in its store some manifests of one repository that refer to another. */
async function setUp(t: ExecutionContext, {url = 'http://127.0.0.1:9', count = 20} = {}) {
  const {cwd, file, data} = await configured(
    t,
    `registries: {r.test: {default: true, upstream: {url: "${url}", insecure: true, timeouts: ${JSON.stringify(PATIENT)}}, referrers: {mode: api, prefetch: off}}}`,
  );
  const referrers = Array.from({length: count}, () => referrerOf(image));
  const metadata = await openSqliteMetadata({path: join(data, 'meta.db')});
  const puts = [image, ...referrers].map(
    ({digest, mediaType, bytes}): Change => ({
      type: 'manifest.put',
      repository,
      digest,
      mediaType,
      bytes,
      edge: undefined,
      references: [],
      origin: 'upstream',
      at: Date.now(),
    }),
  );
  const list = {type: 'referrer-list.put', repository, subject: image.digest, source: 'api'} as const;
  await metadata.commit([...puts, {...list, descriptors: [], at: Date.now()}]);
  await metadata.close();
  return {cwd, file, reindex: ['reindex', '--config', file], referrers};
}

/** A server in a process of its own. */
async function served(t: ExecutionContext, cwd: string): Promise<{server: RunningCommand; url: string}> {
  const server = start(t, ['serve', '--config', 'f.yaml'], {cwd});
  const [, url = ''] = await server.prints(LISTENS);
  return {server, url};
}

async function listed(url: string): Promise<string[]> {
  const response = await fetch(`${url}/v2/team/app/referrers/${image.digest}`);
  const {manifests} = JSON.parse(await response.text());
  return manifests.map(({digest}: {digest: string}) => digest);
}

const DONE = 'Read 21 manifests and indexed 20 that have a subject; removed 0 entries without a manifest.\n';

test('without a server it opens the store itself', async (t) => {
  const {file, reindex, referrers} = await setUp(t);
  t.like(await call(reindex), {code: 0, stdout: DONE});
  const {url} = await serveFile(t, file);
  t.deepEqual(
    await listed(url),
    referrers.map(({digest}) => digest),
  );
});

test('beside a running server, the server rebuilds the index and serves it at once', async (t) => {
  const {cwd, reindex, referrers} = await setUp(t);
  const {server, url} = await served(t, cwd);
  t.deepEqual(await listed(url), []);
  t.like(await run(t, reindex, {cwd}), {code: 0, stdout: DONE});
  t.deepEqual(
    await listed(url),
    referrers.map(({digest}) => digest),
  );
  server.child.kill('SIGTERM');
  t.is(await server.ended, 0);
});

test('with --json each line is a JSON message, and the last one is the result', async (t) => {
  const {reindex} = await setUp(t);
  const {code, stdout, stderr} = await call([...reindex, '--json']);
  t.is(code, 0);
  t.is(stderr, '');
  const lines = stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  t.deepEqual(lines.at(-1), {result: {manifests: 21, edges: 20, removed: 0}});
  t.true(lines.slice(0, -1).every(({progress}) => progress.done <= 1));
  t.true(lines.length > 1);
});

test('on a terminal a bar is drawn', async (t) => {
  const {cwd, reindex} = await setUp(t);
  const terminal = await startInTerminal(t, reindex, {cwd});
  if (!terminal) return t.pass('no terminal can be made here');
  t.is(await terminal.ended, 0);
  const {stdout} = terminal.printed();
  t.regex(stdout, /\r\[#{12}\] 100 % {2}21 manifests/);
  t.true(stdout.replaceAll('\r\n', '\n').endsWith(`\x1b[K${DONE}`), JSON.stringify(stdout));
});

test('SIGINT ends the command with 130 and does not disturb the server', async (t) => {
  const {cwd, file, reindex} = await setUp(t, {count: 2000});
  const {url} = await serveFile(t, file);
  const env = await signalAfter(cwd, 'progress', 'SIGINT');
  const {code, stdout} = await run(t, [...reindex, '--json'], {cwd, env});
  t.is(code, 130);
  t.regex(stdout, /\{"error":\{"message":"SIGINT: interrupted; what was done is kept/);
  t.is((await fetch(`${url}/v2/`)).status, 200);
  t.like(await call(reindex), {code: 0});
  t.is((await listed(url)).length, 2000);
});

test('SIGINT does not damage a store that the command opened itself', async (t) => {
  const {cwd, reindex} = await setUp(t, {count: 2000});
  const env = await signalAfter(cwd, 'progress', 'SIGINT');
  t.is((await run(t, [...reindex, '--json'], {cwd, env})).code, 130);
  t.like(await call(reindex), {code: 0});
});

test('a server that was killed leaves a socket that the next one replaces', async (t) => {
  const {cwd, reindex} = await setUp(t);
  const path = join(cwd, 'data', 'backref.sock');
  const {server} = await served(t, cwd);
  server.child.kill('SIGKILL');
  await server.ended;
  t.true((await stat(path)).isSocket());
  t.like(await call(reindex), {code: 0, stdout: DONE});
  const {server: next} = await served(t, cwd);
  t.like(await call(reindex), {code: 0, stdout: DONE});
  next.child.kill('SIGTERM');
  t.is(await next.ended, 0);
  await t.throwsAsync(() => access(path));
});

test('a second server on the same folder says what is wrong, and the first one continues', async (t) => {
  const {cwd, file} = await setUp(t);
  const {url} = await serveFile(t, file);
  const {code, stderr} = await run(t, ['serve', '--config', 'f.yaml'], {cwd});
  t.is(code, 1);
  t.regex(stderr, /another backref is using \/.*data: .* storage\.path/);
  t.is((await fetch(`${url}/v2/`)).status, 200);
});

test('a missing store is reported, and not created', async (t) => {
  const cwd = await createFolder(t);
  const {code, stdout, stderr} = await call(['reindex'], {BACKREF_STORAGE_PATH: join(cwd, 'data')});
  t.is(code, 1);
  t.is(stdout, '');
  t.regex(stderr, /There is no store: .*meta\.db does not exist\. Name .* --config/);
  await t.throwsAsync(() => access(join(cwd, 'data')));
});

test('a faulty configuration ends with 2', async (t) => {
  const env = {BACKREF_LISTEN_PORT: 'x'};
  for (const args of [['reindex'], ['index', 'a', '--budget', '1']]) t.is((await call(args, env)).code, 2);
});

const sbom = referrerOf(image);
const walked: Expectation[] = [
  {
    request: 'GET /v2/team/app/tags/list?n=1000',
    answer: {headers: {'Content-Type': 'application/json'}, body: '{"tags":["1"]}'},
  },
  {request: 'HEAD /v2/team/app/manifests/1', answer: headAnswer(sbom)},
  {request: 'GET /v2/team/app/manifests/1', answer: manifestAnswer(sbom)},
];
const indexWith = (file: string, budget: string) => [
  ...['index', 'team/app', '--config', file],
  ...['--budget', budget],
];

test('index stores what the upstream’s tags lead to, with and without a server', async (t) => {
  for (const withServer of [true, false]) {
    const upstream = await createScriptedUpstream(t, [
      ...walked,
      {request: `GET /v2/team/app/referrers/${image.digest}`, answer: listAnswer([]), optional: true},
    ]);
    const {file} = await setUp(t, {url: upstream.url, count: 0});
    const beside = withServer ? (await serveFile(t, file)).url : undefined;
    const {code, stdout} = await call(indexWith(file, '10'));
    t.is(code, 0);
    t.is(
      stdout,
      'Indexed 1 of 1 tags with 3 requests: 1 manifests, 1 with a subject.\nEverything that the tags lead to is stored.\n',
    );
    const url = beside ?? (await serveFile(t, file)).url;
    t.deepEqual(await listed(url), [sbom.digest]);
  }
});

test('index ends with 0 when its budget is spent, and says how to continue', async (t) => {
  const upstream = await createScriptedUpstream(t, walked.slice(0, 2));
  const {file} = await setUp(t, {url: upstream.url, count: 0});
  const {code, stdout} = await call(indexWith(file, '2'));
  t.is(code, 0);
  t.regex(
    stdout,
    /^Indexed 0 of 1 tags .*\nStopped: the budget of 2 requests is spent\. Run the command again/,
  );
});

test('index ends with 1 when a tag fails, or when the upstream cannot be asked', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    ...walked.slice(0, 1),
    {request: 'HEAD /v2/team/app/manifests/1', answer: {status: 403}, always: true},
  ]);
  const {file} = await setUp(t, {url: upstream.url, count: 0});
  const failed = await call(indexWith(file, '9'));
  t.is(failed.code, 1);
  t.regex(failed.stdout, /Failed: 1: /);
  const {file: other} = await setUp(t, {count: 0});
  const unreachable = await call([...indexWith(other, '9'), '--json']);
  t.is(unreachable.code, 1);
  t.regex(unreachable.stdout, /^\{"error":\{"message":"127\.0\.0\.1:9: /);
});

test('index ends with 2 without a budget, and with one that is not a number', async (t) => {
  for (const budget of [[], ['--budget', '0'], ['--budget', 'many'], ['--budget', '1.5']]) {
    const {code, stderr} = await call(['index', 'team/app', ...budget]);
    t.is(code, 2);
    t.regex(stderr, /--budget/);
  }
});
