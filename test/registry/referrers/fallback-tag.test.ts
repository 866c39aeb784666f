import test, {type ExecutionContext} from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {DOCKER_LIST, DOCKER_MANIFEST, OCI_ARTIFACT_MANIFEST, OCI_INDEX} from '../../../src/oci/media-type.ts';
import {fallbackTag} from '../../../src/oci/referrers.ts';
import {
  type Backref,
  createMovableClock,
  DAY,
  type ProxyAnswer,
  type RegistryOverrides,
  startBackref,
} from '../../support/backref.ts';
import {
  contentOf,
  imageManifest,
  type ManifestContent,
  manifestAnswer,
  plainManifest,
} from '../../support/content.ts';
import {
  askUntilWritten,
  descriptorOf,
  fallbackTagOf,
  indexBytes,
  type ListedDescriptor,
  listAnswer,
  referrerOf,
} from '../../support/referrers.ts';
import {
  BREAK,
  createScriptedUpstream,
  type Expectation,
  type ScriptedAnswer,
} from '../../support/scripted-upstream.ts';

const REPOSITORY = 'library/app';
const image = plainManifest();
const PATH = `/v2/app/referrers/${image.digest}`;
const TAG_PATH = `/v2/app/manifests/${fallbackTagOf(image)}`;
const API = `GET /v2/${REPOSITORY}/referrers/${image.digest}`;
const TAG = `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(image)}`;
const sbom = referrerOf(image);
const signature = referrerOf(image, {artifactType: 'application/vnd.example.signature'});
const HTML = {headers: {'Content-Type': 'text/html'}, body: '<!doctype html><title>Back soon</title>'};
const NO_API: Expectation = {request: API, answer: {status: 404}};
const getOf = (
  manifest: ManifestContent,
  answer: ScriptedAnswer = manifestAnswer(manifest),
): Expectation => ({
  request: `GET /v2/${REPOSITORY}/manifests/${manifest.digest}`,
  answer,
});
const tagOf = (entries: readonly unknown[]): Expectation => ({request: TAG, answer: listAnswer(entries)});
const named = [descriptorOf(sbom), descriptorOf(signature)];

const digests = (got: ProxyAnswer): string[] =>
  (got.json() as {manifests: ListedDescriptor[]}).manifests.map(({digest}) => digest);

async function start(t: ExecutionContext, script: Expectation[], overrides: Partial<RegistryOverrides> = {}) {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const breaker = {failures: 100, openFor: 1000};
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, upstream: {breaker}, ...overrides}],
    clock: createMovableClock(),
  });
  return {upstream, proxy};
}

const ask = (proxy: Backref, query = '') => proxy.ask(`${PATH}${query}`);

/** Asks while the upstream is down, until the list is served that it gave last: that is answered before it is stored. */
async function askUntilStored(proxy: Backref): Promise<ProxyAnswer> {
  for (;;) {
    const got = await ask(proxy);
    if (got.status === 200) return got;
  }
}

const whole = indexBytes(named);
const flipped = Buffer.from(whole.toString().replace(sbom.digest.slice(-6), '000000'));
const DAMAGED: Record<string, ScriptedAnswer> = {
  'bytes that do not have the digest that the upstream names': {
    headers: {'Content-Type': OCI_INDEX, 'Docker-Content-Digest': digestOf(whole)},
    body: flipped,
  },
  'bytes that do not have the sha512 digest that the upstream names': {
    headers: {'Content-Type': OCI_INDEX, 'Docker-Content-Digest': digestOf(whole, 'sha512')},
    body: flipped,
  },
  'half an index': {headers: {'Content-Type': OCI_INDEX}, body: whole.subarray(0, whole.length / 2)},
  'half an index, and a broken connection': {
    headers: {'Content-Type': OCI_INDEX, 'Content-Length': String(whole.length)},
    body: [whole.subarray(0, whole.length / 2), BREAK],
  },
  'an HTML page': HTML,
  'an HTML page that says that it is an index': {headers: {'Content-Type': OCI_INDEX}, body: HTML.body},
  'an index that says that it is an HTML page': {
    headers: {'Content-Type': 'text/html'},
    body: '{"schemaVersion":2,"manifests":[]}',
  },
  'an empty body': {headers: {'Content-Type': OCI_INDEX}, body: ''},
  'an object without a list': {headers: {'Content-Type': OCI_INDEX}, body: '{}'},
  'a list that is not a list': {headers: {'Content-Type': OCI_INDEX}, body: '{"manifests":{}}'},
  'text that is not UTF-8': {
    headers: {'Content-Type': OCI_INDEX},
    body: Buffer.concat([Buffer.from('{"manifests":[],"a":"'), Buffer.from([0xff]), Buffer.from('"}')]),
  },
  "another image's manifest": manifestAnswer(imageManifest()),
};

