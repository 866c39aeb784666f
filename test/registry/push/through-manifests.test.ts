import test, {type ExecutionContext} from 'ava';
import type {Digest} from '../../../src/oci/digest.ts';
import {DOCKER_MANIFEST, OCI_INDEX} from '../../../src/oci/media-type.ts';
import {
  type Backref,
  createMovableClock,
  type ProxyAnswer,
  type RegistryOverrides,
  startBackref,
} from '../../support/backref.ts';
import {
  contentOf,
  headAnswer,
  imageManifest,
  indexOf,
  type ManifestContent,
  manifestAnswer,
  plainManifest,
} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {descriptorOf, fallbackTagOf, indexBytes, listAnswer, referrerOf} from '../../support/referrers.ts';
import {
  createScriptedUpstream,
  type Expectation,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';

const MANIFESTS = '/v2/library/app/manifests';
const image = plainManifest();

async function start(t: ExecutionContext, script: Expectation[], overrides: Partial<RegistryOverrides> = {}) {
  const upstream = await createScriptedUpstream(t, script);
  const clock = createMovableClock();
  const registries = [{url: upstream.url, push: 'through' as const, ...overrides}];
  return {upstream, clock, proxy: await startBackref(t, {registries, clock})};
}

const put = (proxy: Backref, reference: string, {bytes, mediaType}: ManifestContent) =>
  proxy.ask(`/v2/app/manifests/${reference}`, {
    method: 'PUT',
    headers: {'Content-Type': mediaType, 'Content-Length': bytes.length},
    body: bytes,
  });
const get = (proxy: Backref, reference: string) => proxy.ask(`/v2/app/manifests/${reference}`);
const remove = (proxy: Backref, reference: string) =>
  proxy.ask(`/v2/app/manifests/${reference}`, {method: 'DELETE'});
const referrers = async (proxy: Backref, subject: ManifestContent = image): Promise<string[]> => {
  const {json} = await proxy.ask(`/v2/app/referrers/${subject.digest}`);
  return (json() as {manifests: {digest: string}[]}).manifests.map(({digest}) => digest);
};
const codeOf = ({json}: ProxyAnswer) => (json() as {errors: {code: string; message: string}[]}).errors[0];

/** The upstream accepts a manifest. */
const takes = (reference: string, headers: Record<string, string> = {}): Expectation => ({
  request: `PUT ${MANIFESTS}/${reference}`,
  answer: {status: 201, headers},
});
const API = (subject: ManifestContent = image) => `GET /v2/library/app/referrers/${subject.digest}`;
const TAG = (subject: ManifestContent = image) => `GET ${MANIFESTS}/${fallbackTagOf(subject)}`;
const TAG_PUT = (subject: ManifestContent = image) => `PUT ${MANIFESTS}/${fallbackTagOf(subject)}`;
const tagOf = (...entries: ManifestContent[]): ScriptedAnswer => listAnswer(entries.map(descriptorOf));

test('a pushed tag is forwarded byte for byte, and its first pull does not ask the upstream', async (t) => {
  const {proxy, upstream} = await start(t, [takes('v1', {'Docker-Content-Digest': image.digest})]);
  const taken = await put(proxy, 'v1', image);
  t.is(taken.status, 201);
  t.is(taken.headers['docker-content-digest'], image.digest);
  t.is(taken.headers.location, `/v2/app/manifests/${image.digest}`);
  t.is(taken.headers['oci-subject'], undefined);
  t.deepEqual(upstream.requests[0]?.body, image.bytes);
  t.is(upstream.requests[0]?.headers['content-type'], image.mediaType);
  for (const reference of ['v1', image.digest]) {
    const pulled = await get(proxy, reference);
    t.deepEqual(pulled.body, image.bytes);
    t.is(pulled.headers['content-type'], image.mediaType);
    t.regex(String(pulled.headers['cache-status']), /^backref;hit/);
  }
});

test('a tag that was absent, or pointed elsewhere, is corrected at once', async (t) => {
  const next = plainManifest();
  const {proxy} = await start(t, [
    {request: `GET ${MANIFESTS}/v1`, answer: {status: 404}},
    takes('v1'),
    takes('v1'),
  ]);
  t.is((await get(proxy, 'v1')).status, 404);
  await put(proxy, 'v1', image);
  t.deepEqual((await get(proxy, 'v1')).body, image.bytes);
  await put(proxy, 'v1', next);
  t.deepEqual((await get(proxy, 'v1')).body, next.bytes);
});

test('an answer from before a push does not set the tag back', async (t) => {
  const next = plainManifest();
  const late = Promise.withResolvers<void>();
  const {proxy, upstream, clock} = await start(t, [
    takes('v1'),
    {request: `HEAD ${MANIFESTS}/v1`, answer: {...headAnswer(image), before: late.promise}},
    takes('v1'),
  ]);
  await put(proxy, 'v1', image);
  clock.move(61_000);
  const asked = get(proxy, 'v1');
  await upstream.received(2);
  await put(proxy, 'v1', next);
  late.resolve();
  t.deepEqual((await asked).body, next.bytes);
  t.deepEqual((await get(proxy, 'v1')).body, next.bytes);
});

test('an absence from before a push is not remembered after it', async (t) => {
  for (const method of ['HEAD', 'GET']) {
    const late = Promise.withResolvers<void>();
    const {proxy, upstream} = await start(t, [
      {request: `${method} ${MANIFESTS}/v1`, answer: {status: 404, before: late.promise}},
      takes('v1'),
    ]);
    const asked = proxy.ask('/v2/app/manifests/v1', {method});
    await upstream.received(1);
    await put(proxy, 'v1', image);
    late.resolve();
    t.is((await asked).status, 200, method);
    t.is((await get(proxy, 'v1')).status, 200, method);
  }
});

test('a wrong digest is refused before anything is sent', async (t) => {
  const {proxy} = await start(t, []);
  const refused = await put(proxy, plainManifest().digest, image);
  t.is(refused.status, 400);
  t.is(codeOf(refused)?.code, 'DIGEST_INVALID');
});

test("the upstream's refusals reach the client as they are", async (t) => {
  const error = (code: string) => ({
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({errors: [{code, message: 'because of this'}]}),
  });
  const cases: [number, string, string][] = [
    [404, 'MANIFEST_BLOB_UNKNOWN', 'MANIFEST_BLOB_UNKNOWN'],
    [400, 'TAG_INVALID', 'MANIFEST_INVALID'],
    [404, 'SOMETHING', 'MANIFEST_UNKNOWN'],
    [405, 'UNSUPPORTED', 'UNSUPPORTED'],
    [413, 'X', 'MANIFEST_INVALID'],
  ];
  for (const [status, code, expected] of cases) {
    const {proxy} = await start(t, [{request: `PUT ${MANIFESTS}/v1`, answer: {status, ...error(code)}}]);
    const refused = await put(proxy, 'v1', image);
    t.is(refused.status, status);
    t.is(codeOf(refused)?.code, expected);
    t.regex(String(codeOf(refused)?.message), /because of this/);
  }
});

test('further tags that the upstream does not confirm are put one by one; only those set are reported', async (t) => {
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: `PUT ${MANIFESTS}/v1?tag=a&tag=b&tag=c`, answer: {status: 201, headers: {'OCI-Tag': 'a'}}},
      takes('b'),
      {request: `PUT ${MANIFESTS}/c`, answer: {status: 400}},
      {request: `GET ${MANIFESTS}/c`, answer: {status: 404}},
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {registries: [{url: upstream.url, push: 'through'}]});
  const taken = await put(proxy, 'v1?tag=a&tag=b&tag=c', image);
  t.is(taken.status, 201);
  t.is(taken.headers['oci-tag'], 'a, b');
  for (const tag of ['v1', 'a', 'b']) t.is((await get(proxy, tag)).status, 200, tag);
  t.is((await get(proxy, 'c')).status, 404);
});

