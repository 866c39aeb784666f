import test from 'ava';
import {ANONYMOUS} from '../../src/caller.ts';
import {OciError} from '../../src/oci/errors.ts';
import {OCI_INDEX} from '../../src/oci/media-type.ts';
import {parseTag} from '../../src/oci/name.ts';
import {DiskFull, type DiskProblem, type Metadata} from '../../src/storage/metadata.ts';
import type {Spools} from '../../src/storage/spool.ts';
import {createMovableClock, DAY, startBackref} from '../support/backref.ts';
import {
  blobAnswer,
  contentOf,
  headAnswer,
  manifestAnswer,
  plainManifest,
  randomBlob,
  sameBytes,
} from '../support/content.ts';
import {fillDisk} from '../support/full-disk.ts';
import {errorOf} from '../support/pusher.ts';
import {
  askUntilWritten,
  descriptorOf,
  fallbackTagOf,
  indexBytes,
  listAnswer,
  referrerOf,
} from '../support/referrers.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';
import {wireInProcess} from '../support/wired.ts';

const MINUTE = 60_000;
const image = plainManifest();
const newer = plainManifest();
const blob = randomBlob(200_000);
const MANIFESTS = '/v2/library/app/manifests';
const get = (manifest: typeof image, reference: string = manifest.digest): Expectation => ({
  request: `GET ${MANIFESTS}/${reference}`,
  answer: manifestAnswer(manifest),
});
const head = (manifest: typeof image, reference: string): Expectation => ({
  request: `HEAD ${MANIFESTS}/${reference}`,
  answer: headAnswer(manifest),
});

test('with a full disk a manifest is served uncached, and kept once there is space', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    get(image, '1'),
    get(image, '1'),
    get(image),
    get(image, '1'),
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const tasks: string[] = [];
  proxy.server.events.on('background.failed', ({task}) => void tasks.push(task));
  const free = fillDisk(proxy.folder);
  for (const reference of ['1', '1', image.digest]) {
    const got = await proxy.ask(`/v2/app/manifests/${reference}`);
    t.is(got.status, 200);
    sameBytes(t, got.body, image.bytes);
    t.is(got.headers['cache-status'], 'backref;fwd=uri-miss;detail=uncached');
  }
  t.deepEqual(tasks, ['keep a manifest', 'keep a manifest', 'keep a manifest']);
  free();
  t.regex(String((await proxy.ask('/v2/app/manifests/1')).headers['cache-status']), /stored/);
  t.regex(String((await proxy.ask('/v2/app/manifests/1')).headers['cache-status']), /hit/);
});

test('with a full disk an expired tag is still checked: unchanged, moved and gone', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    get(image, '1'),
    head(image, '1'),
    head(newer, '1'),
    get(newer),
    {request: `HEAD ${MANIFESTS}/1`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, tags: {keepDeleted: 0}}]});
  await proxy.ask('/v2/app/manifests/1');
  fillDisk(proxy.folder);
  proxy.clock.move(MINUTE);
  sameBytes(t, (await proxy.ask('/v2/app/manifests/1')).body, image.bytes);
  sameBytes(t, (await proxy.ask('/v2/app/manifests/1')).body, newer.bytes);
  proxy.clock.move(MINUTE);
  t.is((await proxy.ask('/v2/app/manifests/1')).status, 404);
});

