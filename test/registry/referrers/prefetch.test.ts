import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {createEvents} from '../../../src/events.ts';
import {readManifest} from '../../../src/oci/manifest.ts';
import {createPrefetch} from '../../../src/registry/referrers/prefetch.ts';
import {manifestPut} from '../../../src/registry/stored-manifest.ts';
import {type Backref, createMovableClock, DAY, startBackref} from '../../support/backref.ts';
import {
  blobAnswer,
  type Content,
  contentOf,
  imageManifest,
  indexOf,
  type ManifestContent,
  manifestAnswer,
  plainManifest,
  randomBlob,
} from '../../support/content.ts';
import {descriptorOf, fallbackTagOf, legacy, listAnswer, referrerOf} from '../../support/referrers.ts';
import {
  createScriptedUpstream,
  type Expectation,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';
import {wireInProcess} from '../../support/wired.ts';

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
const NOT_FOUND = {status: 404};
/** A Referrers API that lists these referrers. */
const listed = (subject: ManifestContent, ...referrers: ManifestContent[]): Expectation => ({
  request: `GET /v2/${REPOSITORY}/referrers/${subject.digest}`,
  answer: listAnswer(referrers.map(descriptorOf)),
});
/** While it is not known whether there is an API, the tag is asked for as well. */
const noFallbackTag = (subject: ManifestContent): Expectation => ({
  request: `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(subject)}`,
  answer: NOT_FOUND,
});
/** What a registry without the API is asked about a manifest without referrers, once it is known to have none. */
const unreferred = (subject: ManifestContent): Expectation[] => [
  noFallbackTag(subject),
  {request: `GET /v2/${REPOSITORY}/referrers/${subject.digest}`, answer: NOT_FOUND},
];
const cosignTag = (
  subject: ManifestContent,
  suffix: string,
  answer: ScriptedAnswer = NOT_FOUND,
): Expectation => ({
  request: `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(subject)}.${suffix}`,
  answer,
});
const noCosignTags = (subject: ManifestContent): Expectation[] =>
  ['sig', 'att', 'sbom'].map((suffix) => cosignTag(subject, suffix));
const blob = (content: Content): Expectation => ({
  request: `GET /v2/${REPOSITORY}/blobs/${content.digest}`,
  answer: blobAnswer(content),
});
const byTag = {request: `GET /v2/${REPOSITORY}/manifests/1`, answer: manifestAnswer(index)};

/** A server that prefetches, over an upstream that is asked this much in any order. */
async function over(t: ExecutionContext, script: Expectation[], prefetch: 'manifests' | 'all') {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {prefetch}}]});
  return {upstream, proxy};
}

/** Waits until as many requests have arrived, and what they brought is committed. */
async function settled(proxy: Backref, requests: readonly unknown[], count: number): Promise<void> {
  while (requests.length < count) await new Promise(setImmediate);
  for (let quiet = 0; quiet < 20; quiet++) await proxy.ask('/v2/');
}

test('pulling an image fetches its referrers and those of its platforms, which are then served in an outage', async (t) => {
  const script = [
    byTag,
    ...legacy(REPOSITORY, index, [signature]),
    ...legacy(REPOSITORY, platform, [sbom]).slice(1),
    ...unreferred(signature),
    ...unreferred(sbom),
  ];
  const {upstream, proxy} = await over(t, script, 'manifests');
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

test('prefetch all fetches the blobs of referrers as well', async (t) => {
  const script = [
    {request: byTag.request, answer: manifestAnswer(platform)},
    listed(platform, sbom),
    noFallbackTag(platform),
    get(sbom),
    blob(empty),
    listed(sbom),
    ...noCosignTags(platform),
  ];
  const {upstream, proxy} = await over(t, script, 'all');
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await proxy.idle();
  await upstream.stop();
  t.is((await proxy.ask(`/v2/app/blobs/${empty.digest}`)).status, 200);
});

test('prefetch off fetches nothing', async (t) => {
  const upstream = await createScriptedUpstream(t, [byTag]);
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, referrers: {prefetch: 'off'}}],
    clock: createMovableClock(),
  });
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, 1);
  t.is(upstream.requests.length, 1);
});

