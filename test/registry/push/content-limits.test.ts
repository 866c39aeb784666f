import test, {type ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {type Digest, digestOf} from '../../../src/oci/digest.ts';
import {OciError} from '../../../src/oci/errors.ts';
import {refuseLargeImage} from '../../../src/registry/push/content-limits.ts';
import type {Registry} from '../../../src/registry/registries.ts';
import type {ReferenceRecord} from '../../../src/storage/metadata.ts';
import {
  type Backref,
  createMovableClock,
  type RegistryOverrides,
  startBackref,
} from '../../support/backref.ts';
import {contentOf, imageManifest, indexOf, type ManifestContent, randomBlob} from '../../support/content.ts';
import {endlessBody} from '../../support/endless-body.ts';
import {errorOf, type Pusher, pusherTo} from '../../support/pusher.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {wireInProcess} from '../../support/wired.ts';

const limitsOf = (changes: Partial<Registry['limits']>): Registry['limits'] => ({
  children: 50_000,
  depth: 8,
  blob: undefined,
  repository: undefined,
  ...changes,
});
const hosted = (changes: Partial<Registry['limits']>): RegistryOverrides => ({limits: limitsOf(changes)});

const empty = contentOf(Buffer.from('{}'));
const ok = (t: ExecutionContext, {status, body}: {status: number; body: Buffer}) =>
  t.is(status, 201, String(body));

async function start(t: ExecutionContext, changes: RegistryOverrides) {
  const proxy = await startBackref(t, {registries: [{library: false, ...changes}]});
  const refused = async (limit: string) => {
    const text = (await proxy.ask('/metrics')).body.toString();
    return Number(new RegExp(`backref_refused_total\\{limit="${limit}"\\} (\\d+)`).exec(text)?.[1] ?? 0);
  };
  return {proxy, refused, pusher: pusherTo(proxy, 'team/app')};
}

async function pushImage(pusher: Pusher): Promise<ManifestContent> {
  const layer = randomBlob(10);
  const image = imageManifest([layer]);
  await pusher.image(image, [empty, layer]);
  return image;
}

test('a manifest that names as many manifests and blobs as allowed is accepted, one with one more is not', async (t) => {
  const {pusher, refused} = await start(t, hosted({children: 3}));
  const layers = [randomBlob(10), randomBlob(10), randomBlob(10)];
  for (const blob of [empty, ...layers]) ok(t, await pusher.blob(blob));
  ok(t, await pusher.manifest(imageManifest(layers.slice(0, 2))));
  const answer = await pusher.manifest(imageManifest(layers));
  t.is(answer.status, 400);
  t.like(errorOf(answer), {code: 'MANIFEST_INVALID', detail: {limit: 'registries.NAME.limits.children'}});
  t.regex(
    errorOf(answer).message,
    /names 4 manifests and blobs, and registries\.docker\.io\.limits\.children allows 3/,
  );
  t.is(await refused('registries.NAME.limits.children'), 1);
});

test('manifests of nested indexes count together, each once', async (t) => {
  const {pusher} = await start(t, hosted({children: 4}));
  const images = [];
  for (let count = 0; count < 5; count += 1) images.push(await pushImage(pusher));
  const [first, second] = [indexOf(images.slice(0, 2)), indexOf(images.slice(1, 3))];
  for (const index of [first, second]) ok(t, await pusher.manifest(index));
  // Two indexes and three images: one of them is in both.
  const answer = await pusher.manifest(indexOf([first, second]));
  t.is(answer.status, 400);
  t.regex(errorOf(answer).message, /and the indexes in it name more manifests, and .* allows 4/);
  ok(t, await pusher.manifest(indexOf([first, ...images.slice(0, 2)])));
});

const digestNamed = (name: string): Digest => digestOf(Buffer.from(name));

/**
 * Checks an index of indexes that are here and name these manifests.
 * @returns also what was read, in order, and how often something else had its turn
 */
async function pushNested(t: ExecutionContext, children: number, nested: readonly (readonly Digest[])[]) {
  const registries = [{library: false, ...hosted({children})}];
  const {route} = await wireInProcess(t, {registries, clock: createMovableClock()});
  const indexes = new Map<Digest, readonly ReferenceRecord[]>(
    nested.map((digests, index) => [
      digestNamed(`index ${index}`),
      digests.map((digest) => ({digest, size: 1, kind: 'manifest'})),
    ]),
  );
  const manifests = [...indexes.keys()].map((digest) => ({digest, size: 1, mediaType: ''}));
  const read: Digest[] = [];
  let turns = 0;
  const takeTurn = () => {
    turns += 1;
    next = setImmediate(takeTurn);
  };
  let next = setImmediate(takeTurn);
  const checked = {
    digest: digestNamed('outer'),
    mediaType: '',
    bytes: Buffer.alloc(0),
    facts: {blobs: [], foreign: [], manifests},
    edge: undefined,
    known: true,
    unsupported: {blobs: [], manifests: []},
  };
  const refused = await refuseLargeImage(route('team/app'), checked, {
    manifest: async (_, digest) => ({
      digest,
      mediaType: '',
      bytes: Buffer.alloc(0),
      origin: 'local',
      linkedAt: 0,
    }),
    async references(digest) {
      read.push(digest);
      return [...(indexes.get(digest) ?? [])];
    },
  }).catch((error: unknown) => error);
  clearImmediate(next);
  return {refused, read, turns};
}

test('a manifest that many indexes name many times is counted and read once', async (t) => {
  const shared = digestNamed('shared');
  const nested = Array.from({length: 100}, () => Array.from({length: 1000}, () => shared));
  const {refused, read} = await pushNested(t, 101, nested);
  t.is(refused, undefined);
  t.is(read.length, 101);
  t.is(new Set(read).size, 101);
});

test('an index is refused as soon as what it nests is too much, before the rest is read', async (t) => {
  const nested = Array.from({length: 100}, (_, index) =>
    Array.from({length: 10}, (__, child) => digestNamed(`${index} ${child}`)),
  );
  const {refused, read} = await pushNested(t, 150, nested);
  t.true(refused instanceof OciError);
  t.regex(String(refused), /and the indexes in it name more manifests, and .* allows 150/);
  t.is(read.length, 6);
});

test('other requests get their turn while a few indexes with many entries are read', async (t) => {
  const nested = Array.from({length: 10}, () => Array.from({length: 1000}, () => digestNamed('shared')));
  const {refused, turns} = await pushNested(t, 11, nested);
  t.is(refused, undefined);
  t.true(turns >= 10, `${turns} turns`);
});

test('indexes that are nested as deeply as allowed are accepted, deeper ones are not', async (t) => {
  const {pusher, refused} = await start(t, hosted({depth: 3}));
  const image = await pushImage(pusher);
  const index = indexOf([image]);
  const outer = indexOf([index]);
  for (const each of [index, outer]) ok(t, await pusher.manifest(each));
  const answer = await pusher.manifest(indexOf([image, outer]));
  t.is(answer.status, 400);
  t.like(errorOf(answer), {code: 'MANIFEST_INVALID', detail: {limit: 'registries.NAME.limits.depth'}});
  t.is(await refused('registries.NAME.limits.depth'), 1);
});

test('a manifest whose children are not here is accepted where they need not be', async (t) => {
  const {pusher} = await start(t, {
    ...hosted({depth: 2, children: 2}),
    validate: {blobs: false, children: false, sizes: false},
  });
  ok(t, await pusher.manifest(indexOf([imageManifest([randomBlob(1)]), imageManifest([randomBlob(2)])])));
});

test('an index that is pushed through is refused before the upstream is asked', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const {pusher} = await start(t, {url: upstream.url, push: 'through', ...hosted({children: 1})});
  t.is((await pusher.manifest(imageManifest([randomBlob(10)]))).status, 400);
  t.is(upstream.requests.length, 0);
});

