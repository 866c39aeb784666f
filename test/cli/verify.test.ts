import {readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {loadConfig} from '../../src/config/load.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {createServer} from '../../src/server.ts';
import {call} from '../support/command.ts';
import {createFolder} from '../support/folder.ts';

const blob = Buffer.from('pushed here');
const digest = digestOf(blob);

/** A server that a blob was pushed to. */
async function setUp(t: ExecutionContext) {
  const cwd = await createFolder(t);
  const config = join(cwd, 'f.yaml');
  const data = join(cwd, 'data');
  await writeFile(
    config,
    `listen: {host: 127.0.0.1, port: 0}
storage: {path: ${data}}
registries: {hosted.test: {default: true}}
`,
  );
  const server = createServer(await loadConfig({file: config, env: {}}), {env: {}});
  t.teardown(() => server.close());
  const {url} = await server.listen();
  const pushed = await fetch(`${url}/v2/team/app/blobs/uploads/?digest=${digest}`, {
    method: 'POST',
    headers: {'content-type': 'application/octet-stream'},
    body: blob,
  });
  t.is(pushed.status, 201);
  const encoded = digest.slice('sha256:'.length);
  const file = join(data, 'blobs', 'sha256', encoded.slice(0, 2), encoded);
  return {server, url, verify: ['verify', '--config', config], file};
}

test('in a sound store it says what it hashed, and exits with 0', async (t) => {
  const {verify} = await setUp(t);
  const {code, stdout} = await call(verify);
  t.is(stdout, 'Hashed 1 blob and 0 manifests, 11 B: nothing is bad.\n');
  t.is(code, 0);
});

test('beside a running server, a bad pushed blob is reported and no longer served', async (t) => {
  const {url, verify, file} = await setUp(t);
  await writeFile(file, 'pushed hera');

  const dry = await call([...verify, '--dry-run']);
  t.is(dry.code, 1);
  t.is((await readFile(file)).toString(), 'pushed hera');

  const {code, stdout} = await call(verify);
  t.is(code, 1);
  t.is(
    stdout,
    [
      'Hashed 1 blob and 0 manifests, 0 B: 1 bad.',
      `  PUSHED HERE: blob ${digest} is damaged`,
      'Pushed here and lost: 1. Push it again, or restore a backup; damaged blobs are kept in quarantine/local of the blob store.',
      '',
    ].join('\n'),
  );
  t.is((await fetch(`${url}/v2/team/app/blobs/${digest}`)).status, 404);
});

test('without a server it opens the store itself, and reports to machines in JSON', async (t) => {
  const {server, verify, file} = await setUp(t);
  await server.close();
  await writeFile(file, 'short');
  const {code, stdout} = await call([...verify, '--json']);
  t.is(code, 1);
  t.deepEqual(JSON.parse(stdout.trim().split('\n').at(-1) ?? ''), {
    result: {
      blobs: 1,
      manifests: 0,
      bytes: 0,
      unrecorded: 0,
      sizes: 0,
      copies: 0,
      local: 1,
      bad: [{kind: 'blob', digest, origin: 'local', problem: 'damaged'}],
    },
  });
});
