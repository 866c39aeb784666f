import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {parseReference} from '../../../src/oci/name.ts';
import type {ImageReadiness} from '../../../src/registry/maintenance/ready.ts';
import {isComplete} from '../../../src/registry/manifests/completeness.ts';
import {type BackrefOptions, createMovableClock, DAY} from '../../support/backref.ts';
import {
  blobAnswer,
  type Content,
  contentOf,
  imageManifest,
  indexOf,
  type ManifestContent,
  manifestAnswer,
  randomBlob,
} from '../../support/content.ts';
import {descriptorOf, listAnswer, referrerOf} from '../../support/referrers.ts';
import {createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';
import {wireInProcess} from '../../support/wired.ts';

const NEVER = new AbortController().signal;
const layers = [randomBlob(1000), randomBlob(2000)] as const;
const config = contentOf(Buffer.from('{}'));
const amd64 = imageManifest([layers[0]]);
const arm64 = imageManifest([layers[1]]);
const provenance = imageManifest();
const index = platformIndex();
const sbom = referrerOf(index);
const signature = imageManifest();

/** An index of two platforms and BuildKit's attestation of the first. */
function platformIndex(): ManifestContent {
  const {bytes, mediaType} = indexOf([amd64, arm64, provenance]);
  const body = JSON.parse(bytes.toString());
  body.manifests[0].platform = {os: 'linux', architecture: 'amd64'};
  body.manifests[1].platform = {os: 'linux', architecture: 'arm64', variant: 'v8'};
  body.manifests[2].annotations = {
    'vnd.docker.reference.type': 'attestation-manifest',
    'vnd.docker.reference.digest': amd64.digest,
  };
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType};
}

const optional = (request: string, answer: Expectation['answer']): Expectation => ({
  request,
  ...(answer ? {answer} : {}),
  always: true,
  optional: true,
});

const manifestAt = (reference: string, manifest: ManifestContent): Expectation =>
  optional(`GET /v2/library/app/manifests/${reference}`, manifestAnswer(manifest));

/** A server whose upstream has the image, with an SBOM that refers to it. */
async function setUp(
  t: ExecutionContext,
  changes: Expectation[] = [],
  settings: BackrefOptions['config'] = {},
) {
  const manifests = [index, amd64, arm64, provenance, sbom, signature];
  const upstream = await createScriptedUpstream(
    t,
    [
      ...changes,
      manifestAt('1', index),
      ...manifests.map((each) => manifestAt(each.digest, each)),
      ...[...layers, config].map((blob) =>
        optional(`GET /v2/library/app/blobs/${blob.digest}`, blobAnswer(blob)),
      ),
      optional(`GET /v2/library/app/referrers/${index.digest}`, listAnswer([descriptorOf(sbom)])),
      optional(`GET /v2/library/app/referrers/${amd64.digest}`, listAnswer([])),
      {
        request: /^GET \/v2\/library\/app\/manifests\/sha256-/,
        answer: {status: 404},
        always: true,
        optional: true,
      },
    ],
    {anyOrder: true},
  );
  const server = await wireInProcess(t, {
    registries: [upstream],
    clock: createMovableClock(),
    config: settings,
  });
  const {content, referrers, maintenance} = server;
  const route = server.route('app');
  const asked = () => upstream.requests.length;
  return {
    ...server,
    repository: route.repository,
    async pull(reference: string) {
      await content.manifests.get(route, parseReference(reference), ANONYMOUS, {noCache: false});
    },
    async fill(...blobs: Content[]) {
      for (const {digest} of blobs) {
        const {open} = await content.blobs.get(route, digest, ANONYMOUS);
        for await (const _ of await open());
        await content.fills.running(digest)?.done;
      }
    },
    list: ({digest}: Content) => referrers.lists.ready(route, digest, ANONYMOUS),
    /** What is found without asking the upstream. */
    async check(image = 'app:1', platforms: string[] = []): Promise<ImageReadiness> {
      const before = asked();
      const {readiness} = await maintenance.ready.run({
        images: [image],
        platforms,
        signal: NEVER,
        progress: () => {},
      });
      t.is(asked(), before, 'the upstream was asked');
      const [found] = readiness;
      if (!found) throw new Error('nothing was found');
      return found;
    },
  };
}