const BEGIN = '/v2/team/app/blobs/uploads/';

async function begin({ask}: Backref): Promise<string> {
  const {status, headers} = await ask(BEGIN, {method: 'POST', headers: {'Content-Length': 0}});
  if (status !== 202) throw new Error(`the upload was answered with ${status}`);
  return String(headers.location);
}

test('a blob of the largest size is accepted, in one request and in chunks, and a larger one is not', async (t) => {
  const {proxy, pusher, refused} = await start(t, hosted({blob: 1000}));
  ok(t, await pusher.blob(randomBlob(1000)));
  const answer = await pusher.blob(randomBlob(1001));
  t.is(answer.status, 413);
  t.like(errorOf(answer), {code: 'BLOB_UPLOAD_INVALID', detail: {limit: 'registries.NAME.limits.blob'}});
  t.regex(
    errorOf(answer).message,
    /larger than the 1000 bytes that registries\.docker\.io\.limits\.blob allows/,
  );

  const path = await begin(proxy);
  const patch = (size: number) =>
    proxy.ask(path, {method: 'PATCH', headers: {'Content-Length': size}, body: Buffer.alloc(size)});
  t.is((await patch(600)).status, 202);
  t.is((await patch(401)).status, 413);
  t.is((await proxy.ask(path)).status, 404, 'the upload has ended');
  t.is(await refused('registries.NAME.limits.blob'), 2);
});

