import test from 'ava';
import {OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {createClockWithoutPauses, createMovableClock, startBackref, waiting} from '../../support/backref.ts';
import {
  blobAnswer,
  type Content,
  contentOf,
  headAnswer,
  imageManifest,
  indexOf,
  type ManifestContent,
  manifestAnswer,
  plainManifest,
  randomBlob,
} from '../../support/content.ts';
import {errorOf, pusherTo} from '../../support/pusher.ts';
import {
  descriptorOf,
  fallbackTagOf,
  indexBytes,
  type ListedDescriptor,
  legacy,
  listAnswer,
  referrerOf,
} from '../../support/referrers.ts';
import {createScriptedUpstream, type Expectation, HANG} from '../../support/scripted-upstream.ts';

const config = contentOf(Buffer.from('{}'));
const NAME = 'team/app';
const at = (method: string, path: string) => `${method} /v2/${NAME}/${path}`;
const absent = {status: 404};

/** An overlay on an upstream that expects exactly these requests. */
async function over(
  t: Parameters<typeof startBackref>[0],
  script: Expectation[],
  settings: object = {},
  clock = createMovableClock(),
) {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const backref = await startBackref(t, {
    registries: [{url: upstream.url, library: false, push: 'local', ...settings}],
    clock,
  });
  return {upstream, backref, ...pusherTo(backref, NAME)};
}

const hasBlob = (blob: Content): Expectation[] => [
  {request: at('HEAD', `blobs/${blob.digest}`), answer: {...headOf(blob)}},
  {request: at('GET', `blobs/${blob.digest}`), answer: blobAnswer(blob)},
];
const headOf = ({bytes}: Content) => ({headers: {'Content-Length': String(bytes.length)}, body: []});

const listed = (body: Buffer) => (JSON.parse(body.toString()) as {manifests: ListedDescriptor[]}).manifests;

/** The answers of an upstream with the Referrers API. */
const api = (subject: ManifestContent, entries: readonly ManifestContent[]): Expectation[] => [
  {request: at('GET', `referrers/${subject.digest}`), answer: listAnswer(entries.map(descriptorOf))},
  {request: at('GET', `manifests/${fallbackTagOf(subject)}`), answer: absent, optional: true},
];

test("attachments to an image of the upstream are listed beside the upstream's own", async (t) => {
  const subject = plainManifest();
  const [theirs, ours] = [referrerOf(subject), referrerOf(subject)];
  const {blob, manifest, get} = await over(t, api(subject, [theirs]));
  await blob(config);
  const taken = await manifest(ours);
  t.is(taken.status, 201);
  t.is(taken.headers['oci-subject'], subject.digest);
  const list = listed((await get(`referrers/${subject.digest}`)).body);
  t.deepEqual(list.map(({digest}) => digest).sort(), [theirs.digest, ours.digest].sort());
  t.deepEqual((await get(`manifests/${ours.digest}`)).body, ours.bytes);
});

test('our referrers alone are not a list while the upstream cannot be asked', async (t) => {
  const subject = plainManifest();
  const {upstream, blob, manifest, get} = await over(t, []);
  await blob(config);
  t.is((await manifest(referrerOf(subject))).status, 201);
  await upstream.stop();
  t.is((await get(`referrers/${subject.digest}`)).status, 503);
  t.is((await get(`manifests/${fallbackTagOf(subject)}`)).status, 503);
});

test('the upstream is not asked about a local attachment, and its list does not drop it', async (t) => {
  const subject = plainManifest();
  const ours = referrerOf(subject);
  const {backref, blob, manifest, get} = await over(t, [...api(subject, []), ...api(subject, [])]);
  await blob(config);
  await manifest(ours);
  for (let round = 0; round < 2; round++) {
    t.deepEqual(listed((await get(`referrers/${subject.digest}`)).body), [descriptorOf(ours)]);
    backref.clock.move(61_000);
  }
  t.is((await get(`manifests/${ours.digest}`)).status, 200);
});

for (const [title, content, reference] of [
  ['an image by a tag', imageManifest(), 'latest'],
  ['an image by its digest', imageManifest(), undefined],
  ['an index', indexOf([]), undefined],
  ['an attachment by a tag', referrerOf(plainManifest()), 'latest'],
  ['an image by the tag of referrers', imageManifest(), fallbackTagOf(plainManifest())],
] as const) {
  test(`an overlay refuses, naming the setting: ${title}`, async (t) => {
    const {blob, manifest} = await over(t, []);
    await blob(config);
    const refused = await manifest(content, reference);
    t.is(refused.status, 403);
    const {code, message} = errorOf(refused);
    t.is(code, 'DENIED');
    t.true(message.includes('registries.docker.io.overlay.tags'));
  });
}

test('a further tag that is not allowed refuses the whole manifest', async (t) => {
  const {blob, manifest} = await over(t, [{request: /HEAD .*/, answer: absent, optional: true}]);
  await blob(config);
  const attached = referrerOf(plainManifest());
  t.is((await manifest(attached, attached.digest, '?tag=latest')).status, 403);
});

test("cosign's own tags are accepted and hide no image", async (t) => {
  const {blob, manifest, get} = await over(t, []);
  const tag = `${fallbackTagOf(plainManifest())}.sig`;
  const signature = imageManifest();
  await blob(config);
  t.is((await manifest(signature, tag)).status, 201);
  const got = await get(`manifests/${tag}`);
  t.deepEqual(got.body, signature.bytes);
  t.regex(String(got.headers['cache-status']), /detail=local/);
});

test("where the settings allow it, a pushed tag hides the upstream's and is marked", async (t) => {
  const [theirs, ours] = [plainManifest(), imageManifest()];
  const {
    blob,
    manifest,
    get,
    delete: remove,
  } = await over(
    t,
    [
      {request: at('GET', 'manifests/latest'), answer: manifestAnswer(theirs), times: 1},
      {request: at('HEAD', 'manifests/latest'), answer: headAnswer(theirs), optional: true},
    ],
    {overlay: {tags: 'allow'}},
  );
  t.deepEqual((await get('manifests/latest')).body, theirs.bytes);
  await blob(config);
  t.is((await manifest(ours, 'latest')).status, 201);
  const shadowing = await get('manifests/latest');
  t.deepEqual(shadowing.body, ours.bytes);
  t.regex(String(shadowing.headers['cache-status']), /^backref;hit;detail=local$/);
  t.is((await remove('manifests/latest')).status, 202);
  const again = await get('manifests/latest');
  t.deepEqual(again.body, theirs.bytes);
  t.notRegex(String(again.headers['cache-status']), /local/);
});

test('only pushed content can be deleted; the upstream is not written to', async (t) => {
  const theirs = plainManifest();
  const blob = randomBlob(100);
  const {delete: remove} = await over(t, [
    {request: at('HEAD', 'manifests/v1'), answer: headAnswer(theirs), always: true},
    {request: at('HEAD', `manifests/${theirs.digest}`), answer: headAnswer(theirs), always: true},
    {request: at('HEAD', `blobs/${blob.digest}`), answer: headOf(blob), always: true},
  ]);
  for (const path of ['manifests/v1', `manifests/${theirs.digest}`, `blobs/${blob.digest}`]) {
    const refused = await remove(path);
    t.is(refused.status, 405, path);
    t.is(errorOf(refused).code, 'UNSUPPORTED');
    t.true(errorOf(refused).message.includes('127.0.0.1'));
  }
});

test('deleting content that exists nowhere is unknown', async (t) => {
  const {delete: remove} = await over(t, [{request: /^HEAD/, answer: absent, always: true}]);
  t.is(errorOf(await remove('manifests/v1')).code, 'MANIFEST_UNKNOWN');
  t.is(errorOf(await remove(`manifests/${plainManifest().digest}`)).code, 'MANIFEST_UNKNOWN');
  t.is(errorOf(await remove(`blobs/${config.digest}`)).code, 'BLOB_UNKNOWN');
});

test('a deleted attachment leaves the list, and the upstream is not asked to delete it', async (t) => {
  const subject = plainManifest();
  const ours = referrerOf(subject);
  const {blob, manifest, get, delete: remove} = await over(t, api(subject, []));
  await blob(config);
  await manifest(ours);
  t.is(listed((await get(`referrers/${subject.digest}`)).body).length, 1);
  t.is((await remove(`manifests/${ours.digest}`)).status, 202);
  t.is(listed((await get(`referrers/${subject.digest}`)).body).length, 0);
});

test("the tag list has the upstream's tags and the pushed ones", async (t) => {
  const {backref, upstream, blob, manifest, get} = await over(
    t,
    [
      {
        request: at('GET', 'tags/list?n=1000'),
        answer: {body: JSON.stringify({name: NAME, tags: ['v2', 'v1']})},
      },
    ],
    {overlay: {tags: 'allow'}},
  );
  await blob(config);
  await manifest(imageManifest(), 'v1', '?tag=a&tag=z');
  const names = async (query = '') => (await get(`tags/list${query}`)).json();
  t.deepEqual(await names(), {name: NAME, tags: ['a', 'v1', 'v2', 'z']});
  t.deepEqual(await names('?n=2&last=a'), {name: NAME, tags: ['v1', 'v2']});
  await upstream.stop();
  backref.clock.move(61_000);
  t.deepEqual(await names(), {name: NAME, tags: ['a', 'v1', 'v2', 'z']});
});

test('our tags alone are a list only when the upstream has no tags', async (t) => {
  const {upstream, blob, manifest, get} = await over(
    t,
    [{request: at('GET', 'tags/list?n=1000'), answer: absent}],
    {
      overlay: {tags: 'allow'},
    },
  );
  await blob(config);
  await manifest(imageManifest(), 'a');
  t.deepEqual((await get('tags/list')).json(), {name: NAME, tags: ['a']});
  await upstream.stop();
  await manifest(imageManifest(), 'b');
  t.is((await get('tags/list')).status, 503);
});

test('a blob that only the upstream has is fetched and kept for a manifest that refers to it', async (t) => {
  const subject = plainManifest();
  const layer = randomBlob(50_000);
  const {upstream, backref, blob, manifest, get} = await over(t, hasBlob(layer));
  await blob(config);
  const body = JSON.parse(referrerOf(subject).bytes.toString());
  body.layers = [{mediaType: 'application/x', digest: layer.digest, size: layer.bytes.length}];
  const attached = {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_MANIFEST};
  t.is((await manifest(attached)).status, 201);
  await upstream.stop();
  backref.clock.move(365 * 24 * 60 * 60_000);
  t.deepEqual((await get(`blobs/${layer.digest}`)).body, layer.bytes);
  const gc = await backref.server.commands();
  await gc.collect({grace: 1000, signal: AbortSignal.timeout(60_000), progress: () => {}});
  t.deepEqual((await get(`blobs/${layer.digest}`)).body, layer.bytes);
  t.deepEqual((await get(`manifests/${attached.digest}`)).body, attached.bytes);
});

test('a blob that exists nowhere is missing, and a wrong size causes a Warning', async (t) => {
  const layer = randomBlob(500);
  const {blob, manifest} = await over(t, [
    {request: at('HEAD', `blobs/${config.digest}`), answer: absent},
    ...hasBlob(layer),
  ]);
  const subject = plainManifest();
  t.is(errorOf(await manifest(referrerOf(subject))).code, 'MANIFEST_BLOB_UNKNOWN');
  await blob(config);
  const body = JSON.parse(referrerOf(subject).bytes.toString());
  body.layers = [{mediaType: 'application/x', digest: layer.digest, size: 499}];
  const wrong = {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_MANIFEST};
  const taken = await manifest(wrong);
  t.is(taken.status, 201);
  t.regex(String(taken.headers['warning']), /has 499 bytes, but it has 500/);
});

test('an upstream that cannot be asked for a blob fails the push; the blob is not reported missing', async (t) => {
  const {upstream, manifest} = await over(t, []);
  await upstream.stop();
  t.is((await manifest(referrerOf(plainManifest()))).status, 503);
});

test('an upstream that sends the wrong bytes fails the push and prevents the mount', async (t) => {
  const layer = randomBlob(500);
  const path = `blobs/${layer.digest}`;
  const script = [
    {request: at('HEAD', path), answer: headOf(layer)},
    // Each of the two asks four times.
    {request: at('GET', path), answer: blobAnswer(randomBlob(500)), times: 8},
  ];
  const {backref, blob, manifest} = await over(t, script, {}, createClockWithoutPauses());
  await blob(config);
  const body = JSON.parse(referrerOf(plainManifest()).bytes.toString());
  body.layers = [{mediaType: 'application/x', digest: layer.digest, size: layer.bytes.length}];
  const refused = await manifest({
    ...contentOf(Buffer.from(JSON.stringify(body))),
    mediaType: OCI_MANIFEST,
  });
  t.is(refused.status, 503);
  t.true(errorOf(refused).message.includes(layer.digest));
  const mount = await backref.ask(`/v2/other/app/blobs/uploads/?mount=${layer.digest}&from=${NAME}`, {
    method: 'POST',
  });
  t.is(mount.status, 202);
});

test('an index may refer to manifests of the upstream, which are kept from then on', async (t) => {
  const child = plainManifest();
  const index = indexOf([child]);
  const {upstream, backref, manifest} = await over(
    t,
    [{request: at('GET', `manifests/${child.digest}`), answer: manifestAnswer(child)}],
    {overlay: {tags: 'allow'}},
  );
  t.is((await manifest(index, 'multi')).status, 201);
  await upstream.stop();
  const {get, delete: remove} = pusherTo(await backref.restart(), NAME);
  t.deepEqual((await get('manifests/multi')).body, index.bytes);
  t.deepEqual((await get(`manifests/${child.digest}`)).body, child.bytes);
  t.is((await remove(`manifests/${child.digest}`)).status, 202);
});

test('a blob is mounted from a repository of the upstream that grants it', async (t) => {
  const layer = randomBlob(5000);
  const path = `/v2/base/image/blobs/${layer.digest}`;
  const {upstream, backref, get} = await over(t, [
    {request: `HEAD ${path}`, answer: headOf(layer)},
    {request: `GET ${path}`, answer: blobAnswer(layer)},
  ]);
  const mounted = await backref.ask(`/v2/${NAME}/blobs/uploads/?mount=${layer.digest}&from=base/image`, {
    method: 'POST',
  });
  t.is(mounted.status, 201);
  t.is(mounted.headers['docker-content-digest'], layer.digest);
  await upstream.stop();
  t.deepEqual((await get(`blobs/${layer.digest}`)).body, layer.bytes);
});

test('a mount that the upstream does not grant, or cannot be asked about, begins an upload', async (t) => {
  const layer = randomBlob(5000);
  const {upstream, backref} = await over(t, [
    {request: `HEAD /v2/base/image/blobs/${layer.digest}`, answer: absent},
  ]);
  const mount = () =>
    backref.ask(`/v2/${NAME}/blobs/uploads/?mount=${layer.digest}&from=base/image`, {method: 'POST'});
  t.is((await mount()).status, 202);
  await upstream.stop();
  t.is((await mount()).status, 202);
});

test('readers of the fallback tag get local and upstream attachments, whoever wrote the tag', async (t) => {
  const subject = plainManifest();
  const [theirs, ours] = [referrerOf(subject), referrerOf(subject)];
  const {blob, manifest, get} = await over(t, legacy(NAME, subject, [theirs]));
  await blob(config);
  await manifest(ours);
  const tag = fallbackTagOf(subject);
  const union = [theirs.digest, ours.digest].sort();
  const read = async () => listed((await get(`manifests/${tag}`)).body).map(({digest}) => digest);
  t.deepEqual((await read()).sort(), union);
  // Like a client without the Referrers API: the entries it read, and the one it attached.
  const own = {...contentOf(indexBytes([descriptorOf(ours)])), mediaType: indexOf([]).mediaType};
  t.is((await manifest(own, tag)).status, 201);
  t.deepEqual((await read()).sort(), union);
  t.deepEqual((await get(`manifests/${own.digest}`)).body, own.bytes);
});

for (const children of [true, false]) {
  test(`entries of a fallback tag that a client pushed join the list, ${children ? 'checked' : 'unchecked'}`, async (t) => {
    const subject = plainManifest();
    const theirs = referrerOf(subject);
    const {manifest, get} = await over(
      t,
      [
        ...api(subject, []),
        {request: at('GET', `manifests/${theirs.digest}`), answer: manifestAnswer(theirs)},
        {request: at('HEAD', `manifests/${theirs.digest}`), answer: headAnswer(theirs)},
      ],
      {validate: {blobs: true, children, sizes: false}},
    );
    const own = {...contentOf(indexBytes([descriptorOf(theirs)])), mediaType: indexOf([]).mediaType};
    t.is((await manifest(own, fallbackTagOf(subject))).status, 201);
    t.deepEqual(listed((await get(`referrers/${subject.digest}`)).body), [descriptorOf(theirs)]);
  });
}

test('pushing a fallback tag waits only briefly for entries that need not exist', async (t) => {
  const subject = plainManifest();
  const entry = referrerOf(subject);
  const upstream = await createScriptedUpstream(t, [
    {request: at('GET', `manifests/${entry.digest}`), answer: {before: HANG}},
  ]);
  const clock = createMovableClock();
  const backref = await startBackref(t, {
    registries: [
      {
        url: upstream.url,
        library: false,
        push: 'local',
        validate: {blobs: true, children: false, sizes: false},
        upstream: {timeouts: {connect: 60_000, headers: 600_000, idle: 600_000}},
      },
    ],
    clock: waiting(clock, (ms) => (ms <= 2000 ? ms / 20 : 600_000)),
  });
  const own = {...contentOf(indexBytes([descriptorOf(entry)])), mediaType: indexOf([]).mediaType};
  t.is((await pusherTo(backref, NAME).manifest(own, fallbackTagOf(subject))).status, 201);
});