test('with a full disk content of another repository is served once the upstream has confirmed it', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    get(image),
    {request: `HEAD /v2/library/other/manifests/${image.digest}`, answer: headAnswer(image)},
    {request: `GET /v2/library/other/manifests/${image.digest}`, answer: manifestAnswer(image)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/app/manifests/${image.digest}`);
  fillDisk(proxy.folder);
  sameBytes(t, (await proxy.ask(`/v2/other/manifests/${image.digest}`)).body, image.bytes);
});

test('with a full disk a blob is served, also to HEAD', async (t) => {
  const path = `/v2/library/app/blobs/${blob.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${path}`, answer: {headers: {'Content-Length': '200000'}, body: []}},
    {request: `GET ${path}`, answer: blobAnswer(blob), times: 3},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const free = fillDisk(proxy.folder);
  const found = await proxy.ask(`/v2/app/blobs/${blob.digest}`, {method: 'HEAD'});
  t.is(found.status, 200);
  t.is(found.headers['content-length'], '200000');
  for (let pull = 0; pull < 2; pull++) {
    sameBytes(t, (await proxy.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
    await proxy.idle();
  }
  free();
  sameBytes(t, (await proxy.ask(`/v2/app/blobs/${blob.digest}`)).body, blob.bytes);
  await proxy.idle();
  t.is((await proxy.ask(`/v2/app/blobs/${blob.digest}`)).headers['cache-status'], 'backref;hit');
});

test('with a full disk a tag list is served uncached', async (t) => {
  const list = {body: JSON.stringify({name: 'library/app', tags: ['b', 'a']})};
  const request = 'GET /v2/library/app/tags/list?n=1000';
  const upstream = await createScriptedUpstream(t, [{request, answer: list, times: 2}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  fillDisk(proxy.folder);
  for (let time = 0; time < 2; time++) {
    const got = await proxy.ask('/v2/app/tags/list');
    t.deepEqual(got.json(), {name: 'app', tags: ['a', 'b']});
    t.notRegex(String(got.headers['cache-status']), /stored/);
  }
});

test('with a full disk the stored list of referrers is served with a warning, never an empty one', async (t) => {
  const sbom = referrerOf(image);
  const API = 'GET /v2/library/app/referrers';
  const upstream = await createScriptedUpstream(t, [
    {request: `${API}/${image.digest}`, answer: listAnswer([descriptorOf(sbom)]), times: 2},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  const before = await askUntilWritten(proxy, `/v2/app/referrers/${image.digest}`);
  fillDisk(proxy.folder);
  proxy.clock.move(MINUTE);
  const got = await proxy.ask(`/v2/app/referrers/${image.digest}`);
  t.is(got.status, 200);
  sameBytes(t, got.body, before.body);
  t.regex(String(got.headers['warning']), /^299 .*there is no room to keep a newer list/);
});

test('with a full disk a first-time list is served uncached, unless it has more than a page', async (t) => {
  const [sbom, other] = [referrerOf(image), plainManifest()];
  const [huge, hugeToo] = [referrerOf(other), referrerOf(other)].map((manifest) => ({
    ...descriptorOf(manifest),
    annotations: {filling: 'x'.repeat(3 * 1024 * 1024)},
  }));
  const API = 'GET /v2/library/app/referrers';
  const upstream = await createScriptedUpstream(t, [
    {request: `${API}/${image.digest}`, answer: listAnswer([descriptorOf(sbom)]), times: 2},
    {request: `${API}/${other.digest}`, answer: listAnswer([huge, hugeToo])},
  ]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {mode: 'api'}}]});
  let failed = Promise.withResolvers<void>();
  proxy.server.events.on('background.failed', () => failed.resolve());
  fillDisk(proxy.folder);
  for (let time = 0; time < 2; time++) {
    failed = Promise.withResolvers<void>();
    const got = await proxy.ask(`/v2/app/referrers/${image.digest}`);
    t.is(got.status, 200);
    t.like(got.json(), {manifests: [{digest: sbom.digest}]});
    t.notRegex(String(got.headers['cache-status']), /stored/);
    await failed.promise;
  }
  const unknown = await proxy.ask(`/v2/app/referrers/${other.digest}`);
  t.is(unknown.status, 507);
  t.regex(errorOf(unknown).message, /has no space for it/);
});

test('with a full disk a list with a denied entry is the stored one, with a warning', async (t) => {
  const [known, kept, denied] = [referrerOf(image), referrerOf(image), referrerOf(image)];
  const TAG = `GET ${MANIFESTS}/${fallbackTagOf(image)}`;
  const tagOf = (...entries: (typeof known)[]) =>
    manifestAnswer({...contentOf(indexBytes(entries.map(descriptorOf))), mediaType: OCI_INDEX});
  const upstream = await createScriptedUpstream(t, [
    {request: TAG, answer: tagOf(known)},
    get(known),
    {request: TAG, answer: tagOf(known, kept, denied)},
    get(kept),
    {request: `GET ${MANIFESTS}/${denied.digest}`, answer: {status: 403}},
  ]);
  const registries = [{url: upstream.url, referrers: {mode: 'tag' as const}}];
  const proxy = await startBackref(t, {registries, clock: createMovableClock()});
  await askUntilWritten(proxy, `/v2/app/referrers/${image.digest}`);
  fillDisk(proxy.folder);
  proxy.clock.move(10 * MINUTE);
  const got = await proxy.ask(`/v2/app/referrers/${image.digest}`);
  t.is(got.status, 200);
  const listed = JSON.parse(got.body.toString()).manifests.map(({digest}: {digest: string}) => digest);
  t.deepEqual(listed, [known.digest]);
  t.regex(String(got.headers['warning']), /^299 .*there is no room to keep a newer list/);
});

test('HEAD finds a pushed blob even if its access cannot be recorded', async (t) => {
  const proxy = await startBackref(t, {registries: [{library: false}]});
  const pushed = await proxy.ask(`/v2/app/blobs/uploads/?digest=${blob.digest}`, {
    method: 'POST',
    headers: {'Content-Length': blob.bytes.length},
    body: blob.bytes,
  });
  t.is(pushed.status, 201);
  fillDisk(proxy.folder);
  proxy.clock.move(DAY);
  t.is((await proxy.ask(`/v2/app/blobs/${blob.digest}`, {method: 'HEAD'})).status, 200);
});

const PROBLEMS: [state: string, problem: DiskProblem, code: string, says: RegExp][] = [
  ['whose quota is used up', 'failing', 'EDQUOT', /^the disk is full.*: this registry has no space for it/],
  ['that is read-only', 'read-only', 'EROFS', /^the disk of this registry is read-only/],
];
for (const [state, problem, code, says] of PROBLEMS) {
  const refuse = () => Promise.reject(Object.assign(new Error(code), {code}));
  const refusing = {
    metadata: (real: Metadata): Metadata => ({
      ...real,
      commit: () => Promise.reject(new DiskFull(problem, 'took no commit')),
    }),
    spools: (real: Spools): Spools => ({...real, open: refuse}),
  };

  test(`from a disk ${state} manifests and blobs are served uncached`, async (t) => {
    const path = `/v2/library/app/blobs/${blob.digest}`;
    const upstream = await createScriptedUpstream(t, [
      get(image, '1'),
      {request: `HEAD ${path}`, answer: {headers: {'Content-Length': '200000'}, body: []}},
      {request: `GET ${path}`, answer: blobAnswer(blob)},
    ]);
    const clock = createMovableClock();
    const {verbs, route} = await wireInProcess(t, {registries: [upstream], clock, ...refusing});
    const pulled = await verbs.manifests.get(route('app'), parseTag('1'), ANONYMOUS, {noCache: false});
    t.is(pulled.report.detail, 'uncached');
    sameBytes(t, pulled.bytes, image.bytes);
    const {report, open} = await verbs.blobs.get(route('app'), blob.digest, ANONYMOUS);
    t.is(report.detail, 'uncached');
    // A chunk is the reader's only until it asks for the next one.
    const chunks = await Array.fromAsync(await open(), (chunk) => Buffer.from(chunk));
    sameBytes(t, Buffer.concat(chunks), blob.bytes);
  });

  test(`a push to a disk ${state} is 507`, async (t) => {
    const clock = createMovableClock();
    const {verbs, route} = await wireInProcess(t, {registries: [{library: false}], clock, ...refusing});
    const error = await t.throwsAsync(
      verbs.push.begin(route('app'), {algorithm: undefined, mount: undefined}, ANONYMOUS),
      {instanceOf: OciError},
    );
    t.is(error?.status, 507);
    t.regex(String(error?.message), says);
  });
}