test('bytes of which no number is declared are counted while they arrive', async (t) => {
  const {proxy} = await start(t, hosted({blob: 1000}));
  const send = async (size: number) =>
    proxy.ask(await begin(proxy), {
      method: 'PATCH',
      headers: {'Transfer-Encoding': 'chunked'},
      body: Buffer.alloc(size),
    });
  t.is((await send(1000)).status, 202);
  t.is((await send(1001)).status, 413);
});

test('the body of an upload that becomes too large is read no further', async (t) => {
  const registries = [{library: false, ...hosted({blob: 1000})}];
  const {verbs, route} = await wireInProcess(t, {registries, clock: createMovableClock()});
  const app = route('team/app');
  const begun = await verbs.push.begin(app, {algorithm: undefined, mount: undefined}, ANONYMOUS);
  if (begun === 'mounted') throw new Error('nothing is to be mounted');
  const body = endlessBody(async () => Buffer.alloc(400));
  const chunk = {length: undefined, range: undefined, bytes: body.bytes};
  await t.throwsAsync(verbs.push.append(app, begun.id, chunk, ANONYMOUS), {message: /larger than the 1000/});
  t.true(body.isReturned);
});

test('a chunk that does not begin where the upload ends is refused for that, and the upload goes on', async (t) => {
  const {proxy} = await start(t, hosted({blob: 1000}));
  const path = await begin(proxy);
  const headers = {'Content-Length': 10, 'Content-Range': '2000-2009'};
  t.is((await proxy.ask(path, {method: 'PATCH', headers, body: Buffer.alloc(10)})).status, 416);
  t.is((await proxy.ask(path)).status, 204);
});

test('a blob that is too large is not sent to the upstream, however its client declares it', async (t) => {
  const at = '/v2/team/app/blobs/uploads/one';
  const upstream = await createScriptedUpstream(t, [
    {request: `POST ${BEGIN}`, answer: {status: 202, headers: {Location: at}}, times: 2},
    {request: `PATCH ${at}`, answer: {status: 202, headers: {Location: at}}, optional: true},
  ]);
  const {proxy} = await start(t, {url: upstream.url, push: 'through', ...hosted({blob: 1000})});
  const body = Buffer.alloc(1001);
  const declared = {method: 'PATCH', headers: {'Content-Length': body.length}, body};
  t.is((await proxy.ask(await begin(proxy), declared)).status, 413);
  t.is(upstream.requests.length, 1);
  const streamed = {method: 'PATCH', headers: {'Transfer-Encoding': 'chunked'}, body};
  t.is((await proxy.ask(await begin(proxy), streamed)).status, 413);
});