test('an image that was never pulled lacks its tag, or its manifest', async (t) => {
  const {check} = await setUp(t);
  t.deepEqual(await check(), {
    image: 'app:1',
    pulls: false,
    verifies: false,
    missing: [{kind: 'tag', name: '1', neededTo: 'pull'}],
    lacking: {pull: 1, verify: 0, bytes: 0},
  });
  t.like(await check(`docker.io/library/app@${amd64.digest}`), {
    pulls: false,
    missing: [{kind: 'manifest', digest: amd64.digest, neededTo: 'pull'}],
  });
});

test('an index pulls when one platform is whole; what the nearest one lacks is listed before', async (t) => {
  const {check, pull, fill, storage, repository} = await setUp(t);
  const complete = async () => {
    const record = await storage.metadata.manifest(repository, index.digest);
    return record !== undefined && isComplete(storage.metadata, repository, record);
  };
  const manifest = (each: ManifestContent) => ({
    kind: 'manifest',
    digest: each.digest,
    size: each.bytes.length,
    neededTo: 'pull',
  });
  const blob = ({digest, bytes}: Content) => ({kind: 'blob', digest, size: bytes.length, neededTo: 'pull'});
  await pull('1');
  t.like(await check(), {digest: index.digest, pulls: false, lacking: {pull: 1}});
  t.deepEqual((await check()).missing[0], manifest(amd64));

  await pull(arm64.digest);
  await fill(config);
  t.deepEqual(
    (await check('app:1', ['linux/arm64'])).missing.filter(({neededTo}) => neededTo === 'pull'),
    [blob(layers[1])],
  );
  t.false(await complete());

  await pull(provenance.digest);
  t.false((await check()).pulls, 'an attestation is not a platform');
  t.false(await complete());

  await fill(layers[1]);
  t.true((await check()).pulls);
  t.true((await check('app:1', ['linux/arm64'])).pulls);
  t.true(await complete());
  t.like(await check('app:1', ['linux/arm64', 'linux/amd64']), {pulls: false, lacking: {pull: 1}});
  t.deepEqual((await check('app:1', ['linux/s390x'])).missing[0], {
    kind: 'platform',
    name: 'linux/s390x',
    neededTo: 'pull',
  });
});

test('a blob whose file the disk has lost is missing', async (t) => {
  const {check, pull, fill, storage} = await setUp(t);
  await pull('1');
  await pull(amd64.digest);
  await fill(config, layers[0]);
  t.true((await check()).pulls);
  await storage.store.delete(layers[0].digest);
  t.like(await check(), {pulls: false, missing: [{kind: 'blob', digest: layers[0].digest}]});
});

test('a blob that only another repository may serve is missing', async (t) => {
  const {check, pull, fill, storage, repository} = await setUp(t);
  await pull('1');
  await pull(amd64.digest);
  await fill(config, layers[0]);
  await storage.metadata.commit([{type: 'blob.unlink', repository, digest: layers[0].digest}]);
  t.like(await check(), {pulls: false, missing: [{kind: 'blob', digest: layers[0].digest}]});
});

test('a tag counts as long as it would be served, and it is said until when', async (t) => {
  const {check, pull, fill, clock} = await setUp(t);
  await pull('1');
  await pull(amd64.digest);
  await fill(config, layers[0]);
  const {until} = await check();
  t.is(until, new Date(clock.now() + 7 * DAY).toISOString());
  clock.move(7 * DAY);
  t.true((await check()).pulls);
  clock.move(1);
  t.like(await check(), {pulls: false, missing: [{kind: 'tag', name: '1'}]});
  t.true((await check(`app@${index.digest}`)).pulls);
});

test('an image verifies when its lists are known, and its referrers and attestations are here with their blobs', async (t) => {
  const {check, pull, fill, list} = await setUp(t);
  await pull('1');
  await pull(amd64.digest);
  await fill(layers[0]);
  await list(index);
  await list(amd64);
  const lacking = async () => (await check()).missing.map(({kind, digest}) => [kind, digest]);
  t.deepEqual(await lacking(), [
    ['blob', config.digest],
    ['manifest', sbom.digest],
    ['manifest', provenance.digest],
  ]);
  await pull(sbom.digest);
  await pull(provenance.digest);
  await fill(config);
  t.like(await check(), {pulls: true, verifies: true, missing: []});
});

test('an unknown list of referrers, or one that is too old to be served, keeps an image from verifying', async (t) => {
  const {check, pull, fill, list, clock} = await setUp(t);
  await pull(amd64.digest);
  await fill(layers[0], config);
  const image = `app@${amd64.digest}`;
  t.like(await check(image), {
    pulls: true,
    verifies: false,
    missing: [{kind: 'list', digest: amd64.digest, neededTo: 'verify'}],
  });
  await list(amd64);
  t.true((await check(image)).verifies);
  clock.move(7 * DAY + 1);
  t.like(await check(image), {pulls: true, verifies: false});
});

