import {createHash} from 'node:crypto';
import test, {type ExecutionContext} from 'ava';
import {call, run, signalAfter, start} from '../support/command.ts';
import {configured, serveFile} from '../support/configured.ts';

const digestOf = (text: string) => `sha256:${createHash('sha256').update(text).digest('hex')}`;

async function setUp(t: ExecutionContext) {
  const {cwd, file} = await configured(t, 'registries: {hosted.test: {default: true}}');
  return {cwd, gc: ['gc', '--config', file], serving: () => serveFile(t, file)};
}

async function pushBlob(url: string, text: string): Promise<string> {
  const digest = digestOf(text);
  const answer = await fetch(`${url}/v2/team/app/blobs/uploads/?digest=${digest}`, {
    method: 'POST',
    headers: {'content-type': 'application/octet-stream'},
    body: text,
  });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
  return digest;
}

async function pushImage(url: string, tag: string, config: string): Promise<void> {
  const manifest = JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.manifest.v1+json',
    config: {
      mediaType: 'application/vnd.oci.empty.v1+json',
      digest: await pushBlob(url, config),
      size: config.length,
    },
    layers: [],
  });
  const answer = await fetch(`${url}/v2/team/app/manifests/${tag}`, {
    method: 'PUT',
    headers: {'content-type': 'application/vnd.oci.image.manifest.v1+json'},
    body: manifest,
  });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
}

const statusOf = async (url: string, blob: string) =>
  (await fetch(`${url}/v2/team/app/blobs/${blob}`, {method: 'HEAD'})).status;

test('beside a running server, blobs that no manifest names are removed and the rest stays', async (t) => {
  const {gc, serving} = await setUp(t);
  const {url} = await serving();
  await pushImage(url, 'v1', 'kept');
  const orphan = await pushBlob(url, 'never named');

  const young = await call(gc);
  t.is(young.code, 0);
  t.regex(young.stdout, /^Removed 0 manifests and 0 blobs/);
  t.is(await statusOf(url, orphan), 200);

  const {code, stdout} = await call([...gc, '--grace', '0']);
  t.is(code, 0);
  t.is(
    stdout,
    'Removed 0 manifests and 1 blob that nothing refers to: 11 bytes.\nAlso dropped: 1 pushed blob that no manifest names, 0 expired uploads, 0 generated fallback lists.\n',
  );
  t.is(await statusOf(url, orphan), 404);
  t.is(await statusOf(url, digestOf('kept')), 200);
});

test('without a server it opens the store itself, and reports to machines in JSON', async (t) => {
  const {gc, serving} = await setUp(t);
  const {server, url} = await serving();
  await pushBlob(url, 'one');
  await pushBlob(url, 'three');
  await server.close();

  const {code, stdout} = await call([...gc, '--grace', '0', '--json']);
  t.is(code, 0);
  const last = JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
  t.deepEqual(last, {result: {uploads: 0, indexes: 0, links: 2, manifests: 0, blobs: 2, bytes: 8}});
});

test('a grace that is not a duration is refused before anything is done', async (t) => {
  const {gc} = await setUp(t);
  const {code, stderr} = await call([...gc, '--grace', '5']);
  t.is(code, 2);
  t.is(stderr, '--grace "5" is not a duration: write 500ms, 60s, 5m, 12h, 7d or 0.\n');
});

test('a missing store is reported', async (t) => {
  const {gc} = await setUp(t);
  const {code, stderr} = await call(gc);
  t.is(code, 1);
  t.regex(stderr, /^There is no store: .*meta\.db does not exist/);
});

test('while it has the store open itself, no server can start on it', async (t) => {
  const {cwd, gc, serving} = await setUp(t);
  const {server, url} = await serving();
  for (let index = 0; index < 5; index++) await pushBlob(url, `piece ${index}`);
  await server.close();

  const env = await signalAfter(cwd, '"links":1,', 'SIGSTOP');
  const collecting = start(t, [...gc, '--grace', '0', '--json'], {cwd, env});
  await collecting.prints(/"links":1,/);
  const second = await run(t, ['serve', '--config', 'f.yaml'], {cwd});
  collecting.child.kill('SIGCONT');
  t.not(second.code, 0);
  t.regex(second.stderr, /another backref is using/);
  t.is(await collecting.ended, 0);
});