/** What could be a registry's answer is not asked for again: only its content, which is read later, shows what is wrong. */
const ASKED_ONCE = new Set([
  'text that is not UTF-8',
  "another image's manifest",
  '401',
  '403',
  '451',
  'a type that the manifest does not have',
]);
const timesOf = (what: string): number => (ASKED_ONCE.has(what) ? 1 : 4);

for (const [what, answer] of Object.entries(DAMAGED)) {
  test(`a fallback tag that is ${what} is a failure, not an empty list`, async (t) => {
    const {proxy, upstream} = await start(t, [NO_API, {request: TAG, answer, times: timesOf(what)}]);
    const got = await ask(proxy);
    t.is(got.status, 503);
    t.like(got.json(), {errors: [{code: 'UNAVAILABLE'}]});
    upstream.expect(tagOf(named), getOf(sbom), getOf(signature));
    t.deepEqual(digests(await ask(proxy)), [sbom.digest, signature.digest]);
  });

  test(`a fallback tag that has become ${what} leaves the last known list, marked as stale`, async (t) => {
    const {proxy, upstream} = await start(t, [NO_API, tagOf(named), getOf(sbom), getOf(signature)]);
    await askUntilWritten(proxy, PATH);
    proxy.clock.move(DAY);
    upstream.expect({...NO_API}, {request: TAG, answer, always: true});
    const got = await ask(proxy);
    t.deepEqual(digests(got), [sbom.digest, signature.digest]);
    t.regex(String(got.headers.warning), /serving the referrers listed at/);
    await upstream.stop();
    t.deepEqual(digests(await ask(proxy)), [sbom.digest, signature.digest]);
  });
}

test('referrers that were pulled before do not pass for the list when the tag is damaged', async (t) => {
  const {proxy} = await start(t, [getOf(sbom), NO_API, {request: TAG, answer: HTML, times: 4}]);
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  t.is((await ask(proxy)).status, 503);
});

test('an empty index is an empty list, also with null as Go writes it', async (t) => {
  for (const body of [indexBytes([]), '{"schemaVersion":2,"manifests":null}']) {
    const {proxy} = await start(t, [
      NO_API,
      {request: TAG, answer: {headers: {'Content-Type': OCI_INDEX}, body}},
    ]);
    const got = await ask(proxy);
    t.is(got.status, 200);
    t.deepEqual(digests(got), []);
  }
});

test('an index without a type of its own, sent as plain JSON, is read', async (t) => {
  const answer = {
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({schemaVersion: 2, manifests: [{digest: sbom.digest}]}),
  };
  const {proxy} = await start(t, [NO_API, {request: TAG, answer}, getOf(sbom)]);
  t.deepEqual(digests(await ask(proxy)), [sbom.digest]);
});

test('entries in formats of Docker, and old artifact manifests, are listed as their own bytes describe them', async (t) => {
  const entries = [DOCKER_MANIFEST, DOCKER_LIST, OCI_ARTIFACT_MANIFEST].map((mediaType): ManifestContent => {
    const body = {...JSON.parse(referrerOf(image).bytes.toString()), mediaType};
    return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType};
  });
  const script = [tagOf(entries.map(({digest}) => ({digest}))), ...entries.map((entry) => getOf(entry))];
  const {proxy} = await start(t, [NO_API, ...script]);
  t.deepEqual((await ask(proxy)).json(), {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: entries.map(descriptorOf),
  });
});

test('a tag that resolves to a sha512 subject itself names no referrers', async (t) => {
  const subject = imageManifest([], 'sha512');
  const request = (path: string) => `GET /v2/${REPOSITORY}/${path}`;
  const {proxy} = await start(t, [
    {request: request(`referrers/${subject.digest}`), answer: {status: 404}},
    {
      request: request(`manifests/${fallbackTag(subject.digest)}`),
      answer: {headers: {'Content-Type': subject.mediaType}, body: subject.bytes},
    },
  ]);
  const got = await proxy.ask(`/v2/app/referrers/${subject.digest}`);
  t.is(got.status, 200);
  t.deepEqual(digests(got), []);
});

const ABSENT: Record<string, ScriptedAnswer> = {'404': {status: 404}, '410': {status: 410}};

for (const [what, answer] of Object.entries(ABSENT)) {
  test(`an entry that answers ${what} is gone: the others are the complete list`, async (t) => {
    const {proxy} = await start(t, [NO_API, tagOf(named), getOf(sbom), getOf(signature, answer)]);
    const got = await ask(proxy);
    t.deepEqual(digests(got), [sbom.digest]);
    t.is(got.headers.warning, undefined);
    t.deepEqual(digests(await askUntilWritten(proxy, PATH)), [sbom.digest]);
  });
}