test('an upstream that names another digest is asked whether it knows ours', async (t) => {
  const other = plainManifest('sha512');
  const sha256 = contentOf(other.bytes).digest;
  const script = (status: number): Expectation[] => [
    takes(other.digest, {'Docker-Content-Digest': sha256}),
    {request: `HEAD ${MANIFESTS}/${other.digest}`, answer: status === 200 ? headAnswer(other) : {status}},
  ];
  const {proxy} = await start(t, script(200));
  const taken = await put(proxy, other.digest, other);
  t.is(taken.headers['docker-content-digest'], other.digest);
  t.is((await get(proxy, other.digest)).status, 200);

  const {proxy: second} = await start(t, script(404));
  const refused = await put(second, other.digest, other);
  t.is(refused.status, 400);
  t.is(codeOf(refused)?.code, 'DIGEST_INVALID');
  t.regex(String(codeOf(refused)?.message), /stored the manifest as sha256:/);
});

test('a tag is known by the digest that the upstream knows it by', async (t) => {
  const sha512 = contentOf(image.bytes, 'sha512').digest;
  const {proxy} = await start(t, [
    takes('v1', {'Docker-Content-Digest': sha512}),
    {request: `HEAD ${MANIFESTS}/${image.digest}`, answer: {status: 404}},
  ]);
  t.is((await put(proxy, 'v1', image)).headers['docker-content-digest'], sha512);
  t.is((await get(proxy, 'v1')).headers['docker-content-digest'], sha512);
});

