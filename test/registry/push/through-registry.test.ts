import test, {type ExecutionContext} from 'ava';
import {OCI_INDEX} from '../../../src/oci/media-type.ts';
import {type Backref, createMovableClock, startBackref, waiting} from '../../support/backref.ts';
import {
  type Content,
  imageManifest,
  type ManifestContent,
  plainManifest,
  randomBlob,
  sameBytes,
} from '../../support/content.ts';
import {startLegacy} from '../../support/legacy.ts';
import {descriptorOf, fallbackTagOf, indexBytes, referrerOf} from '../../support/referrers.ts';

const image = plainManifest();

/** A clock by which a tag is checked again at once, and which never reaches a time limit. */
const fasterClock = () => waiting(createMovableClock(), (ms) => (ms <= 2000 ? ms / 100 : 10 * ms));

async function start(t: ExecutionContext, options: {referrers?: boolean} = {}) {
  const registry = await startLegacy(t, image, options);
  const upstream = {timeouts: {connect: 60_000, headers: 5000, idle: 30_000}};
  const proxy = await startBackref(t, {
    registries: [{url: registry.url, push: 'through', library: false, upstream}],
    clock: fasterClock(),
  });
  return {registry, proxy};
}

/** Resolves once the condition holds; otherwise the test times out. */
async function until(isTrue: () => Promise<boolean>): Promise<void> {
  while (!(await isTrue())) await new Promise(setImmediate);
}

const put = (proxy: Backref, reference: string, {bytes, mediaType}: ManifestContent) =>
  proxy.ask(`/v2/team/app/manifests/${reference}`, {
    method: 'PUT',
    headers: {'Content-Type': mediaType, 'Content-Length': bytes.length},
    body: bytes,
  });

async function pushBlob(proxy: Backref, {bytes, digest}: Content): Promise<number> {
  const post = {method: 'POST', headers: {'Content-Length': 0}};
  const {headers} = await proxy.ask('/v2/team/app/blobs/uploads/', post);
  const sent = {method: 'PUT', headers: {'Content-Length': bytes.length}, body: bytes};
  return (await proxy.ask(`${headers.location}?digest=${digest}`, sent)).status;
}

test('an image is pushed through, and pulled while the registry is down', async (t) => {
  const {registry, proxy} = await start(t);
  const [config, layer] = [{...randomBlob(2)}, randomBlob(300_000)];
  const pushed = imageManifest([layer]);
  t.is(await pushBlob(proxy, config), 201);
  t.is(await pushBlob(proxy, layer), 201);
  t.is((await put(proxy, '2', pushed)).status, 201);
  sameBytes(t, (await registry.get('2'))?.bytes, pushed.bytes);
  await registry.stop();
  sameBytes(t, (await proxy.ask('/v2/team/app/manifests/2')).body, pushed.bytes);
  sameBytes(t, (await proxy.ask(`/v2/team/app/blobs/${layer.digest}`)).body, layer.bytes);
});

test('none of our entries is lost when a hundred clients attach to one image, half of them directly', async (t) => {
  const {registry, proxy} = await start(t);
  const [ours, theirs] = [0, 0].map(() => Array.from({length: 50}, () => referrerOf(image))) as [
    ManifestContent[],
    ManifestContent[],
  ];
  const tag = fallbackTagOf(image);

  /** Like clients that do not coordinate: read, add, write. */
  async function attachDirectly(entry: ManifestContent): Promise<void> {
    await registry.put(entry.digest, entry);
    const there = await registry.get(tag);
    const {manifests} = there ? JSON.parse(there.bytes.toString()) : {manifests: []};
    await registry.put(tag, {bytes: indexBytes([...manifests, descriptorOf(entry)]), mediaType: OCI_INDEX});
  }

  await Promise.all([
    ...ours.map(async (entry) => {
      const {status, headers} = await put(proxy, entry.digest, entry);
      t.is(status, 201);
      t.is(headers['oci-subject'], image.digest);
    }),
    ...theirs.map(attachDirectly),
  ]);
  const namesOurs = (digests: readonly string[] = []) => ours.every(({digest}) => digests.includes(digest));
  await until(async () => namesOurs(await registry.fallback(image.digest)));
  const {json} = await proxy.ask(`/v2/team/app/referrers/${image.digest}`);
  const listed = (json() as {manifests: {digest: string}[]}).manifests.map(({digest}) => digest);
  t.true(namesOurs(listed));
});

test('a registry with the Referrers API gets no fallback tag', async (t) => {
  const {registry, proxy} = await start(t, {referrers: true});
  const sbom = referrerOf(image);
  t.is((await put(proxy, sbom.digest, sbom)).headers['oci-subject'], image.digest);
  t.is(await registry.fallback(image.digest), undefined);
});

test('a referrer that is deleted leaves the registry, its tag and the list', async (t) => {
  const {registry, proxy} = await start(t);
  const [gone, stays] = [referrerOf(image), referrerOf(image)];
  await put(proxy, gone.digest, gone);
  await put(proxy, stays.digest, stays);
  t.is((await proxy.ask(`/v2/team/app/manifests/${gone.digest}`, {method: 'DELETE'})).status, 202);
  await until(async () => String(await registry.fallback(image.digest)) === stays.digest);
  t.is(await registry.get(gone.digest), undefined);
  const {json} = await proxy.ask(`/v2/team/app/referrers/${image.digest}`);
  t.deepEqual(
    (json() as {manifests: {digest: string}[]}).manifests.map(({digest}) => digest),
    [stays.digest],
  );
});

test('tag updates that are pending at the stop are written after the next start', async (t) => {
  const registry = await startLegacy(t, image);
  const sbom = referrerOf(image);
  const options = {url: registry.url, push: 'through' as const, library: false};
  const proxy = await startBackref(t, {registries: [options]});
  await put(proxy, sbom.digest, sbom);
  await registry.put(fallbackTagOf(image), {bytes: indexBytes([]), mediaType: OCI_INDEX});
  await proxy.restart();
  await until(async () => (await registry.fallback(image.digest))?.includes(sbom.digest) === true);
  t.pass();
});