const REFUSED: Record<string, ScriptedAnswer> = {
  '401': {status: 401},
  '403': {status: 403},
  '451': {status: 451},
  'a manifest of another digest': manifestAnswer({...sbom, digest: signature.digest}),
  'a type that the manifest does not have': {
    ...manifestAnswer(signature),
    headers: {'Content-Type': OCI_INDEX},
  },
  'an HTML page': HTML,
};

for (const [what, answer] of Object.entries(REFUSED)) {
  test(`an entry that answers ${what} does not hide the others, and the list is marked as incomplete`, async (t) => {
    const {proxy, upstream} = await start(t, [
      NO_API,
      tagOf(named),
      getOf(sbom),
      {...getOf(signature, answer), times: timesOf(what)},
    ]);
    const got = await ask(proxy);
    t.is(got.status, 200);
    t.deepEqual(digests(got), [sbom.digest]);
    t.regex(String(got.headers['cache-status']), /;detail=partial$/);
    t.regex(String(got.headers.warning), new RegExp(`^299 - ".*incomplete.*${signature.digest}`));

    upstream.expect(tagOf(named), getOf(signature));
    const again = await ask(proxy);
    t.deepEqual(digests(again), [sbom.digest, signature.digest]);
    t.is(again.headers.warning, undefined);
  });
}

for (const status of [429, 500, 503]) {
  test(`an entry that answers ${status} leaves the list unknown for now`, async (t) => {
    const {proxy} = await start(t, [
      NO_API,
      tagOf(named),
      getOf(sbom),
      {...getOf(signature, {status}), always: true},
    ]);
    t.is((await ask(proxy)).status, 503);
  });
}

test('an incomplete list is not remembered: it is asked for again each time, and unknown in an outage', async (t) => {
  const refused = getOf(signature, {status: 451});
  const {proxy, upstream} = await start(t, [NO_API, tagOf(named), getOf(sbom), refused]);
  await ask(proxy);
  upstream.expect(tagOf(named), refused);
  t.regex(String((await ask(proxy)).headers['cache-status']), /detail=partial/);
  await upstream.stop();
  t.is((await ask(proxy)).status, 503);
});

test('an incomplete list follows a complete one: what it names is listed, and an outage brings the complete one back as stale', async (t) => {
  const {proxy, upstream} = await start(t, [NO_API, tagOf([descriptorOf(sbom)]), getOf(sbom)]);
  await askUntilWritten(proxy, PATH);
  proxy.clock.move(61_000);
  const third = referrerOf(image);
  const entries = [...named, descriptorOf(third)];
  const refused = getOf(signature, {status: 403});
  upstream.expect(tagOf(entries), refused, getOf(third));
  const partial = await ask(proxy);
  t.deepEqual(digests(partial), [sbom.digest, third.digest]);
  t.regex(String(partial.headers['cache-status']), /detail=partial/);
  upstream.expect(tagOf(entries), refused);
  t.regex(String((await ask(proxy)).headers['cache-status']), /detail=partial/);
  await upstream.stop();
  const stale = await askUntilStored(proxy);
  t.deepEqual(digests(stale), [sbom.digest, third.digest]);
  t.regex(String(stale.headers.warning), /serving the referrers listed at/);
});

test('a list none of whose entries could be verified is a failure, even when one type is requested', async (t) => {
  const script = [tagOf([descriptorOf(signature)]), getOf(signature, {status: 403})];
  const {proxy, upstream} = await start(t, [NO_API, ...script]);
  const got = await ask(proxy);
  t.is(got.status, 503);
  t.regex(got.body.toString(), new RegExp(`${signature.digest}.*403`));
  upstream.expect(tagOf(named), getOf(sbom), getOf(signature, {status: 403}));
  t.is((await ask(proxy, '?artifactType=application/vnd.example.signature')).status, 503);
  upstream.expect(tagOf(named), getOf(signature, {status: 403}));
  t.is((await ask(proxy, '?artifactType=application/vnd.example.sbom')).status, 200);
});

test('entries without a digest of a supported algorithm are left out, and the list is marked as incomplete', async (t) => {
  const odd = [{digest: `blake3:${'a'.repeat(64)}`}, {digest: 'sha256:short'}, {}, 'text'];
  const {proxy} = await start(t, [NO_API, tagOf([...odd, descriptorOf(sbom)]), getOf(sbom)]);
  const got = await ask(proxy);
  t.deepEqual(digests(got), [sbom.digest]);
  t.regex(String(got.headers.warning), /4 of the referrers/);
  t.regex(String(got.headers.warning), /blake3:a+: has a digest algorithm that is not supported/);
});