test("cosign's tags count where the tag, or the upstream's list of tags, shows that they exist", async (t) => {
  const tag = `${amd64.digest.replace(':', '-')}.sig`;
  const {check, pull, fill, list, storage, repository} = await setUp(t, [manifestAt(tag, signature)]);
  const image = `app@${amd64.digest}`;
  await pull(amd64.digest);
  await fill(layers[0], config);
  await list(amd64);
  t.true((await check(image)).verifies);

  const at = Date.now();
  await storage.metadata.commit([{type: 'tag-list.put', repository, names: ['1', tag], at}]);
  t.like(await check(image), {verifies: false, missing: [{kind: 'tag', name: tag, neededTo: 'verify'}]});
  await pull(tag);
  t.true((await check(image)).verifies);
});

test('names that are malformed, or of a registry that is not configured, are reported with the others', async (t) => {
  const {maintenance} = await setUp(t);
  const images = ['ghcr.io/org/app:1', 'App:1', 'app:1'];
  const {readiness, ...counts} = await maintenance.ready.run({
    images,
    platforms: [],
    signal: NEVER,
    progress: () => {},
  });
  t.deepEqual(counts, {images: 3, pulls: 0, verifies: 0});
  t.deepEqual(
    readiness.map(({image}) => image),
    images,
  );
  t.regex(readiness[0]?.problem ?? '', /registry "ghcr.io" is not configured here/);
  t.regex(readiness[1]?.problem ?? '', /repository name "App" is not valid/);
  t.is(readiness[2]?.problem, undefined);
});

test('the images that are pinned by name, here or in the configuration, are counted by what would become of them', async (t) => {
  const {pull, fill, list, storage, maintenance, events, repository} = await setUp(t, [], {
    pins: ['docker.io/library/app:1', 'docker.io/library/app:*', 'docker.io/library/app'],
  });
  const counts: unknown[] = [];
  events.on('images.checked', (each) => counts.push(each));
  await maintenance.ready.checkPinned(NEVER);
  const {registry, name} = repository;
  for (const {digest} of [amd64, arm64]) {
    await storage.metadata.commit([{type: 'pin.put', pin: {registry, name, reference: digest, at: 1}}]);
  }
  await pull('1');
  await pull(amd64.digest);
  await fill(layers[0], config);
  await list(amd64);
  await maintenance.ready.checkPinned(NEVER);
  t.deepEqual(counts, [
    {verifies: 0, pulls: 0, incomplete: 1},
    {verifies: 1, pulls: 1, incomplete: 1},
  ]);
});

test('an image whose indexes are nested too deeply to be looked at is not said to pull', async (t) => {
  const nested = [indexOf([amd64])];
  for (let depth = 0; depth < 5; depth++) nested.unshift(indexOf([nested[0] ?? amd64]));
  const {pull, check} = await setUp(t, [
    manifestAt('deep', nested[0] ?? amd64),
    ...nested.map((each) => manifestAt(each.digest, each)),
    optional('GET /v2/library/app/referrers/.*', listAnswer([])),
  ]);
  await pull('deep');
  for (const {digest} of nested) await pull(digest);
  t.like(await check('app:deep'), {pulls: false, verifies: false});
  t.regex((await check('app:deep')).problem ?? '', /nests indexes more than 3 deep/);
});

test("where cosign's tags are not asked for with each pull, it is said that they are not known", async (t) => {
  const {pull, check, storage, repository, clock} = await setUp(t);
  await pull('1');
  t.true((await check()).areTagsUnknown);
  await storage.metadata.commit([{type: 'tag-list.put', repository, names: [], at: clock.now()}]);
  t.is((await check()).areTagsUnknown, undefined);
});

test('that an image is warmed does not count as a use of it', async (t) => {
  const {pull, maintenance, content, storage} = await setUp(t);
  const platforms = ['linux/amd64'];
  const task = {images: ['app:1'], platforms, referrers: false, signal: NEVER, progress: () => {}};
  const usesOf = async ({digest}: Content) => {
    await content.uses.flush();
    return (await storage.metadata.links(undefined, 10)).find((link) => link.digest === digest)?.uses;
  };
  await maintenance.warm.run(task);
  t.is(await usesOf(index), 0);
  await pull('1');
  t.is(await usesOf(index), 1);
});
