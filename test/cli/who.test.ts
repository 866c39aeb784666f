import test, {type ExecutionContext} from 'ava';
import {call} from '../support/command.ts';
import {configured, resultIn, serveFile} from '../support/configured.ts';
import {contentOf, imageManifest, randomBlob} from '../support/content.ts';

const layer = randomBlob(200_000);
const config = contentOf(Buffer.from('{}'));
const image = imageManifest([layer]);

/** A server that hosts an image, and commands on its store. */
async function setUp(t: ExecutionContext) {
  const {file} = await configured(t, 'registries: {apps.local: {default: true, push: local}}');
  const {server, url} = await serveFile(t, file);
  const ask = async (path: string, init: RequestInit = {}) => {
    const response = await fetch(`${url}/v2/team/app/${path}`, init);
    await response.arrayBuffer();
    return response.status;
  };
  for (const {digest, bytes} of [layer, config])
    t.is(await ask(`blobs/uploads/?digest=${digest}`, {method: 'POST', body: new Uint8Array(bytes)}), 201);
  const put = {method: 'PUT', headers: {'Content-Type': image.mediaType}, body: new Uint8Array(image.bytes)};
  t.is(await ask('manifests/1', put), 201);
  const who = (...args: string[]) => call(['who', ...args, '--config', file]);
  return {server, ask, who};
}

test('who lists who pulled a digest, beside the running server and without one', async (t) => {
  const {server, ask, who} = await setUp(t);
  t.is(await ask('manifests/1'), 200);
  t.is(await ask('manifests/1'), 200);
  t.is(await ask(`blobs/${layer.digest}`, {headers: {Range: 'bytes=0-9'}}), 206);
  const {code, stdout} = await who(image.digest, '--json');
  t.is(code, 0);
  const {pulls} = resultIn(stdout);
  t.like(pulls, {length: 1});
  t.like(pulls[0], {caller: 'anonymous', repository: 'apps.local/team/app', address: '127.0.0.1', pulls: 2});
  await server.close();
  const table = await who(layer.digest);
  t.is(table.code, 0);
  t.regex(
    table.stdout,
    /^REPOSITORY +CALLER +ADDRESS +PULLS +LAST\napps\.local\/team\/app +anonymous +127\.0\.0\.1 +1 +\S/,
  );
});

test('a push, a HEAD, a 304 and a miss are not pulls', async (t) => {
  const {ask, who} = await setUp(t);
  t.is(await ask('manifests/1', {method: 'HEAD'}), 200);
  t.is(await ask('manifests/1', {headers: {'If-None-Match': `"${image.digest}"`}}), 304);
  t.is(await ask('manifests/2'), 404);
  const {code, stdout} = await who(image.digest);
  t.is(stdout, `Nobody pulled ${image.digest}, as far as is remembered.\n`);
  t.is(code, 1);
});

test('a text that is not a digest is refused with what is expected', async (t) => {
  const {who} = await setUp(t);
  const {code, stderr} = await who('alpine:3');
  t.is(code, 2);
  t.regex(stderr, /"alpine:3" is not a digest: write sha256: and 64 hexadecimal digits/);
});
