import test from 'ava';
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_ARTIFACT_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../../src/oci/media-type.ts';
import {DAY, startBackref} from '../../support/backref.ts';
import {
  type Content,
  contentOf,
  imageManifest,
  indexOf,
  type ManifestContent,
  plainManifest,
  randomBlob,
} from '../../support/content.ts';
import {errorOf, pusherTo} from '../../support/pusher.ts';
import {descriptorOf, fallbackTagOf, type ListedDescriptor, referrerOf} from '../../support/referrers.ts';

/** The config of every manifest of the test content. */
const config = contentOf(Buffer.from('{}'));
const layer = randomBlob(5000);

/** A hosted registry, which is the default one. */
const hosted = (settings: object = {}) => ({registries: [{library: false, ...settings}]});

const manifestOf = (body: object, mediaType = OCI_MANIFEST): ManifestContent => ({
  ...contentOf(Buffer.from(JSON.stringify(body))),
  mediaType,
});

const descriptor = ({digest, bytes}: Content) => ({mediaType: 'application/x', digest, size: bytes.length});

test('a pushed image is pulled by tag and by digest, and is listed', async (t) => {
  const backref = await startBackref(t, hosted());
  const {image, get, head} = pusherTo(backref, 'team/app');
  const manifest = imageManifest([layer]);
  await image(manifest, [config, layer], 'v1');
  for (const reference of ['v1', manifest.digest]) {
    const got = await get(`manifests/${reference}`);
    t.is(got.status, 200);
    t.deepEqual(got.body, manifest.bytes);
    t.is(got.headers['docker-content-digest'], manifest.digest);
    t.is(got.headers['content-type'], OCI_MANIFEST);
    t.is((await head(`manifests/${reference}`)).status, 200);
  }
  t.deepEqual((await get(`blobs/${layer.digest}`)).body, layer.bytes);
  t.deepEqual((await get('tags/list')).json(), {name: 'team/app', tags: ['v1']});
  t.deepEqual((await backref.ask('/v2/_catalog')).json(), {repositories: ['team/app']});
});

test('pushed content outlives the process', async (t) => {
  const before = await startBackref(t, hosted());
  const manifest = imageManifest([layer]);
  await pusherTo(before, 'team/app').image(manifest, [config, layer], 'v1');
  const {get} = pusherTo(await before.restart(), 'team/app');
  t.deepEqual((await get('manifests/v1')).body, manifest.bytes);
  t.deepEqual((await get(`blobs/${layer.digest}`)).body, layer.bytes);
});

test('a pushed tag does not age, and moves when it is pushed again', async (t) => {
  const backref = await startBackref(t, hosted());
  const {manifest, get} = pusherTo(backref, 'team/app');
  const [one, two] = [plainManifest(), plainManifest()];
  await manifest(one, 'v1');
  backref.clock.move(365 * 24 * 60 * 60 * 1000);
  const aged = await get('manifests/v1');
  t.deepEqual(aged.body, one.bytes);
  t.is(aged.headers['warning'], undefined);
  t.is(aged.headers['cache-status'], 'backref;hit');
  await manifest(two, 'v1');
  t.deepEqual((await get('manifests/v1')).body, two.bytes);
  t.deepEqual((await get(`manifests/${one.digest}`)).body, one.bytes);
});

test('a name that was looked up before its push is found right after it', async (t) => {
  const {manifest, blob, get} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const image = plainManifest();
  const paths = ['manifests/v1', `manifests/${image.digest}`, `blobs/${layer.digest}`, 'tags/list'];
  for (const path of paths) t.is((await get(path)).status, 404);
  await blob(layer);
  await manifest(image, 'v1');
  for (const path of paths) t.is((await get(path)).status, 200, path);
});

test('several tags are set in one request and reported', async (t) => {
  const {manifest, get} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const image = plainManifest('sha512');
  const tags = Array.from({length: 10}, (_, index) => `v${index}`);
  const got = await manifest(image, image.digest, `?${tags.map((tag) => `tag=${tag}`).join('&')}`);
  t.is(got.status, 201);
  t.is(got.headers['docker-content-digest'], image.digest);
  t.deepEqual(String(got.headers['oci-tag']).split(', '), tags);
  t.deepEqual((await get('tags/list')).json(), {name: 'team/app', tags});
  t.is((await get('manifests/v7')).headers['docker-content-digest'], image.digest);
});