test('an entry of the API with an unsupported digest algorithm is left out, and the list is marked as incomplete', async (t) => {
  const odd = {...descriptorOf(sbom), digest: `blake3:${'a'.repeat(64)}`};
  const noTag = {request: TAG, answer: {status: 404}, optional: true as const};
  const answer = listAnswer([odd, descriptorOf(signature)]);
  const {proxy, upstream} = await start(t, [{request: API, answer}, noTag]);
  const got = await ask(proxy);
  t.deepEqual(digests(got), [signature.digest]);
  t.regex(String(got.headers['cache-status']), /detail=partial/);
  upstream.expect({request: API, answer: listAnswer([odd])});
  t.is((await ask(proxy)).status, 503);
});

test('more than a hundred refused entries are not asked for', async (t) => {
  const many = Array.from({length: 200}, () => referrerOf(image));
  const {proxy, upstream} = await start(t, [
    NO_API,
    tagOf(many.map(descriptorOf)),
    {request: /manifests\/sha256:/, answer: {status: 403}, always: true},
  ]);
  t.is((await ask(proxy)).status, 503);
  t.true(upstream.requests.length < 150);
});

test('a list that a client learned by pulling its tag answers the API as well while the upstream fails', async (t) => {
  const {proxy, upstream} = await start(t, [tagOf(named), getOf(sbom), getOf(signature)]);
  const got = await proxy.ask(TAG_PATH);
  t.is(got.status, 200);
  await upstream.received(3);
  for (const {digest} of named) await proxy.ask(`/v2/app/manifests/${digest}`);
  await upstream.stop();
  const restarted = await proxy.restart();
  const listed = await ask(restarted);
  t.deepEqual(digests(listed), [sbom.digest, signature.digest]);
  t.regex(String(listed.headers['cache-status']), /fwd=stale/);
  t.regex(String(listed.headers.warning), /serving the referrers listed at/);
  t.deepEqual((await restarted.ask(TAG_PATH)).body, got.body);
  restarted.clock.move(8 * DAY);
  t.is((await ask(restarted)).status, 503);
});

test('a list learned by pulling its tag does not hide what a later answer named and could not be listed', async (t) => {
  const {proxy, upstream} = await start(t, [tagOf([descriptorOf(sbom)]), getOf(sbom)]);
  await proxy.ask(TAG_PATH);
  await upstream.received(2);
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  upstream.expect(NO_API, tagOf(named), getOf(signature, {status: 403}));
  t.regex(String((await ask(proxy)).headers['cache-status']), /detail=partial/);
  await upstream.stop();
  t.deepEqual(digests(await askUntilStored(proxy)), [sbom.digest]);
  t.is((await ask(proxy, '?artifactType=application/vnd.example.signature')).status, 503);
});

test('a pulled tag does not count as a list while one of its entries is missing here, or when it is empty', async (t) => {
  const {proxy, upstream} = await start(t, [
    tagOf(named),
    getOf(sbom),
    {...getOf(signature, {status: 500}), always: true},
  ]);
  await proxy.ask(TAG_PATH);
  await upstream.received(3);
  await upstream.stop();
  t.is((await ask(proxy)).status, 503);

  const empty = await start(t, [tagOf([])]);
  await empty.proxy.ask(TAG_PATH);
  await empty.upstream.stop();
  t.is((await ask(empty.proxy)).status, 503);
});

test('an incomplete list that left nothing of a complete one is not an empty list after a restart', async (t) => {
  const {proxy, upstream} = await start(t, [NO_API, tagOf([descriptorOf(sbom)]), getOf(sbom)]);
  await askUntilWritten(proxy, PATH);
  proxy.clock.move(61_000);
  upstream.expect(tagOf([descriptorOf(signature)]), getOf(signature, {status: 403}), {
    request: `HEAD /v2/${REPOSITORY}/manifests/${sbom.digest}`,
    answer: {status: 404},
  });
  t.is((await ask(proxy)).status, 503);
  await upstream.stop();
  t.is((await ask(proxy)).status, 503);
  t.is((await ask(await proxy.restart())).status, 503);
});

test('what an incomplete list left of a complete one is not the complete list after a restart', async (t) => {
  const {proxy, upstream} = await start(t, [NO_API, tagOf([descriptorOf(signature)]), getOf(signature)]);
  await askUntilWritten(proxy, PATH);
  proxy.clock.move(61_000);
  const other = referrerOf(image, {artifactType: 'application/vnd.example.signature'});
  upstream.expect(
    tagOf([descriptorOf(sbom), descriptorOf(other)]),
    getOf(sbom),
    getOf(other, {status: 403}),
    {request: `HEAD /v2/${REPOSITORY}/manifests/${signature.digest}`, answer: {status: 404}},
  );
  t.deepEqual(digests(await ask(proxy)), [sbom.digest]);
  await upstream.stop();
  t.deepEqual(digests(await askUntilStored(proxy)), [sbom.digest]);
  const restarted = await proxy.restart();
  t.is((await ask(restarted, '?artifactType=application/vnd.example.signature')).status, 503);
});