test('a tag list shows what was pushed, even if it was requested before', async (t) => {
  const list = (...tags: string[]): Expectation => ({
    request: 'GET /v2/library/app/tags/list?n=1000',
    answer: {
      headers: {'Content-Type': 'application/json'},
      body: JSON.stringify({name: 'library/app', tags}),
    },
  });
  const late = Promise.withResolvers<void>();
  const {proxy, upstream} = await start(t, [
    {...list('old'), answer: {...(list('old').answer as ScriptedAnswer), before: late.promise}},
    takes('new'),
    list('new', 'old'),
    {request: `DELETE ${MANIFESTS}/old`, answer: {status: 202}},
    {request: 'GET /v2/library/app/tags/list?n=1000', answer: {status: 500}, times: 8, optional: true},
  ]);
  const asked = proxy.ask('/v2/app/tags/list');
  await upstream.received(1);
  await put(proxy, 'new', image);
  late.resolve();
  t.deepEqual((await asked).json(), {name: 'app', tags: ['new', 'old']});
  t.is((await remove(proxy, 'old')).status, 202);
  t.deepEqual((await proxy.ask('/v2/app/tags/list')).json(), {name: 'app', tags: ['new']});
});

test('a tag list fetched before a push does not count as fresh after it', async (t) => {
  const LIST = 'GET /v2/library/app/tags/list?n=1000';
  const list = (...tags: string[]): ScriptedAnswer => ({
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({name: 'library/app', tags}),
  });
  const wait = Promise.withResolvers<void>();
  const {proxy, upstream} = await start(t, [
    {request: LIST, answer: {...list('old'), before: wait.promise}},
    takes('new'),
    {request: LIST, answer: list('old', 'new')},
    {request: `HEAD ${MANIFESTS}/old`, answer: {status: 404}},
  ]);
  const commands = await proxy.server.commands();
  const {signal} = new AbortController();
  const walking = commands.index({repository: 'library/app', budget: 10, signal, progress: () => {}});
  await upstream.received(1);
  t.is((await put(proxy, 'new', image)).status, 201);
  wait.resolve();
  await walking;
  const listed = await proxy.ask('/v2/app/tags/list');
  t.deepEqual(listed.json(), {name: 'app', tags: ['new', 'old']});
  t.regex(String(listed.headers['cache-status']), /^backref;hit/);
});

test('a deleted tag and a deleted manifest are gone at once, and the upstream is asked about them', async (t) => {
  const {proxy} = await start(t, [
    takes('v1'),
    takes('v2'),
    {request: `DELETE ${MANIFESTS}/v1`, answer: {status: 202}},
    {request: `GET ${MANIFESTS}/v1`, answer: {status: 404}},
    {request: `DELETE ${MANIFESTS}/${image.digest}`, answer: {status: 202}},
    {request: `HEAD ${MANIFESTS}/${image.digest}`, answer: {status: 404}},
    {request: `GET ${MANIFESTS}/v2`, answer: {status: 404}},
  ]);
  await put(proxy, 'v1', image);
  await put(proxy, 'v2', image);
  t.is((await remove(proxy, 'v1')).status, 202);
  t.is((await get(proxy, 'v1')).status, 404);
  t.is((await get(proxy, 'v2')).status, 200);
  t.is((await remove(proxy, image.digest)).status, 202);
  t.is((await proxy.ask(`/v2/app/manifests/${image.digest}`, {method: 'HEAD'})).status, 404);
  t.is((await get(proxy, 'v2')).status, 404);
});