test('when a fallback tag is pulled, only the entries that are not here are fetched', async (t) => {
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
    listed(repeating),
    noFallbackTag(repeating),
    listed(platform, heavy),
    listed(other),
    get(heavy),
    blob(empty),
    listed(heavy),
    ...[repeating, platform, other].flatMap(noCosignTags),
  ];
  const {upstream, proxy} = await over(t, script, 'all');
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await proxy.idle();
  t.is(upstream.requests.length, script.length);
});

/** An index over an image and what BuildKit attests of it. */
function attestedIndex(image: ManifestContent, attestation: ManifestContent): ManifestContent {
  const {manifests, ...rest} = JSON.parse(indexOf([image, attestation]).bytes.toString());
  const annotations = {
    'vnd.docker.reference.type': 'attestation-manifest',
    'vnd.docker.reference.digest': image.digest,
  };
  const body = {...rest, manifests: [manifests[0], {...manifests[1], annotations}]};
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: index.mediaType};
}

const head = (manifest: ManifestContent): Expectation => ({
  ...get(manifest),
  request: `HEAD /v2/${REPOSITORY}/manifests/${manifest.digest}`,
});

test('an attestation inside an index is listed as a referrer before any client has pulled it', async (t) => {
  const attestation = referrerOf(platform, {
    artifactType: 'application/vnd.docker.attestation.manifest.v1+json',
  });
  const attested = attestedIndex(platform, attestation);
  const script = [
    {request: byTag.request, answer: manifestAnswer(attested)},
    get(attestation),
    listed(attested),
    noFallbackTag(attested),
    listed(platform),
    head(attestation),
    listed(attestation),
  ];
  const {upstream, proxy} = await over(t, script, 'manifests');
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await upstream.stop();
  proxy.clock.move(DAY);
  const got = await proxy.ask(`/v2/app/referrers/${platform.digest}`);
  t.like(got.json(), {manifests: [{digest: attestation.digest}]});
});

test('an attestation without a subject comes with its index as what it is, not as another image', async (t) => {
  const layer = randomBlob(10);
  const attestation = imageManifest([layer]);
  const attested = attestedIndex(platform, attestation);
  const script = [
    {request: byTag.request, answer: manifestAnswer(attested)},
    get(attestation),
    blob(empty),
    blob(layer),
    listed(attested),
    noFallbackTag(attested),
    listed(platform),
    listed(attestation),
    ...[attested, platform].flatMap(noCosignTags),
  ];
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {prefetch: 'all'}}]});
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await proxy.idle();
  t.is(upstream.requests.length, script.length);
  await upstream.stop();
  t.is((await proxy.ask(`/v2/app/blobs/${layer.digest}`)).status, 200);
});

test('referrers of referrers come with an image, three lists deep', async (t) => {
  const bom = referrerOf(platform);
  const signed = referrerOf(bom);
  const countersigned = referrerOf(signed);
  const script = [
    {request: byTag.request, answer: manifestAnswer(platform)},
    noFallbackTag(platform),
    listed(platform, bom),
    get(bom),
    listed(bom, signed),
    get(signed),
    listed(signed, countersigned),
    get(countersigned),
  ];
  const {upstream, proxy} = await over(t, script, 'manifests');
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  t.is(upstream.requests.length, script.length);
  await upstream.stop();
  proxy.clock.move(DAY);
  const got = await proxy.ask(`/v2/app/referrers/${bom.digest}`);
  t.like(got.json(), {manifests: [{digest: signed.digest}]});
});

