import test from 'ava';
import {type Backref, createMovableClock, DAY, startBackref} from '../../support/backref.ts';
import {
  blobAnswer,
  contentOf,
  indexOf,
  type ManifestContent,
  manifestAnswer,
  plainManifest,
} from '../../support/content.ts';
import {descriptorOf, fallbackTagOf, legacy, listAnswer, referrerOf} from '../../support/referrers.ts';
import {createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';

const REPOSITORY = 'library/app';
const platform = plainManifest();
const index = indexOf([platform]);
const sbom = referrerOf(platform);
const signature = referrerOf(index);
const empty = contentOf(Buffer.from('{}'));
const get = (manifest: ManifestContent): Expectation => ({
  request: `GET /v2/${REPOSITORY}/manifests/${manifest.digest}`,
  answer: manifestAnswer(manifest),
});
const byTag = {request: `GET /v2/${REPOSITORY}/manifests/1`, answer: manifestAnswer(index)};

/** Waits until as many requests have arrived, and what they brought is committed. */
async function settled(proxy: Backref, requests: readonly unknown[], count: number): Promise<void> {
  while (requests.length < count) await new Promise(setImmediate);
  for (let quiet = 0; quiet < 20; quiet++) await proxy.ask('/v2/');
}

test('a pulled image brings its referrers and those of its platforms, so that an outage finds them', async (t) => {
  const script = [
    byTag,
    ...legacy(REPOSITORY, index, [signature]),
    ...legacy(REPOSITORY, platform, [sbom]).slice(1),
  ];
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, referrers: {prefetch: 'manifests'}}],
  });
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await upstream.stop();
  proxy.clock.move(DAY);
  for (const [subject, referrer] of [
    [index, signature],
    [platform, sbom],
  ] as const) {
    const got = await proxy.ask(`/v2/app/referrers/${subject.digest}`);
    t.like(got.json(), {manifests: [{digest: referrer.digest}]});
    t.is((await proxy.ask(`/v2/app/manifests/${referrer.digest}`)).status, 200);
  }
});

test('prefetch all brings the blobs of referrers as well', async (t) => {
  const script = [
    {request: byTag.request, answer: manifestAnswer(platform)},
    {request: `GET /v2/${REPOSITORY}/referrers/${platform.digest}`, answer: listAnswer([descriptorOf(sbom)])},
    {request: `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(platform)}`, answer: {status: 404}},
    get(sbom),
    {request: `GET /v2/${REPOSITORY}/blobs/${empty.digest}`, answer: blobAnswer(empty)},
  ];
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, referrers: {prefetch: 'all'}}],
    clock: createMovableClock(),
  });
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await proxy.idle();
  await upstream.stop();
  t.is((await proxy.ask(`/v2/app/blobs/${empty.digest}`)).status, 200);
});

test('prefetch off asks for nothing', async (t) => {
  const upstream = await createScriptedUpstream(t, [byTag]);
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, referrers: {prefetch: 'off'}}],
    clock: createMovableClock(),
  });
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, 1);
  t.is(upstream.requests.length, 1);
});

test('of a fallback tag that is pulled only the entries that are not here are fetched', async (t) => {
  const fallback = {
    request: `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(platform)}`,
    answer: listAnswer([sbom, signature].map(descriptorOf)),
  };
  const upstream = await createScriptedUpstream(t, [get(sbom), fallback, get(signature)]);
  const proxy = await startBackref(t, {registries: [{url: upstream.url}], clock: createMovableClock()});
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  await proxy.ask(`/v2/app/manifests/${fallbackTagOf(platform)}`);
  await settled(proxy, upstream.requests, 3);
  t.is(upstream.requests.length, 3);
});

test('repeated entries of an index, and repeated blobs of a referrer, are fetched once', async (t) => {
  const other = plainManifest();
  const repeating = indexOf([...Array.from({length: 300}, () => platform), other]);
  const layer = {mediaType: 'application/x', digest: empty.digest, size: empty.bytes.length};
  const body = {...JSON.parse(sbom.bytes.toString()), layers: Array.from({length: 300}, () => layer)};
  const heavy = {...sbom, ...contentOf(Buffer.from(JSON.stringify(body)))};
  const script = [
    {request: byTag.request, answer: manifestAnswer(repeating)},
    {request: `GET /v2/${REPOSITORY}/referrers/${repeating.digest}`, answer: listAnswer([])},
    {request: `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(repeating)}`, answer: {status: 404}},
    {
      request: `GET /v2/${REPOSITORY}/referrers/${platform.digest}`,
      answer: listAnswer([descriptorOf(heavy)]),
    },
    {request: `GET /v2/${REPOSITORY}/referrers/${other.digest}`, answer: listAnswer([])},
    get(heavy),
    {request: `GET /v2/${REPOSITORY}/blobs/${empty.digest}`, answer: blobAnswer(empty)},
  ];
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, referrers: {prefetch: 'all'}}],
    clock: createMovableClock(),
  });
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await proxy.idle();
  t.is(upstream.requests.length, script.length);
});