test('a deletion that the upstream refuses changes nothing; if the content is gone there, it goes here', async (t) => {
  const {proxy} = await start(t, [
    takes('v1'),
    {request: `DELETE ${MANIFESTS}/v1`, answer: {status: 405}},
    {request: `DELETE ${MANIFESTS}/${image.digest}`, answer: {status: 404}},
    {request: `GET ${MANIFESTS}/v1`, answer: {status: 404}},
  ]);
  await put(proxy, 'v1', image);
  const refused = await remove(proxy, 'v1');
  t.is(refused.status, 405);
  t.is(codeOf(refused)?.code, 'UNSUPPORTED');
  t.is((await get(proxy, 'v1')).status, 200);
  const gone = await remove(proxy, image.digest);
  t.is(gone.status, 404);
  t.is(codeOf(gone)?.code, 'MANIFEST_UNKNOWN');
  t.is((await get(proxy, 'v1')).status, 404);
});

test('without a Referrers API the fallback tag is written, and the subject confirmed', async (t) => {
  const sbom = referrerOf(image);
  const {proxy, upstream} = await start(t, [
    takes(sbom.digest),
    {request: API(), answer: {status: 404}},
    {request: TAG(), sends: {'cache-control': 'no-cache'}, answer: {status: 404}},
    {request: TAG_PUT(), sends: {'content-type': OCI_INDEX}, answer: {status: 201}},
    {request: TAG(), sends: {'cache-control': 'no-cache'}, answer: tagOf(sbom)},
  ]);
  const taken = await put(proxy, sbom.digest, sbom);
  t.is(taken.status, 201);
  t.is(taken.headers['oci-subject'], image.digest);
  t.deepEqual(JSON.parse(String(upstream.requests[3]?.body)), {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: [descriptorOf(sbom)],
  });
});

test('with a Referrers API that lists it, no tag is written, and the next push does not ask', async (t) => {
  const [sbom, other] = [referrerOf(image), referrerOf(image)];
  const {proxy} = await start(t, [
    // The header alone proves nothing.
    takes(sbom.digest, {'OCI-Subject': image.digest}),
    {request: API(), answer: listAnswer([descriptorOf(sbom)])},
    takes(other.digest),
  ]);
  t.is((await put(proxy, sbom.digest, sbom)).headers['oci-subject'], image.digest);
  t.is((await put(proxy, other.digest, other)).headers['oci-subject'], image.digest);
});

test('an upstream that confirms the subject and has no Referrers API gets the fallback tag', async (t) => {
  const sbom = referrerOf(image);
  const {proxy} = await start(t, [
    takes(sbom.digest, {'OCI-Subject': image.digest}),
    {request: API(), answer: {status: 404}},
    {request: TAG(), answer: {status: 404}},
    {request: TAG_PUT(), answer: {status: 201}},
    {request: TAG(), answer: tagOf(sbom)},
  ]);
  t.is((await put(proxy, sbom.digest, sbom)).headers['oci-subject'], image.digest);
});

test('a pushed referrer is listed at once, after its deletion it is not, and the tag follows', async (t) => {
  const sbom = referrerOf(image);
  const {proxy} = await start(
    t,
    [
      {request: TAG(), answer: {status: 404}},
      takes(sbom.digest),
      {request: TAG(), answer: {status: 404}},
      {request: TAG_PUT(), answer: {status: 201}},
      {request: TAG(), answer: tagOf(sbom)},
      {request: `DELETE ${MANIFESTS}/${sbom.digest}`, answer: {status: 202}},
      {request: TAG(), answer: tagOf(sbom)},
      {
        request: TAG_PUT(),
        answer: ({body}) => {
          t.deepEqual(JSON.parse(String(body)).manifests, []);
          return {status: 201};
        },
      },
      {request: TAG(), answer: tagOf()},
    ],
    {referrers: {mode: 'tag'}},
  );
  t.deepEqual(await referrers(proxy), []);
  await put(proxy, sbom.digest, sbom);
  t.deepEqual(await referrers(proxy), [sbom.digest]);
  t.is((await remove(proxy, sbom.digest)).status, 202);
  t.deepEqual(await referrers(proxy), []);
});

test('an old answer does not bring a deleted referrer back', async (t) => {
  const sbom = referrerOf(image);
  const {proxy, clock} = await start(t, [
    takes(sbom.digest),
    {request: API(), answer: listAnswer([descriptorOf(sbom)]), times: 2},
    {request: `DELETE ${MANIFESTS}/${sbom.digest}`, answer: {status: 202}},
    {request: API(), answer: listAnswer([descriptorOf(sbom)])},
  ]);
  await put(proxy, sbom.digest, sbom);
  t.deepEqual(await referrers(proxy), [sbom.digest]);
  await remove(proxy, sbom.digest);
  clock.move(10_000);
  t.deepEqual(await referrers(proxy), []);
});