test('a referrer that the upstream does not have keeps neither its siblings nor their blobs from coming', async (t) => {
  const [lost, refused, third] = [referrerOf(platform), referrerOf(platform), referrerOf(platform)];
  const script = [
    {request: byTag.request, answer: manifestAnswer(platform)},
    noFallbackTag(platform),
    listed(platform, lost, refused, third),
    {...get(lost), answer: NOT_FOUND},
    {...get(refused), answer: {status: 403}},
    get(third),
    blob(empty),
    listed(third),
    ...noCosignTags(platform),
  ];
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {prefetch: 'all'}}]});
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await proxy.idle();
  await upstream.stop();
  t.is((await proxy.ask(`/v2/app/manifests/${third.digest}`)).status, 200);
  t.is((await proxy.ask(`/v2/app/blobs/${empty.digest}`)).status, 200);
});

test("prefetch all brings cosign's tags of an index and its platforms, with their blobs", async (t) => {
  const [payload, statement] = [randomBlob(10), randomBlob(10)];
  const [sig, att] = [imageManifest([payload]), imageManifest([statement])];
  const script = [
    byTag,
    listed(index),
    noFallbackTag(index),
    listed(platform),
    cosignTag(index, 'sig', manifestAnswer(sig)),
    cosignTag(index, 'att'),
    cosignTag(index, 'sbom'),
    cosignTag(platform, 'sig'),
    cosignTag(platform, 'att', manifestAnswer(att)),
    cosignTag(platform, 'sbom'),
    blob(empty),
    blob(payload),
    blob(statement),
  ];
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {prefetch: 'all'}}]});
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  await proxy.idle();
  t.is(upstream.requests.length, script.length, 'nothing is looked for that is attached to a signature');
  await upstream.stop();
  proxy.clock.move(DAY);
  for (const path of [
    `manifests/${fallbackTagOf(index)}.sig`,
    `manifests/${fallbackTagOf(platform)}.att`,
    `blobs/${payload.digest}`,
    `blobs/${statement.digest}`,
  ]) {
    t.is((await proxy.ask(`/v2/app/${path}`)).status, 200, path);
  }
});

test("a platform that is pulled after its index does not ask for cosign's absent tags again", async (t) => {
  const child = {...get(platform), request: `GET /v2/${REPOSITORY}/manifests/${platform.digest}`};
  const script = [
    byTag,
    listed(index),
    noFallbackTag(index),
    listed(platform),
    ...[index, platform].flatMap(noCosignTags),
  ];
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const proxy = await startBackref(t, {registries: [{url: upstream.url, referrers: {prefetch: 'all'}}]});
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  proxy.clock.move(10 * 60_000);
  const later = [child, listed(platform), noFallbackTag(platform)];
  upstream.expect(...later);
  await proxy.ask(`/v2/app/manifests/${platform.digest}`);
  await settled(proxy, upstream.requests, script.length + later.length);
  t.is(upstream.requests.length, script.length + later.length);
});

/** The expectation with an answer that reports how much is left of a rate limit of 100. */
function withQuota(expectation: Expectation, remaining: number): Expectation {
  const {answer} = expectation;
  if (typeof answer !== 'object') throw new TypeError('a fixed answer is expected');
  const report = {'ratelimit-limit': '100', 'ratelimit-remaining': `${remaining}`};
  return {...expectation, answer: {...answer, headers: {...answer.headers, ...report}}};
}

test('the last quarter of a rate limit is not used up by lists that are empty and tags that are absent', async (t) => {
  const script = [
    withQuota({request: byTag.request, answer: manifestAnswer(platform)}, 26),
    noFallbackTag(platform),
    withQuota(listed(platform), 25),
    withQuota(cosignTag(platform, 'sig'), 24),
  ];
  const {upstream, proxy} = await over(t, script, 'all');
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length);
  t.is(upstream.requests.length, script.length);
});

