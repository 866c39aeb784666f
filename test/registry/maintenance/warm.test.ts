import test, {type ExecutionContext} from 'ava';
import type {WarmOptions, WarmProgress} from '../../../src/registry/maintenance/warm.ts';
import {DAY, startBackref} from '../../support/backref.ts';
import {
  blobAnswer,
  type Content,
  contentOf,
  headAnswer,
  imageManifest,
  indexOf,
  type ManifestContent,
  manifestAnswer,
  randomBlob,
  sameBytes,
} from '../../support/content.ts';
import {descriptorOf, listAnswer, referrerOf} from '../../support/referrers.ts';
import {createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';

const NEVER = new AbortController().signal;
const AT = '/v2/library/app';
const empty = contentOf(Buffer.from('{}'));
const layers = [randomBlob(1_200_000), randomBlob(200_000), randomBlob(3000)] as const;
const amd64 = imageManifest([layers[0]]);
const arm64 = imageManifest([layers[1]]);
const provenance = imageManifest([layers[2]]);
const index = platformIndex();
const sbom = referrerOf(index);
const armSbom = referrerOf(arm64);
const signature = imageManifest();
const SIGNATURE_TAG = `${amd64.digest.replace(':', '-')}.sig`;

function platformIndex(): ManifestContent {
  const {bytes, mediaType} = indexOf([amd64, arm64, provenance]);
  const body = JSON.parse(bytes.toString());
  body.manifests[0].platform = {os: 'linux', architecture: 'amd64'};
  body.manifests[1].platform = {os: 'linux', architecture: 'arm64'};
  body.manifests[2].annotations = {
    'vnd.docker.reference.type': 'attestation-manifest',
    'vnd.docker.reference.digest': amd64.digest,
  };
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType};
}

const when = (request: Expectation['request'], answer: Expectation['answer']): Expectation => ({
  request,
  ...(answer ? {answer} : {}),
  always: true,
  optional: true,
});

const SCRIPT: Expectation[] = [
  when(`GET ${AT}/manifests/1`, manifestAnswer(index)),
  when(`HEAD ${AT}/manifests/1`, headAnswer(index)),
  when(`GET ${AT}/manifests/${SIGNATURE_TAG}`, manifestAnswer(signature)),
  ...[index, amd64, arm64, provenance, sbom, armSbom, signature].map((each) =>
    when(`GET ${AT}/manifests/${each.digest}`, manifestAnswer(each)),
  ),
  ...[...layers, empty].map((blob) => when(`GET ${AT}/blobs/${blob.digest}`, blobAnswer(blob))),
  when(`GET ${AT}/referrers/${index.digest}`, listAnswer([descriptorOf(sbom)])),
  when(`GET ${AT}/referrers/${arm64.digest}`, listAnswer([descriptorOf(armSbom)])),
  when(new RegExp(`^GET ${AT}/referrers/`), listAnswer([])),
  when(new RegExp(`^GET ${AT}/manifests/sha256-`), {status: 404}),
];

/** A server over an upstream that has the image, after the answers of `first`. */
async function setUp(t: ExecutionContext, first: Expectation[] = []) {
  const upstream = await createScriptedUpstream(t, [...first, ...SCRIPT], {anyOrder: true});
  const proxy = await startBackref(t, {registries: [upstream]});
  const commands = await proxy.server.commands();
  const warm = (changes: Partial<WarmOptions> = {}) =>
    commands.warm({
      images: ['app:1'],
      platforms: [],
      referrers: false,
      signal: NEVER,
      progress: () => {},
      ...changes,
    });
  const ready = async (platforms: string[] = []) =>
    commands.ready({images: ['app:1'], platforms, signal: NEVER, progress: () => {}});
  const asked = () => upstream.requests.map(({method, url}) => `${method} ${url}`);
  const has = async (kind: 'manifests' | 'blobs', contents: readonly Content[]) => {
    for (const {digest, bytes} of contents) {
      const got = await proxy.ask(`/v2/app/${kind}/${digest}`);
      t.is(got.status, 200, digest);
      sameBytes(t, got.body, bytes);
    }
  };
  return {upstream, proxy, warm, ready, asked, has};
}

test('a warmed image is pulled and verified completely while its upstream is stopped', async (t) => {
  const {upstream, proxy, warm, ready, has} = await setUp(t);
  const result = await warm({referrers: true});
  t.like(result, {images: 1, finished: 1, failed: 0});
  t.like(result.warmed, [{image: 'app:1', digest: index.digest, error: undefined}]);

  await upstream.stop();
  proxy.clock.move(DAY);
  t.like(await ready(['linux/amd64', 'linux/arm64']), {
    pulls: 1,
    verifies: 1,
    readiness: [{missing: [], lacking: {pull: 0, verify: 0, bytes: 0}}],
  });
  sameBytes(t, (await proxy.ask('/v2/app/manifests/1')).body, index.bytes);
  await has('manifests', [index, amd64, arm64, provenance, sbom, armSbom, signature]);
  await has('blobs', [...layers, empty]);
  t.like((await proxy.ask(`/v2/app/referrers/${index.digest}`)).json(), {manifests: [{digest: sbom.digest}]});
  sameBytes(t, (await proxy.ask(`/v2/app/manifests/${SIGNATURE_TAG}`)).body, signature.bytes);
});

