import {mkdir, symlink} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {type Backref, startBackref} from '../../support/backref.ts';
import {blobAnswer, manifestAnswer, plainManifest, randomBlob, sha256} from '../../support/content.ts';
import {createScriptedUpstream, type Expectation, HANG} from '../../support/scripted-upstream.ts';

const MiB = 1024 * 1024;
const chunk = Buffer.alloc(MiB);
/** Of a blob whose bytes are never verified: it only has to be far larger than what the sockets in between hold. */
const digest = digestOf(Buffer.from('large'));
const LENGTH = 96 * MiB;
const FAR = 16 * MiB;
const PATH = `/v2/app/blobs/${digest}`;
const GET = `GET /v2/library/app/blobs/${digest}`;
const stream = (bytes: number) => Array.from({length: bytes / MiB}, () => chunk);

const other = randomBlob(3 * MiB);
const manifest = plainManifest();
const OTHERS: Expectation[] = [
  {request: 'GET /v2/library/app/manifests/v1', answer: manifestAnswer(manifest)},
  {request: `GET /v2/library/app/blobs/${other.digest}`, answer: blobAnswer(other)},
];

async function assertOthersAreServed(t: ExecutionContext, proxy: Backref): Promise<void> {
  const tagged = await proxy.ask('/v2/app/manifests/v1');
  t.is(tagged.status, 200, tagged.body.toString());
  const filled = await proxy.ask(`/v2/app/blobs/${other.digest}`);
  t.is(filled.status, 200);
  t.is(sha256(filled.body), other.digest);
}

test('a client that does not read a far range delays no manifest and no download', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {headers: {'content-length': String(LENGTH)}, body: [chunk, HANG]}},
    {
      request: GET,
      sends: {range: `bytes=${FAR}-${LENGTH - 1}`},
      answer: {
        status: 206,
        headers: {'content-range': `bytes ${FAR}-${LENGTH - 1}/${LENGTH}`},
        body: stream(LENGTH - FAR),
      },
    },
    ...OTHERS,
  ]);
  const bodies = {concurrency: {heads: 8, manifests: 2, bodies: 2}};
  const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: bodies}]});
  const whole = await proxy.open(PATH);
  const far = await proxy.open(PATH, {headers: {range: `bytes=${FAR}-`}});
  t.is(far.statusCode, 206);
  await assertOthersAreServed(t, proxy);
  t.false(far.complete);
  for (const message of [whole, far]) message.destroy();
});

test('a client that does not read a blob which a full disk cannot keep delays no manifest and no download', async (t) => {
  const answer = {headers: {'content-length': String(LENGTH)}, body: stream(LENGTH)};
  const upstream = await createScriptedUpstream(t, [{request: GET, answer, times: 2}, ...OTHERS]);
  const bodies = {concurrency: {heads: 8, manifests: 1, bodies: 1}};
  const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: bodies}]});
  await mkdir(join(proxy.folder, 'spool'), {recursive: true});
  await symlink('/dev/full', join(proxy.folder, 'spool', `${digest.replace(':', '-')}.part`));
  const stalled = await proxy.open(PATH);
  t.is(stalled.statusCode, 200);
  await upstream.received(2);
  await assertOthersAreServed(t, proxy);
  t.false(stalled.complete);
  stalled.destroy();
});