test('the last quarter of a rate limit is left to clients', async (t) => {
  const bom = referrerOf(platform);
  const later = plainManifest();
  const script = [
    withQuota({request: byTag.request, answer: manifestAnswer(platform)}, 26),
    noFallbackTag(platform),
    listed(platform, signature, bom),
    // The first of the referrers uses it up: the second one is not asked for.
    withQuota(get(signature), 24),
    {request: `GET /v2/${REPOSITORY}/manifests/2`, answer: manifestAnswer(later)},
  ];
  const {upstream, proxy} = await over(t, script, 'manifests');
  await proxy.ask('/v2/app/manifests/1');
  await settled(proxy, upstream.requests, script.length - 1);
  await proxy.ask('/v2/app/manifests/2');
  await settled(proxy, upstream.requests, script.length);
  t.is(upstream.requests.length, script.length);
});

for (const method of ['GET', 'HEAD']) {
  test(`an image that another repository brought has its referrers fetched where it is asked for next by ${method}`, async (t) => {
    const path = `/v2/team/app/manifests/${platform.digest}`;
    const script = [
      get(platform),
      listed(platform),
      noFallbackTag(platform),
      {request: `HEAD ${path}`, answer: manifestAnswer(platform)},
      {request: `GET /v2/team/app/referrers/${platform.digest}`, answer: listAnswer([descriptorOf(sbom)])},
      {request: `GET /v2/team/app/manifests/${fallbackTagOf(platform)}`, answer: NOT_FOUND},
      {request: `GET /v2/team/app/manifests/${sbom.digest}`, answer: manifestAnswer(sbom)},
      {request: `GET /v2/team/app/referrers/${sbom.digest}`, answer: listAnswer([])},
    ];
    const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
    const proxy = await startBackref(t, {
      registries: [{url: upstream.url, referrers: {prefetch: 'manifests'}}],
    });
    await proxy.ask(`/v2/app/manifests/${platform.digest}`);
    await settled(proxy, upstream.requests, 3);
    t.regex(String((await proxy.ask(path, {method})).headers['cache-status']), /detail=confirmed/);
    await settled(proxy, upstream.requests, script.length);
    await upstream.stop();
    t.is((await proxy.ask(`/v2/team/app/manifests/${sbom.digest}`)).status, 200);
  });
}

test('a manifest waits for its turn by its digest, and one that is gone by then is left out', async (t) => {
  const looked: string[] = [];
  const followed: string[] = [];
  const gone = plainManifest();
  const {route, storage} = await wireInProcess(t, {
    registries: [{url: 'http://127.0.0.1:9', referrers: {prefetch: 'manifests'}}],
    clock: createMovableClock(),
  });
  const app = route('app');
  const done = Promise.withResolvers<void>();
  const prefetch = createPrefetch({
    metadata: {
      async manifest(repository, digest) {
        looked.push(digest);
        return digest === gone.digest ? undefined : storage.metadata.manifest(repository, digest);
      },
    },
    attached: {
      isFetching: () => false,
      async *entries() {},
      async *tagged() {},
      async *referring({record}) {
        followed.push(record.digest);
        done.resolve();
        yield* [];
      },
    },
    blobs: {
      get: () => Promise.reject(new Error('not asked for')),
      head: () => Promise.reject(new Error('not asked for')),
    },
    registries: () => {
      throw new Error('not asked for');
    },
    events: createEvents(),
  });
  t.teardown(() => prefetch.close());
  await storage.metadata.commit([
    manifestPut({
      repository: app.repository,
      ...platform,
      facts: readManifest(platform.bytes),
      edge: undefined,
      origin: 'upstream',
      at: 1,
    }),
  ]);
  for (const each of [gone, platform]) {
    const record = {...each, origin: 'upstream' as const, linkedAt: 1};
    prefetch.arrived({route: app, record, tag: undefined, caller: ANONYMOUS});
  }
  await done.promise;
  t.deepEqual(looked, [gone.digest, platform.digest]);
  t.deepEqual(followed, [platform.digest]);
});
