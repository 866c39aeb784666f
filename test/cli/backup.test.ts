import {mkdir, readdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {call, run, signalAfter, start} from '../support/command.ts';
import {configured, serveFile} from '../support/configured.ts';
import {contentOf, imageManifest, randomBlob} from '../support/content.ts';

/** A configuration with a data folder of its own. */
async function setUp(t: ExecutionContext) {
  const {cwd, file} = await configured(t, 'registries: {hosted.test: {default: true}}');
  const serving = () => serveFile(t, file);
  const command = (name: string, folder: string, ...rest: string[]) => [
    name,
    folder,
    '--config',
    file,
    ...rest,
  ];
  return {cwd, folder: join(cwd, 'backup'), serving, command};
}

async function send(url: string, method: string, mediaType: string, body: Buffer): Promise<void> {
  const answer = await fetch(url, {
    method,
    headers: {'content-type': mediaType},
    body: new Uint8Array(body),
  });
  if (answer.status !== 201) throw new Error(`${answer.status} ${await answer.text()}`);
}

/** Pushes an image with one layer of a thousand bytes. */
async function pushImage(url: string, tag: string) {
  const layer = randomBlob(1000);
  const image = imageManifest([layer]);
  for (const {bytes, digest} of [layer, contentOf(Buffer.from('{}'))]) {
    const upload = `${url}/v2/team/app/blobs/uploads/?digest=${digest}`;
    await send(upload, 'POST', 'application/octet-stream', bytes);
  }
  await send(`${url}/v2/team/app/manifests/${tag}`, 'PUT', image.mediaType, image.bytes);
  return {image, layer};
}

const pull = async (url: string, path: string): Promise<Buffer> =>
  Buffer.from(await (await fetch(`${url}/v2/team/app/${path}`)).arrayBuffer());

test('a backup beside a running server is restored beside another one', async (t) => {
  const source = await setUp(t);
  const {url} = await source.serving();
  const {image, layer} = await pushImage(url, 'v1');
  const backedUp = await call(source.command('backup', source.folder));
  t.is(backedUp.code, 0, backedUp.stderr);
  t.is(
    backedUp.stdout,
    `The backup has 1 manifest, 1 tag and 2 blobs. New in it: 3 of these, ${((1002 + image.bytes.length) / 1000).toFixed(1)} kB.\n`,
  );
  const target = await setUp(t);
  const restored = await target.serving();
  const {code, stdout} = await call(target.command('restore', source.folder));
  t.is(code, 0);
  t.is(stdout, 'Restored 1 manifest, 1 tag and 2 blobs: 1.0 kB. The rest was here.\n');
  t.deepEqual(await pull(restored.url, 'manifests/v1'), image.bytes);
  t.deepEqual(await pull(restored.url, `blobs/${layer.digest}`), layer.bytes);
});

test('without servers both open the store themselves, and report to machines in JSON', async (t) => {
  const source = await setUp(t);
  const {server, url} = await source.serving();
  const {image} = await pushImage(url, 'v1');
  await server.close();
  const lines = ({stdout}: {stdout: string}) =>
    stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
  const bytes = 1002 + image.bytes.length;
  const backedUp = lines(await call(source.command('backup', source.folder, '--json')));
  t.deepEqual(backedUp.at(-2), {progress: {done: 1, copied: 3, bytes}});
  const result = {manifests: 1, tags: 1, blobs: 2};
  t.deepEqual(backedUp.at(-1), {result: {...result, copied: 3, bytes, missing: 0}});

  const target = await setUp(t);
  const restored = lines(await call(target.command('restore', source.folder, '--json')));
  t.is(restored.at(-2).progress.done, 1);
  t.deepEqual(restored.at(-1), {result: {...result, bytes: 1002, keptTags: 0}});
  const {url: next} = await target.serving();
  t.deepEqual(await pull(next, 'manifests/v1'), image.bytes);
});

test('a killed backup is continued by the next one', async (t) => {
  const {cwd, folder, serving, command} = await setUp(t);
  const {server, url} = await serving();
  for (let index = 0; index < 5; index++) await pushImage(url, `v${index}`);
  await server.close();
  const env = await signalAfter(cwd, '"copied":7,', 'SIGKILL');
  const killed = start(t, command('backup', folder, '--json'), {cwd, env});
  t.is(await killed.ended, 'SIGKILL');
  t.false((await readdir(folder)).includes('index.json'));
  const incomplete = await call(command('restore', folder));
  t.is(incomplete.code, 1);
  t.regex(incomplete.stderr, /is not complete: there is no index\.json/);
  const {code, stdout} = await call(command('backup', folder, '--json'));
  t.is(code, 0);
  const {result} = JSON.parse(stdout.trim().split('\n').at(-1) ?? '');
  t.like(result, {manifests: 5, tags: 5, blobs: 6, copied: 4});
});

test('SIGINT ends a backup with 130', async (t) => {
  const {cwd, folder, serving, command} = await setUp(t);
  const {server, url} = await serving();
  for (let index = 0; index < 3; index++) await pushImage(url, `v${index}`);
  await server.close();
  const env = await signalAfter(cwd, '"copied":3,', 'SIGINT');
  const {code, stdout} = await run(t, command('backup', folder, '--json'), {cwd, env});
  t.is(code, 130);
  t.regex(stdout, /"error":\{"message":"SIGINT: interrupted; what was done is kept/);
});

test('wrong folders are refused with 1, and nothing is created', async (t) => {
  const {cwd, folder, serving, command} = await setUp(t);
  const noStore = await call(command('backup', folder));
  t.is(noStore.code, 1);
  t.regex(noStore.stderr, /^There is no store/);
  const noBackup = await call(command('restore', folder));
  t.is(noBackup.code, 1);
  t.is(noBackup.stderr, `There is no folder ${folder}: name the folder of a backup.\n`);
  t.deepEqual(await readdir(cwd), ['f.yaml']);

  await serving();
  await mkdir(folder);
  await writeFile(join(folder, 'notes.txt'), '');
  const full = await call(command('backup', folder, '--json'));
  t.is(full.code, 1);
  t.regex(JSON.parse(full.stdout).error.message, /is not empty and not a backup/);
  t.deepEqual(await readdir(folder), ['notes.txt']);
});
