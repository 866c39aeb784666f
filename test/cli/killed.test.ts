import {readFile, writeFile} from 'node:fs/promises';
import {get, type IncomingMessage} from 'node:http';
import {join} from 'node:path';
import test from 'ava';
import {startBackref} from '../support/backref.ts';
import {PATIENT, start} from '../support/command.ts';
import {blobAnswer, contentOf, imageManifest, randomBlob} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {referrerOf} from '../support/referrers.ts';
import {createScriptedUpstream, HANG} from '../support/scripted-upstream.ts';

const MiB = 1024 * 1024;
const blob = randomBlob(8 * MiB);
const PATH = `/v2/app/blobs/${blob.digest}`;
const REQUEST = `GET /v2/library/app/blobs/${blob.digest}`;

/** Resolves when so many bytes of the answer are here. */
async function receive(url: string, count: number): Promise<void> {
  const message = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, resolve).once('error', reject);
  });
  let length = 0;
  await new Promise<void>((resolve) => {
    message.on('error', () => {});
    message.on('data', (chunk: Buffer) => {
      length += chunk.length;
      if (length >= count) resolve();
    });
  });
}

test('kill -9 during a download: the next process resumes from the partial file', async (t) => {
  const folder = await createFolder(t);
  const upstream = await createScriptedUpstream(t, [
    {
      request: REQUEST,
      answer: {headers: {'Content-Length': String(8 * MiB)}, body: [blob.bytes.subarray(0, 6 * MiB), HANG]},
    },
  ]);
  const file = join(folder, 'backref.yaml');
  const settings = {
    listen: {host: '127.0.0.1', port: 0},
    storage: {path: folder},
    registries: {
      'docker.io': {
        default: true,
        library: true,
        upstream: {url: upstream.url, insecure: true, timeouts: PATIENT},
      },
    },
  };
  await writeFile(file, JSON.stringify(settings));
  const process = start(t, ['serve', '--config', file], {cwd: folder});
  const [, url] = await process.prints(/listens on (http:\/\/127\.0\.0\.1:\d+)/);
  await receive(`${url}${PATH}`, 6 * MiB);
  process.child.kill('SIGKILL');
  await process.ended;

  const part = await readFile(join(folder, 'spool', `${blob.digest.replace(':', '-')}.part`));
  t.true(part.length > MiB);
  t.true(part.equals(blob.bytes.subarray(0, part.length)));
  upstream.expect({request: REQUEST, sends: {range: `bytes=${part.length - 1}-`}, answer: blobAnswer(blob)});
  const next = await startBackref(t, {registries: [upstream], folder});
  t.true((await next.ask(PATH)).body.equals(blob.bytes));
});

test('kill -9 right after the response: accepted content is there, and an upload can be resumed', async (t) => {
  const folder = await createFolder(t);
  const file = join(folder, 'backref.yaml');
  const settings = {
    listen: {host: '127.0.0.1', port: 0},
    storage: {path: folder},
    registries: {'docker.io': {default: true, push: 'local'}},
  };
  await writeFile(file, JSON.stringify(settings));
  const process = start(t, ['serve', '--config', file], {cwd: folder});
  const [, url] = await process.prints(/listens on (http:\/\/127\.0\.0\.1:\d+)/);
  const send = (method: string, path: string, body: Buffer, type = 'application/octet-stream') =>
    fetch(new URL(path, url), {method, body: new Uint8Array(body), headers: {'Content-Type': type}});

  const config = contentOf(Buffer.from('{}'));
  const layer = randomBlob(MiB);
  const image = imageManifest([layer]);
  const attached = referrerOf(image);
  const statuses = [];
  for (const {bytes, digest} of [config, layer]) {
    statuses.push(await send('POST', `/v2/team/app/blobs/uploads/?digest=${digest}`, bytes));
  }
  const begun = await send('POST', '/v2/team/app/blobs/uploads/', Buffer.alloc(0));
  const session = begun.headers.get('location') ?? '';
  const unfinished = await send('PATCH', session, blob.bytes.subarray(0, MiB));
  statuses.push(await send('PUT', '/v2/team/app/manifests/v1', image.bytes, image.mediaType));
  statuses.push(
    await send('PUT', `/v2/team/app/manifests/${attached.digest}`, attached.bytes, attached.mediaType),
  );
  process.child.kill('SIGKILL');
  await process.ended;
  t.deepEqual(
    statuses.map(({status}) => status),
    [201, 201, 201, 201],
  );
  t.is(unfinished.status, 202);

  const next = await startBackref(t, {registries: [{library: false}], folder});
  t.true((await next.ask('/v2/team/app/manifests/v1')).body.equals(image.bytes));
  t.true((await next.ask(`/v2/team/app/blobs/${layer.digest}`)).body.equals(layer.bytes));
  const list = await next.ask(`/v2/team/app/referrers/${image.digest}`);
  t.like(list.json(), {manifests: [{digest: attached.digest}]});
  t.is((await next.ask(session)).headers['range'], `0-${MiB - 1}`);
  const rest = blob.bytes.subarray(MiB);
  const closed = await next.ask(`${session}?digest=${blob.digest}`, {
    method: 'PUT',
    headers: {'Content-Range': `${MiB}-${8 * MiB - 1}`, 'Content-Length': rest.length},
    body: rest,
  });
  t.is(closed.status, 201);
  t.true((await next.ask(`/v2/team/app/blobs/${blob.digest}`)).body.equals(blob.bytes));
});