test('of a named platform, and without referrers, nothing else is fetched', async (t) => {
  const {warm, ready, asked} = await setUp(t);
  t.like(await warm({platforms: ['linux/arm64']}), {failed: 0, warmed: [{manifests: 2, blobs: 2}]});
  t.deepEqual(
    asked().toSorted(),
    [
      `GET ${AT}/blobs/${empty.digest}`,
      `GET ${AT}/blobs/${layers[1].digest}`,
      `GET ${AT}/manifests/1`,
      `GET ${AT}/manifests/${arm64.digest}`,
    ].toSorted(),
  );
  t.like(await ready(['linux/arm64']), {pulls: 1, verifies: 0});
});

test('with a named platform, only what refers to the image and to that platform is fetched', async (t) => {
  const {warm, ready, asked} = await setUp(t);
  t.like(await warm({platforms: ['linux/arm64'], referrers: true}), {failed: 0});
  const others = [amd64.digest, amd64.digest.replace(':', '-'), provenance.digest];
  t.deepEqual(
    asked().filter((line) => others.some((digest) => line.includes(digest))),
    [],
  );
  t.like(await ready(['linux/arm64']), {pulls: 1, verifies: 1});
});

test('a platform that the index does not have is an error', async (t) => {
  const {warm} = await setUp(t);
  const {failed, warmed} = await warm({platforms: ['linux/s390x']});
  t.is(failed, 1);
  t.regex(warmed[0]?.error ?? '', /platform linux\/s390x is missing/);
});

test('what cannot be had does not keep the rest from being fetched, and a further run fetches only what is missing', async (t) => {
  const failing = {request: `GET ${AT}/blobs/${layers[1].digest}`, answer: {status: 500}, times: 4};
  const {warm, asked} = await setUp(t, [failing]);
  const images = ['quay.io/a:1', 'app:1', 'Bad:1'];
  const {failed, warmed} = await warm({images});
  t.is(failed, 3);
  t.deepEqual(
    warmed.map(({image}) => image),
    images,
  );
  t.regex(warmed[0]?.error ?? '', /not configured here/);
  t.regex(warmed[1]?.error ?? '', /500/);
  t.like(warmed[1], {manifests: 3, blobs: 2});

  const before = asked().length;
  t.like(await warm(), {failed: 0, warmed: [{manifests: 3, blobs: 3}]});
  t.deepEqual(asked().slice(before), [`GET ${AT}/blobs/${layers[1].digest}`]);
});

test('of an image that names more than 10,000 manifests and blobs, nothing more is fetched', async (t) => {
  const layer = {
    mediaType: 'application/vnd.oci.image.layer.v1.tar',
    digest: layers[0].digest,
    size: layers[0].bytes.length,
  };
  const many = JSON.parse(amd64.bytes.toString());
  many.layers = Array.from({length: 10_000}, () => layer);
  const huge = {...contentOf(Buffer.from(JSON.stringify(many))), mediaType: amd64.mediaType};
  const {warm, asked} = await setUp(t, [when(`GET ${AT}/manifests/1`, manifestAnswer(huge))]);
  const {failed, warmed} = await warm({referrers: true});
  t.is(failed, 1);
  t.regex(warmed[0]?.error ?? '', /names more than 10000 manifests and blobs/);
  t.deepEqual(asked(), [`GET ${AT}/manifests/1`]);
});

test('an image whose tag cannot be asked for is an error, even if an older one is here', async (t) => {
  const {upstream, proxy, warm} = await setUp(t);
  await warm();
  await upstream.stop();
  proxy.clock.move(DAY);
  const {failed, warmed} = await warm();
  t.is(failed, 1);
  t.regex(warmed[0]?.error ?? '', /serving the copy last checked at/);
});

test('the progress names what is being fetched, and ends with everything', async (t) => {
  const {promise, resolve} = Promise.withResolvers<void>();
  const slow: Expectation = {
    request: `GET ${AT}/blobs/${layers[0].digest}`,
    answer: {
      ...blobAnswer(layers[0]),
      body: [layers[0].bytes.subarray(0, 600_000), {wait: promise}, layers[0].bytes.subarray(600_000)],
      headers: {'Content-Length': '1200000'},
    },
  };
  const {warm} = await setUp(t, [slow]);
  const states: WarmProgress[] = [];
  await warm({
    progress(state) {
      states.push(state);
      const [image] = state.running;
      if (image && image.bytes > 700_000 && image.bytes < image.size) resolve();
    },
  });
  t.true(states.some(({running}) => running[0]?.image === 'app:1' && running[0].size === 1_400_002));
  t.like(states.at(-1), {done: 1, images: 1, finished: 1, bytes: 1_400_002, running: []});
});

test('a run that is interrupted ends with the reason, and starts nothing more', async (t) => {
  const {warm, asked} = await setUp(t);
  const interrupted = new AbortController();
  const reason = new Error('interrupted');
  interrupted.abort(reason);
  t.is(await t.throwsAsync(warm({signal: interrupted.signal})), reason);
  t.deepEqual(asked(), []);
});