test('a tag update that fails stays pending, and the subject is confirmed anyway', async (t) => {
  const sbom = referrerOf(image);
  const {proxy} = await start(t, [
    takes(sbom.digest),
    {request: API(), answer: {status: 404}},
    {request: TAG(), answer: {status: 404}},
    {request: TAG_PUT(), answer: {status: 403}},
    {request: TAG(), answer: {status: 404}, optional: true, times: 100},
    {request: TAG_PUT(), answer: {status: 403}, optional: true, times: 100},
  ]);
  const pending: number[] = [];
  proxy.server.events.on('referrers.tag-pending', ({changes}) => pending.push(changes));
  const taken = await put(proxy, sbom.digest, sbom);
  t.is(taken.status, 201);
  t.is(taken.headers['oci-subject'], image.digest);
  t.deepEqual(pending, [1]);
  t.regex(String((await proxy.ask('/metrics')).body), /^backref_referrers_tag_pending 1$/m);
});

test('a fallback tag that a client writes itself is stored as it is, and its entries join the list', async (t) => {
  const [sbom, foreign] = [referrerOf(image), referrerOf(plainManifest())];
  const bytes = Buffer.from(`  ${indexBytes([sbom, foreign].map(descriptorOf)).toString()}\n`);
  const index = {...contentOf(bytes), mediaType: OCI_INDEX};
  const {proxy, upstream} = await start(
    t,
    [
      {request: TAG(), answer: {status: 404}},
      takes(fallbackTagOf(image)),
      {request: `GET ${MANIFESTS}/${sbom.digest}`, answer: manifestAnswer(sbom)},
      {request: `GET ${MANIFESTS}/${foreign.digest}`, answer: manifestAnswer(foreign)},
    ],
    {referrers: {mode: 'tag'}},
  );
  t.deepEqual(await referrers(proxy), []);
  t.is((await put(proxy, fallbackTagOf(image), index)).status, 201);
  t.deepEqual(upstream.requests[1]?.body, bytes);
  t.deepEqual((await get(proxy, fallbackTagOf(image))).body, bytes);
  t.deepEqual(await referrers(proxy), [sbom.digest]);
});

test('our entry is restored when a client writes the tag without it', async (t) => {
  const [ours, theirs] = [referrerOf(image), referrerOf(image)];
  const index = indexOf([theirs]);
  const {proxy, upstream} = await start(t, [
    takes(ours.digest),
    {request: API(), answer: {status: 404}},
    {request: TAG(), answer: {status: 404}},
    {request: TAG_PUT(), answer: {status: 201}},
    {request: TAG(), answer: tagOf(ours)},
    {request: TAG_PUT(), answer: {status: 201}},
    {request: `GET ${MANIFESTS}/${theirs.digest}`, answer: manifestAnswer(theirs)},
    {request: TAG(), answer: manifestAnswer(index)},
    {request: TAG_PUT(), answer: {status: 201}},
    {request: TAG(), answer: tagOf(theirs, ours)},
  ]);
  await put(proxy, ours.digest, ours);
  await put(proxy, fallbackTagOf(image), index);
  await upstream.received(10);
  const written = JSON.parse(String(upstream.requests[8]?.body)) as {manifests: {digest: Digest}[]};
  t.deepEqual(
    written.manifests.map(({digest}) => digest),
    [theirs.digest, ours.digest],
  );
});

test('a registry whose referrers are switched off leaves the subject to its client', async (t) => {
  const sbom = referrerOf(image);
  const {proxy} = await start(t, [takes(sbom.digest)], {referrers: {mode: 'off'}});
  t.is((await put(proxy, sbom.digest, sbom)).headers['oci-subject'], undefined);
});

test('an image is pushed completely and pulled without asking the upstream', async (t) => {
  const pushed = imageManifest();
  const {proxy} = await start(t, [takes('v1')]);
  t.is((await put(proxy, 'v1', pushed)).status, 201);
  t.deepEqual((await get(proxy, 'v1')).body, pushed.bytes);
});