test('a page of tags has the requested length', async (t) => {
  const {manifest, get} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const image = plainManifest();
  await manifest(image, image.digest, '?tag=a&tag=c&tag=b&tag=B');
  const first = await get('tags/list?n=2');
  t.deepEqual(first.json(), {name: 'team/app', tags: ['B', 'a']});
  t.is(first.headers['link'], '</v2/team/app/tags/list?n=2&last=a>; rel="next"');
  const last = await get('tags/list?n=2&last=a');
  t.deepEqual(last.json(), {name: 'team/app', tags: ['b', 'c']});
  t.is(last.headers['link'], undefined);
  t.deepEqual((await get('tags/list?n=0')).json(), {name: 'team/app', tags: []});
});

test('a repository without tags has an empty list, and one without content is unknown', async (t) => {
  const backref = await startBackref(t, hosted());
  const {manifest, get} = pusherTo(backref, 'team/app');
  await manifest(plainManifest());
  t.deepEqual((await get('tags/list')).json(), {name: 'team/app', tags: []});
  const unknown = await pusherTo(backref, 'other/app').get('tags/list');
  t.is(unknown.status, 404);
  t.is(errorOf(unknown).code, 'NAME_UNKNOWN');
});

test('an upload alone does not create a repository', async (t) => {
  const backref = await startBackref(t, hosted());
  await backref.ask('/v2/team/app/blobs/uploads/', {method: 'POST'});
  t.deepEqual((await backref.ask('/v2/_catalog')).json(), {repositories: []});
  t.is((await pusherTo(backref, 'team/app').get('tags/list')).status, 404);
});

test('a manifest with missing blobs is refused with their digests', async (t) => {
  const {manifest, blob, head} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const image = imageManifest([layer]);
  const refused = await manifest(image, 'v1');
  t.is(refused.status, 404);
  const {code, message, detail} = errorOf(refused);
  t.is(code, 'MANIFEST_BLOB_UNKNOWN');
  t.true(message.includes(layer.digest) && message.includes(config.digest));
  t.deepEqual(detail?.['digests'], [config.digest, layer.digest]);
  t.is((await head('manifests/v1')).status, 404);
  t.is((await head(`manifests/${image.digest}`)).status, 404);
  await blob(config);
  await blob(layer);
  t.is((await manifest(image, 'v1')).status, 201);
});

test('a blob of another repository does not count', async (t) => {
  const backref = await startBackref(t, hosted());
  for (const blob of [config, layer]) await pusherTo(backref, 'other/app').blob(blob);
  const {manifest, head} = pusherTo(backref, 'team/app');
  t.is(errorOf(await manifest(imageManifest([layer]))).code, 'MANIFEST_BLOB_UNKNOWN');
  t.is((await head(`blobs/${layer.digest}`)).status, 404);
});

test('a wrong size causes a Warning, or a refusal where validate.sizes is on', async (t) => {
  const wrong = {...descriptor(layer), size: 4999};
  const image = manifestOf({schemaVersion: 2, config: descriptor(config), layers: [wrong]});
  const index = manifestOf(
    {schemaVersion: 2, manifests: [{...descriptor(image), size: 1}, {...wrong}]},
    OCI_INDEX,
  );
  const lax = pusherTo(await startBackref(t, hosted()), 'team/app');
  const sizes = {blobs: true, children: true, sizes: true};
  const strict = pusherTo(await startBackref(t, hosted({validate: sizes})), 'team/app');
  for (const {blob} of [lax, strict]) for (const content of [config, layer]) await blob(content);

  const taken = await lax.manifest(image, 'v1');
  t.is(taken.status, 201);
  const says = `the manifest says that ${layer.digest} has 4999 bytes, but it has ${layer.bytes.length}: correct its descriptor`;
  t.is(taken.headers['warning'], `299 - "${says}"`);
  t.deepEqual((await lax.get('manifests/v1')).body, image.bytes);
  t.regex(
    String((await lax.manifest(index)).headers['warning']),
    /has 1 bytes, but it has .*; 1 more with a wrong size"$/,
  );
  const right = manifestOf({schemaVersion: 2, config: descriptor(config), layers: [descriptor(layer)]});
  t.is((await lax.manifest(right)).headers['warning'], undefined);

  const refused = await strict.manifest(image);
  t.is(refused.status, 400);
  t.is(errorOf(refused).code, 'SIZE_INVALID');
  t.true(errorOf(refused).message.includes(layer.digest));
  t.is((await strict.manifest(right)).status, 201);
});