test('a repository keeps as many bytes of pushed blobs as allowed, each blob once, and others are not affected', async (t) => {
  const {proxy, pusher, refused} = await start(t, hosted({repository: 1000}));
  const [large, small] = [randomBlob(900), randomBlob(100)];
  ok(t, await pusher.blob(large));
  const answer = await pusher.blob(randomBlob(101));
  t.is(answer.status, 403);
  t.like(errorOf(answer), {
    code: 'DENIED',
    detail: {name: 'team/app', kept: 900, more: 101, limit: 'registries.NAME.limits.repository'},
  });
  ok(t, await pusher.blob(large));
  ok(t, await pusher.blob(small));
  const full = await proxy.ask(BEGIN, {method: 'POST', headers: {'Content-Length': 0}});
  t.is(full.status, 403);
  t.regex(
    errorOf(full).message,
    /limits\.repository allows 1000 bytes of pushed blobs in each repository, and team\/app has 1000: delete images/,
  );
  ok(t, await pusherTo(proxy, 'team/other').blob(randomBlob(1000)));
  t.is(await refused('registries.NAME.limits.repository'), 2);
});

test('an upload that would be too much for its repository ends', async (t) => {
  const {proxy} = await start(t, hosted({repository: 1000}));
  const blob = randomBlob(1001);
  const path = await begin(proxy);
  const headers = {'Content-Length': blob.bytes.length};
  t.is((await proxy.ask(path, {method: 'PATCH', headers, body: blob.bytes})).status, 202);
  t.is((await proxy.ask(`${path}?digest=${blob.digest}`, {method: 'PUT'})).status, 403);
  t.is((await proxy.ask(path)).status, 404);
});

test('uploads that end at the same time do not exceed the limit together', async (t) => {
  const {pusher} = await start(t, hosted({repository: 1000}));
  const answers = await Promise.all(Array.from({length: 8}, () => pusher.blob(randomBlob(300))));
  t.is(answers.filter(({status}) => status === 201).length, 3);
  t.is(answers.filter(({status}) => status === 403).length, 5);
});

test('what is deleted makes room', async (t) => {
  const {pusher} = await start(t, hosted({repository: 1000}));
  const [first, second] = [randomBlob(900), randomBlob(900)];
  ok(t, await pusher.blob(first));
  t.is((await pusher.blob(second)).status, 403);
  t.is((await pusher.delete(`blobs/${first.digest}`)).status, 202);
  ok(t, await pusher.blob(second));
});

test('a blob that is mounted counts, and one that would be too much is not mounted', async (t) => {
  const {proxy, pusher} = await start(t, hosted({repository: 1000}));
  const [large, small] = [randomBlob(800), randomBlob(300)];
  for (const blob of [large]) ok(t, await pusherTo(proxy, 'team/base').blob(blob));
  ok(t, await pusherTo(proxy, 'team/tools').blob(small));
  const mount = (digest: string, from: string) =>
    proxy.ask(`${BEGIN}?mount=${digest}&from=${from}`, {method: 'POST', headers: {'Content-Length': 0}});
  ok(t, await mount(large.digest, 'team/base'));
  t.is((await mount(small.digest, 'team/tools')).status, 403);
  t.is((await pusher.get(`blobs/${small.digest}`)).status, 404);
});

test("copies of an upstream's blobs count once they are kept for a pushed manifest", async (t) => {
  const layer = randomBlob(900);
  const image = imageManifest([layer]);
  const upstream = await createScriptedUpstream(
    t,
    [layer, empty].map(({digest, bytes}) => ({
      request: `GET /v2/team/app/blobs/${digest}`,
      answer: {body: bytes},
    })),
    {anyOrder: true},
  );
  const {proxy, pusher} = await start(t, {
    url: upstream.url,
    push: 'local',
    overlay: {tags: 'allow'},
    ...hosted({repository: 1000}),
  });
  for (const {digest} of [layer, empty]) t.is((await proxy.ask(`/v2/team/app/blobs/${digest}`)).status, 200);
  await proxy.idle();
  ok(t, await pusher.blob(randomBlob(500)));
  const answer = await pusher.manifest(image, '1');
  t.is(answer.status, 403);
  t.like(errorOf(answer).detail, {kept: 500, more: 902});
});

test('a reload changes the limits of what is pushed from then on', async (t) => {
  const {proxy, pusher} = await start(t, hosted({blob: 10, repository: 10}));
  t.is((await pusher.blob(randomBlob(11))).status, 413);
  proxy.reload({registries: [{library: false}]});
  ok(t, await pusher.blob(randomBlob(11)));
});
