import {mkdir, symlink} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../src/caller.ts';
import {OciError} from '../../src/oci/errors.ts';
import type {BlobStore} from '../../src/storage/blob-store.ts';
import {DiskFailed, type StoredPart} from '../../src/storage/disk.ts';
import {ask, startHttpServer} from '../http/http-server.ts';
import {type Backref, createMovableClock, startBackref} from '../support/backref.ts';
import {blobAnswer, randomBlob} from '../support/content.ts';
import {errorOf} from '../support/pusher.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';
import {wireInProcess} from '../support/wired.ts';
import {chunkOf} from './push/hosted.ts';

const [small, large] = [randomBlob(1000), randomBlob(200_000)];
/** Linux answers EIO to whoever writes to the first page of a process's memory. */
const UNWRITABLE = '/proc/self/mem';

const failureOf = (part: StoredPart): DiskFailed =>
  new DiskFailed(part, {path: '/data', code: 'EIO', cause: new Error('EIO: i/o error, read')});

/** Reports of a server, by what is wrong. */
function reportsOf({server}: Pick<Backref, 'server'>) {
  const reports = {faults: 0, disk: [] as string[]};
  server.events.on('request.fault', () => {
    reports.faults += 1;
  });
  server.events.on('disk.failed', ({part, code}) => void reports.disk.push(`${part} ${code}`));
  return reports;
}

/** Puts a file there that cannot be written to. */
async function plant({folder}: Backref, spool: string): Promise<void> {
  await mkdir(join(folder, 'spool'), {recursive: true});
  await symlink(UNWRITABLE, join(folder, 'spool', spool));
}

test('a blob that the disk does not let write is served, and the failure is reported', async (t) => {
  const path = `/v2/library/app/blobs/${small.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${path}`, answer: blobAnswer(small), times: 2},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const reports = reportsOf(proxy);
  await plant(proxy, `sha256-${small.digest.slice('sha256:'.length)}.part`);
  t.deepEqual((await proxy.ask(`/v2/app/blobs/${small.digest}`)).body, small.bytes);
  await proxy.idle();
  t.true(reports.disk.includes('blobs EIO'));
  t.is(reports.faults, 0);
  t.regex(
    (await proxy.ask('/metrics')).body.toString(),
    /^backref_disk_failures_total\{part="blobs"\} [1-9]/m,
  );
  t.deepEqual((await proxy.ask(`/v2/app/blobs/${small.digest}`)).body, small.bytes);
});

test('a push that the disk does not let write is 503, names the disk, and is no defect', async (t) => {
  const proxy = await startBackref(t, {registries: [{library: false}]});
  const reports = reportsOf(proxy);
  const begun = await proxy.ask('/v2/app/blobs/uploads/', {method: 'POST'});
  const location = String(begun.headers['location']);
  await plant(proxy, `upload-${location.split('/').at(-1)}.part`);
  const refused = await proxy.ask(location, {
    method: 'PATCH',
    headers: {'Content-Length': large.bytes.length},
    body: large.bytes,
  });
  t.is(refused.status, 503, refused.body.toString());
  t.is(refused.headers['retry-after'], '5');
  t.is(errorOf(refused).code, 'UNAVAILABLE');
  t.regex(errorOf(refused).message, /^the disk that holds the blobs of this registry fails/);
  t.true(reports.disk.includes('blobs EIO'));
  t.is(reports.faults, 0);
});

/** A store that fails to read once it holds something. */
function unreadable() {
  const disk = {fails: false};
  const store = (real: BlobStore): BlobStore => ({
    ...real,
    async *open(digest, range) {
      if (disk.fails) throw failureOf('blobs');
      yield* real.open(digest, range);
    },
    async *inspect(digest) {
      if (disk.fails) throw failureOf('blobs');
      yield* real.inspect(digest);
    },
  });
  return {disk, store};
}

async function pulled(t: ExecutionContext, blob: typeof small, again: readonly Expectation[]) {
  const path = `/v2/library/app/blobs/${blob.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${path}`, answer: blobAnswer(blob)},
    ...again,
  ]);
  const {disk, store} = unreadable();
  const parts = {registries: [upstream], clock: createMovableClock(), store};
  const {verbs, route, content} = await wireInProcess(t, parts);
  const get = () => verbs.blobs.get(route('app'), blob.digest, ANONYMOUS);
  const bytesIn = async (answer: Awaited<ReturnType<typeof get>>) =>
    Buffer.concat(await Array.fromAsync(await answer.open(), (chunk) => Buffer.from(chunk)));
  t.deepEqual(await bytesIn(await get()), blob.bytes);
  await content.fills.close();
  disk.fails = true;
  return {get, bytesIn};
}

for (const [kind, blob] of [
  ['small', small],
  ['large', large],
] as const) {
  const path = `/v2/library/app/blobs/${blob.digest}`;
  const head = {headers: {'Content-Length': String(blob.bytes.length)}, body: []};

  test(`a ${kind} stored blob that the disk does not let read comes from the upstream`, async (t) => {
    const {get, bytesIn} = await pulled(t, blob, [
      ...(kind === 'small' ? [{request: `HEAD ${path}`, answer: head}] : []),
      {request: `GET ${path}`, answer: blobAnswer(blob)},
    ]);
    t.deepEqual(await bytesIn(await get()), blob.bytes);
  });
}

test('a stored blob that neither the disk nor the upstream gives is unavailable, not absent', async (t) => {
  const {get} = await pulled(t, small, [
    {request: `HEAD /v2/library/app/blobs/${small.digest}`, answer: {status: 404}},
  ]);
  const error = await t.throwsAsync(get, {instanceOf: OciError});
  t.is(error?.status, 503);
});

test('a pushed blob that the disk does not let read is unavailable, not absent', async (t) => {
  const {disk, store} = unreadable();
  const clock = createMovableClock();
  const {verbs, route} = await wireInProcess(t, {registries: [{library: false}], clock, store});
  const begun = await verbs.push.begin(route('app'), {algorithm: undefined, mount: undefined}, ANONYMOUS);
  if (begun === 'mounted') return t.fail('mounted');
  await verbs.push.finish(route('app'), begun.id, small.digest, chunkOf(small.bytes), ANONYMOUS);
  disk.fails = true;
  const error = await t.throwsAsync(verbs.blobs.get(route('app'), small.digest, ANONYMOUS), {
    instanceOf: OciError,
  });
  t.is(error?.status, 503);
});

for (const part of ['blobs', 'metadata'] as const) {
  test(`any request that fails with the disk of the ${part} is 503 and no defect`, async (t) => {
    const fails = async () => {
      throw failureOf(part);
    };
    const {port, faults} = await startHttpServer(t, {
      verbs: {catalog: {ofAll: fails, ofOne: fails}} as never,
    });
    const answer = await ask(port, 'GET', '/v2/_catalog');
    t.is(answer.status, 503);
    t.like(JSON.parse(answer.body.toString()), {errors: [{code: 'UNAVAILABLE'}]});
    t.deepEqual(faults, []);
  });
}