test("an index of layers, as BuildKit's registry cache pushes it, is accepted if the layers exist", async (t) => {
  const backref = await startBackref(t, hosted());
  const {manifest, blob, get, head} = pusherTo(backref, 'team/cache');
  const cache = {...descriptor(config), mediaType: 'application/vnd.buildkit.cacheconfig.v0'};
  const index = manifestOf({schemaVersion: 2, manifests: [descriptor(layer), cache]}, OCI_INDEX);
  await blob(layer);
  const refused = errorOf(await manifest(index, 'v1'));
  t.is(refused.code, 'MANIFEST_BLOB_UNKNOWN');
  t.deepEqual(refused.detail?.['digests'], [config.digest]);
  await blob(config);
  const taken = await manifest(index, 'v1');
  t.is(taken.status, 201);
  t.is(taken.headers['warning'], undefined);
  t.deepEqual((await get('manifests/v1')).body, index.bytes);
  // What the index refers to is not garbage.
  backref.clock.move(DAY * 30);
  const {collect} = await backref.server.commands();
  await collect({grace: 1000, signal: AbortSignal.timeout(60_000), progress: () => {}});
  for (const {digest} of [layer, config]) t.is((await head(`blobs/${digest}`)).status, 200);
});

test('an index with the most entries that fit is accepted, or refused for missing content', async (t) => {
  const entries = Array.from({length: 25_000}, (_, index) => ({
    mediaType: OCI_MANIFEST,
    digest: `sha256:${index.toString(16).padStart(64, '0')}`,
    size: index,
  }));
  const index = manifestOf({schemaVersion: 2, manifests: entries}, OCI_INDEX);
  const strict = pusherTo(await startBackref(t, hosted()), 'team/app');
  t.is(errorOf(await strict.manifest(index)).code, 'MANIFEST_BLOB_UNKNOWN');
  const sparse = await startBackref(t, hosted({validate: {blobs: true, children: false, sizes: false}}));
  const {manifest, get} = pusherTo(sparse, 'team/app');
  t.is((await manifest(index, 'v1')).status, 201);
  t.true((await get('manifests/v1')).body.equals(index.bytes));
});