test('a deletion waits for the push of the same manifest and wins', async (t) => {
  const taken = Promise.withResolvers<void>();
  const {proxy, upstream} = await start(t, [
    {request: `PUT ${MANIFESTS}/v1`, answer: {status: 201, before: taken.promise}},
    {request: `DELETE ${MANIFESTS}/${image.digest}`, answer: {status: 202}},
    {request: `GET ${MANIFESTS}/${image.digest}`, answer: {status: 404}},
  ]);
  const pushed = put(proxy, 'v1', image);
  await upstream.received(1);
  const removed = remove(proxy, image.digest);
  for (let turn = 0; turn < 5; turn++) await proxy.ask('/v2/');
  t.is(upstream.requests.length, 1);
  taken.resolve();
  t.is((await pushed).status, 201);
  t.is((await removed).status, 202);
  t.is((await get(proxy, image.digest)).status, 404);
});

test('a pull by tag from before a deletion does not bring the manifest back', async (t) => {
  const late = Promise.withResolvers<void>();
  const sbom = referrerOf(image);
  const {proxy, upstream} = await start(
    t,
    [
      {request: `GET ${MANIFESTS}/v1`, answer: {...manifestAnswer(sbom), before: late.promise}},
      {request: `GET ${MANIFESTS}/${sbom.digest}`, answer: manifestAnswer(sbom)},
      {request: `DELETE ${MANIFESTS}/${sbom.digest}`, answer: {status: 202}},
      {request: `GET ${MANIFESTS}/${sbom.digest}`, answer: {status: 404}},
    ],
    {referrers: {mode: 'api'}},
  );
  const pulled = get(proxy, 'v1');
  await upstream.received(1);
  t.is((await remove(proxy, sbom.digest)).status, 202);
  late.resolve();
  t.is((await pulled).status, 404);
  t.is((await get(proxy, sbom.digest)).status, 404);
});

test('a local tag from before does not hide what is pushed through', async (t) => {
  const other = plainManifest();
  const folder = await createFolder(t);
  const clock = createMovableClock();
  const upstream = await createScriptedUpstream(t, [
    takes('v1'),
    {request: `DELETE ${MANIFESTS}/v2`, answer: {status: 202}},
    {request: `GET ${MANIFESTS}/v2`, answer: {status: 404}},
  ]);
  const {url} = upstream;
  const validate = {blobs: false, children: false, sizes: false};
  const local = {url, push: 'local' as const, validate, overlay: {tags: 'allow' as const}};
  const before = await startBackref(t, {registries: [local], clock, folder});
  for (const tag of ['v1', 'v2']) t.is((await put(before, tag, image)).status, 201);
  await before.server.close();

  const proxy = await startBackref(t, {registries: [{url, push: 'through'}], clock, folder});
  t.is((await put(proxy, 'v1', other)).status, 201);
  t.deepEqual((await get(proxy, 'v1')).body, other.bytes);
  t.is((await remove(proxy, 'v2')).status, 202);
  t.is((await get(proxy, 'v2')).status, 404);
});

test('a Docker image with a subject that is pushed through is listed, and named under the upstream’s fallback tag', async (t) => {
  const body = {...JSON.parse(referrerOf(image).bytes.toString()), mediaType: DOCKER_MANIFEST};
  const docker = {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: DOCKER_MANIFEST};
  const {proxy, upstream} = await start(t, [
    takes(docker.digest),
    {request: API(), answer: {status: 404}},
    {request: TAG(), answer: {status: 404}},
    {request: TAG_PUT(), answer: {status: 201}},
    {request: TAG(), answer: tagOf(docker)},
    {request: TAG(), answer: tagOf(docker)},
  ]);
  const pushed = await put(proxy, docker.digest, docker);
  t.is(pushed.status, 201);
  t.is(pushed.headers['oci-subject'], image.digest);
  t.deepEqual(JSON.parse(String(upstream.requests[3]?.body)).manifests, [descriptorOf(docker)]);
  t.deepEqual(await referrers(proxy), [docker.digest]);
});

test('a PUT answered with an HTML page, or an empty 200, is 503 and records nothing', async (t) => {
  for (const answer of [
    {headers: {'Content-Type': 'text/html'}, body: '<html>sign in</html>'},
    {status: 200, body: '{}'},
  ]) {
    const {proxy} = await start(t, [
      {request: `PUT ${MANIFESTS}/v1`, answer},
      {request: `GET ${MANIFESTS}/v1`, answer: {status: 404}, always: true},
    ]);
    const refused = await put(proxy, 'v1', image);
    t.is(refused.status, 503, refused.body.toString());
    t.is((await get(proxy, 'v1')).status, 404);
  }
});