test('content with an unsupported digest algorithm is missing, unless it need not exist', async (t) => {
  const stranger = {mediaType: 'application/x', digest: 'blake3:abcdef', size: 5};
  const image = manifestOf({schemaVersion: 2, config: descriptor(config), layers: [stranger]});
  const index = manifestOf({schemaVersion: 2, manifests: [stranger]}, OCI_INDEX);
  const strict = pusherTo(await startBackref(t, hosted()), 'team/app');
  await strict.blob(config);
  for (const manifest of [image, index]) {
    const refused = errorOf(await strict.manifest(manifest));
    t.is(refused.code, 'MANIFEST_BLOB_UNKNOWN');
    t.deepEqual(refused.detail?.['digests'], [stranger.digest]);
  }
  const foreign = {...stranger, mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar'};
  const elsewhere = manifestOf({schemaVersion: 2, config: descriptor(config), layers: [foreign]});
  t.is((await strict.manifest(elsewhere)).status, 201);

  const lax = pusherTo(
    await startBackref(t, hosted({validate: {blobs: false, children: false, sizes: false}})),
    'team/app',
  );
  for (const manifest of [image, index]) t.is((await lax.manifest(manifest)).status, 201);
});

test('foreign layers need not exist', async (t) => {
  const {manifest, blob} = pusherTo(await startBackref(t, hosted()), 'team/app');
  await blob(config);
  const foreign = {
    ...descriptor(randomBlob(10)),
    mediaType: 'application/vnd.oci.image.layer.nondistributable.v1.tar+gzip',
  };
  const image = manifestOf({schemaVersion: 2, config: descriptor(config), layers: [foreign]});
  t.is((await manifest(image)).status, 201);
});

test('pushed foreign layers are kept while a manifest refers to them', async (t) => {
  const proxy = await startBackref(t, hosted());
  const pusher = pusherTo(proxy, 'team/app');
  const layer = randomBlob(10);
  const mediaType = 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip';
  const image = manifestOf({
    schemaVersion: 2,
    config: descriptor(config),
    layers: [{...descriptor(layer), mediaType}],
  });
  await pusher.image(image, [config, layer]);
  const {signal} = new AbortController();
  const commands = await proxy.server.commands();
  const collect = () => commands.collect({grace: DAY, signal, progress: () => {}});
  proxy.clock.move(2 * DAY);
  t.like(await collect(), {links: 0, blobs: 0});
  t.deepEqual((await pusher.get(`blobs/${layer.digest}`)).body, layer.bytes);

  await pusher.delete(`manifests/${image.digest}`);
  t.like(await collect(), {links: 2, blobs: 2});
  t.is((await pusher.get(`blobs/${layer.digest}`)).status, 404);
});

test("an index with missing manifests is refused, unless the registry's settings allow it", async (t) => {
  const index = indexOf([plainManifest()]);
  const strict = pusherTo(await startBackref(t, hosted()), 'team/app');
  t.is(errorOf(await strict.manifest(index)).code, 'MANIFEST_BLOB_UNKNOWN');
  const validate = {blobs: false, children: false, sizes: false};
  const sparse = pusherTo(await startBackref(t, hosted({validate})), 'team/app');
  t.is((await sparse.manifest(index)).status, 201);
  t.is((await sparse.manifest(imageManifest([layer]))).status, 201);
});

test('a subject need not exist; it is confirmed, and its referrers list the manifest at once', async (t) => {
  const {image, manifest, get} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const subject = plainManifest();
  t.deepEqual((await get(`referrers/${subject.digest}`)).json(), {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: [],
  });
  const [one, two] = [referrerOf(subject), referrerOf(subject, {artifactType: 'application/x-sig'})];
  await image(one, [config]);
  const taken = await manifest(two);
  t.is(taken.headers['oci-subject'], subject.digest);
  const list = await get(`referrers/${subject.digest}`);
  t.is(list.headers['cache-status'], 'backref;hit');
  t.deepEqual((list.json() as {manifests: ListedDescriptor[]}).manifests, [
    descriptorOf(one),
    descriptorOf(two),
  ]);
  const some = await get(`referrers/${subject.digest}?artifactType=application/x-sig`);
  t.deepEqual((some.json() as {manifests: ListedDescriptor[]}).manifests, [descriptorOf(two)]);
});

test('a deleted referrer leaves the list at once', async (t) => {
  const pusher = pusherTo(await startBackref(t, hosted()), 'team/app');
  const subject = plainManifest();
  const [one, two] = [referrerOf(subject), referrerOf(subject)];
  await pusher.image(one, [config]);
  await pusher.manifest(two);
  t.is((await pusher.delete(`manifests/${one.digest}`)).status, 202);
  const list = (await pusher.get(`referrers/${subject.digest}`)).json() as {manifests: ListedDescriptor[]};
  t.deepEqual(list.manifests, [descriptorOf(two)]);
});

test('readers of the fallback tag get the list, or the tag that a client wrote', async (t) => {
  const {image, manifest, get} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const subject = plainManifest();
  const attached = referrerOf(subject);
  await image(attached, [config]);
  const path = `manifests/${fallbackTagOf(subject)}`;
  const made = await get(path);
  t.is(made.status, 200);
  t.deepEqual((made.json() as {manifests: ListedDescriptor[]}).manifests, [descriptorOf(attached)]);
  const digest = String(made.headers['docker-content-digest']);
  t.deepEqual((await get(`manifests/${digest}`)).body, made.body);
  const own = indexOf([attached]);
  await manifest(own, fallbackTagOf(subject));
  t.deepEqual((await get(path)).body, own.bytes);
});

test('only the newest attachments of a type stay, up to the configured number', async (t) => {
  const {image, manifest, get, head} = pusherTo(
    await startBackref(t, hosted({referrers: {keep: 2}})),
    'team/app',
  );
  const subject = plainManifest();
  const scans = Array.from({length: 4}, () => referrerOf(subject, {artifactType: 'application/x-scan'}));
  const signature = referrerOf(subject, {artifactType: 'application/x-sig'});
  await image(signature, [config]);
  await Promise.all(scans.slice(0, 3).map((scan) => manifest(scan)));
  await manifest(scans[3] as ManifestContent);
  // Pushing it again makes it the newest.
  const listed = async () =>
    ((await get(`referrers/${subject.digest}`)).json() as {manifests: ListedDescriptor[]}).manifests;
  const left = await listed();
  t.is(left.length, 3);
  t.true(left.some(({digest}) => digest === signature.digest));
  t.true(left.some(({digest}) => digest === scans[3]?.digest));
  const gone = scans.filter(({digest}) => !left.some((one) => one.digest === digest));
  for (const {digest} of gone) t.is((await head(`manifests/${digest}`)).status, 404);
  const [old] = left.filter(({digest}) => scans.slice(0, 3).some((scan) => scan.digest === digest));
  await manifest(scans.find(({digest}) => digest === old?.digest) as ManifestContent);
  t.is((await listed()).length, 3);
});

test('a subject with many referrers of a type is reported once', async (t) => {
  const backref = await startBackref(t, hosted());
  const reports: {subject: string; atLeast: number}[] = [];
  backref.server.events.on('referrers.crowded', (event) => void reports.push(event));
  const {image, manifest} = pusherTo(backref, 'team/app');
  const subject = plainManifest();
  await image(referrerOf(subject), [config]);
  for (let count = 1; count < 39; count++) await manifest(referrerOf(subject));
  t.is(reports.length, 0);
  await manifest(referrerOf(subject));
  await manifest(referrerOf(subject));
  t.is(reports.length, 1);
  t.like(reports[0], {subject: subject.digest, atLeast: 40, registry: 'docker.io', repository: 'team/app'});
});

test('a deleted tag is gone, and its manifest stays', async (t) => {
  const pusher = pusherTo(await startBackref(t, hosted()), 'team/app');
  const image = plainManifest();
  await pusher.manifest(image, 'v1');
  t.is((await pusher.delete('manifests/v1')).status, 202);
  t.is((await pusher.head('manifests/v1')).status, 404);
  t.is((await pusher.head(`manifests/${image.digest}`)).status, 200);
  const again = await pusher.delete('manifests/v1');
  t.is(again.status, 404);
  t.is(errorOf(again).code, 'MANIFEST_UNKNOWN');
});

test('a deleted manifest is gone with every tag on it', async (t) => {
  const pusher = pusherTo(await startBackref(t, hosted()), 'team/app');
  const [image, other] = [plainManifest(), plainManifest()];
  await pusher.manifest(image, 'v1', '?tag=v2');
  await pusher.manifest(other, 'v3');
  await pusher.get('manifests/v1');
  t.is((await pusher.delete(`manifests/${image.digest}`)).status, 202);
  for (const reference of ['v1', 'v2', image.digest]) {
    t.is((await pusher.head(`manifests/${reference}`)).status, 404);
    t.is((await pusher.get(`manifests/${reference}`)).status, 404);
  }
  t.deepEqual((await pusher.get('tags/list')).json(), {name: 'team/app', tags: ['v3']});
  t.is((await pusher.delete(`manifests/${image.digest}`)).status, 404);
});

test('a deleted blob is gone, even if it was in memory', async (t) => {
  const backref = await startBackref(t, hosted());
  const pusher = pusherTo(backref, 'team/app');
  await pusher.blob(layer);
  await pusherTo(backref, 'other/app').blob(layer);
  t.is((await pusher.get(`blobs/${layer.digest}`)).status, 200);
  t.is((await pusher.delete(`blobs/${layer.digest}`)).status, 202);
  t.is((await pusher.get(`blobs/${layer.digest}`)).status, 404);
  t.is((await pusher.head(`blobs/${layer.digest}`)).status, 404);
  t.is((await pusherTo(backref, 'other/app').get(`blobs/${layer.digest}`)).status, 200);
  t.is(errorOf(await pusher.delete(`blobs/${layer.digest}`)).code, 'BLOB_UNKNOWN');
});

test('a blob that a client found by HEAD gets a new grace period', async (t) => {
  const backref = await startBackref(t, hosted());
  const pusher = pusherTo(backref, 'team/app');
  await pusher.blob(layer);
  await pusher.blob(config);
  const collect = async () =>
    (await backref.server.commands()).collect({
      grace: 60 * 60_000,
      signal: AbortSignal.timeout(60_000),
      progress: () => {},
    });
  backref.clock.move(50 * 60_000);
  t.is((await pusher.head(`blobs/${layer.digest}`)).status, 200);
  backref.clock.move(50 * 60_000);
  await collect();
  t.is((await pusher.head(`blobs/${layer.digest}`)).status, 200);
  t.is((await pusher.head(`blobs/${config.digest}`)).status, 404);
});

test('a blob that was collected between its upload and its manifest is missing', async (t) => {
  const backref = await startBackref(t, hosted());
  const pusher = pusherTo(backref, 'team/app');
  await pusher.blob(config);
  await pusher.blob(layer);
  backref.clock.move(2 * 60 * 60_000);
  await (await backref.server.commands()).collect({
    grace: 60 * 60_000,
    signal: AbortSignal.timeout(60_000),
    progress: () => {},
  });
  t.is(errorOf(await pusher.manifest(imageManifest([layer]))).code, 'MANIFEST_BLOB_UNKNOWN');
});

test('the same bytes may be pushed again under another media type', async (t) => {
  const {manifest, get} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const bytes = contentOf(Buffer.from(JSON.stringify({any: 'thing'})));
  await manifest({...bytes, mediaType: 'application/vnd.example.one+json'}, 'v1');
  t.is((await get('manifests/v1')).headers['content-type'], 'application/vnd.example.one+json');
  await manifest({...bytes, mediaType: 'application/vnd.example.two+json'}, 'v1');
  t.is((await get('manifests/v1')).headers['content-type'], 'application/vnd.example.two+json');
});

/** A manifest with a subject, and with the properties that all formats share. */
const referring = (subject: ManifestContent, mediaType: string, more: object): ManifestContent =>
  manifestOf(
    {
      schemaVersion: 2,
      mediaType,
      subject: {mediaType: subject.mediaType, digest: subject.digest, size: subject.bytes.length},
      ...more,
    },
    mediaType,
  );

const FORMATS: [string, string, object][] = [
  ['a Docker image', DOCKER_MANIFEST, {config: descriptor(config), layers: []}],
  ['a Docker list', DOCKER_LIST, {manifests: []}],
  ['an OCI artifact manifest', OCI_ARTIFACT_MANIFEST, {blobs: [descriptor(layer)]}],
  ['a manifest of an unknown type', 'application/vnd.example.manifest', {}],
];

for (const [what, mediaType, more] of FORMATS) {
  test(`${what} with a subject is listed, and its push says so`, async (t) => {
    const {manifest, blob, get} = pusherTo(await startBackref(t, hosted()), 'team/app');
    const subject = plainManifest();
    const referrer = referring(subject, mediaType, {artifactType: 'application/vnd.example.old', ...more});
    for (const content of [config, layer]) await blob(content);
    const pushed = await manifest(referrer);
    t.is(pushed.status, 201);
    t.is(pushed.headers['oci-subject'], subject.digest);
    const {manifests} = (await get(`referrers/${subject.digest}`)).json() as {manifests: ListedDescriptor[]};
    t.like(manifests, {
      length: 1,
      0: {mediaType, digest: referrer.digest, artifactType: 'application/vnd.example.old'},
    });
    t.deepEqual((await get(`manifests/${referrer.digest}`)).body, referrer.bytes);
  });
}

test('an OCI artifact manifest is refused while one of its blobs is missing', async (t) => {
  const {manifest, blob} = pusherTo(await startBackref(t, hosted()), 'team/app');
  const referrer = referring(plainManifest(), OCI_ARTIFACT_MANIFEST, {blobs: [descriptor(layer)]});
  const refused = await manifest(referrer);
  t.is(refused.status, 404);
  t.is(errorOf(refused).code, 'MANIFEST_BLOB_UNKNOWN');
  await blob(layer);
  t.is((await manifest(referrer)).status, 201);
});
