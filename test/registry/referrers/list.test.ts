import test, {type ExecutionContext} from 'ava';
import {OCI_INDEX, OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {
  type Backref,
  createMovableClock,
  DAY,
  type ProxyAnswer,
  type RegistryOverrides,
  startBackref,
  waiting,
} from '../../support/backref.ts';
import {headAnswer, type ManifestContent, manifestAnswer, plainManifest} from '../../support/content.ts';
import {
  askUntilWritten,
  descriptorOf,
  fallbackTagOf,
  indexBytes,
  type ListedDescriptor,
  legacy,
  listAnswer,
  referrerOf,
} from '../../support/referrers.ts';
import {createScriptedUpstream, type Expectation, HANG} from '../../support/scripted-upstream.ts';

const REPOSITORY = 'library/app';
const MINUTE = 60_000;
const image = plainManifest();
const PATH = `/v2/app/referrers/${image.digest}`;
const API = `GET /v2/${REPOSITORY}/referrers/${image.digest}`;
const TAG = `GET /v2/${REPOSITORY}/manifests/${fallbackTagOf(image)}`;
const sbom = referrerOf(image, {artifactType: 'application/vnd.example.sbom', annotations: {by: 'a'}});
const signature = referrerOf(image, {artifactType: 'application/vnd.example.signature'});
const getOf = (manifest: ManifestContent): Expectation => ({
  request: `GET /v2/${REPOSITORY}/manifests/${manifest.digest}`,
  answer: manifestAnswer(manifest),
});

const listed = (got: ProxyAnswer): ListedDescriptor[] =>
  (got.json() as {manifests: ListedDescriptor[]}).manifests;
const digests = (got: ProxyAnswer): string[] => listed(got).map(({digest}) => digest);

async function start(
  t: ExecutionContext,
  script: Expectation[],
  overrides: Partial<RegistryOverrides> = {},
  clock = createMovableClock(),
) {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const breaker = {failures: 100, openFor: 1000};
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, upstream: {breaker}, ...overrides}],
    clock,
  });
  return {upstream, proxy};
}

/** A refreshing is not waited for at all where a list is known. */
function hurried() {
  return waiting(createMovableClock(), (ms) => (ms === 800 ? 1 : ms));
}

const ask = (proxy: Backref, query = '') => proxy.ask(`${PATH}${query}`);

test("an upstream's own list is used as it is, requested once and unfiltered, whatever the filter", async (t) => {
  const descriptors = [descriptorOf(sbom), {...descriptorOf(signature), data: 'e30='}];
  const {proxy} = await start(t, [
    {request: API, answer: listAnswer(descriptors)},
    {request: TAG, answer: {status: 404}},
  ]);
  const got = await ask(proxy);
  t.is(got.status, 200);
  t.is(got.headers['content-type'], OCI_INDEX);
  t.is(got.headers['oci-filters-applied'], undefined);
  t.is(got.headers['cache-status'], 'backref;fwd=uri-miss;ttl=60');
  t.like(got.json(), {schemaVersion: 2, mediaType: OCI_INDEX});
  t.deepEqual(listed(got), [descriptorOf(sbom), descriptorOf(signature)]);

  const filtered = await askUntilWritten(proxy, `${PATH}?artifactType=application/vnd.example.signature`);
  t.is(filtered.headers['oci-filters-applied'], 'artifactType');
  t.is(filtered.headers['cache-status'], 'backref;hit;ttl=60');
  t.deepEqual(digests(filtered), [signature.digest]);
  const either = '?artifactType=application/vnd.example.signature&artifactType=application/vnd.example.sbom';
  t.deepEqual(digests(await ask(proxy, either)), [sbom.digest, signature.digest]);
  const empty = await ask(proxy, '?artifactType=');
  t.is(empty.headers['oci-filters-applied'], 'artifactType');
  t.deepEqual(digests(empty), []);
});

test('without the API the fallback tag is read, and every descriptor rebuilt from its manifest', async (t) => {
  const spoiled = [
    {...descriptorOf(sbom), artifactType: 'application/wrong', annotations: {}},
    {mediaType: OCI_MANIFEST, digest: signature.digest, size: 1},
    descriptorOf(sbom),
  ];
  const {proxy} = await start(t, legacy(REPOSITORY, image, [sbom, signature], spoiled));
  const got = await ask(proxy);
  t.deepEqual(listed(got), [descriptorOf(sbom), descriptorOf(signature)]);
});

test('the entries of the tag are listed in its order, in whatever order they arrive', async (t) => {
  const entries = Array.from({length: 5}, () => referrerOf(image));
  const {promise: last, resolve} = Promise.withResolvers<void>();
  const [api, tag] = legacy(REPOSITORY, image, [], entries.map(descriptorOf)) as [Expectation, Expectation];
  const gets = entries.map((entry, index) => ({
    request: getOf(entry).request,
    answer: () => {
      if (index === entries.length - 1) setTimeout(resolve, 20);
      return {...manifestAnswer(entry), ...(index < 3 ? {before: last} : {})};
    },
  }));
  const {proxy} = await start(t, [api, tag, ...gets]);
  t.deepEqual(
    digests(await ask(proxy)),
    entries.map(({digest}) => digest),
  );
});

test('requests for an entry, or for the list again, while the list is being stored ask the upstream nothing more', async (t) => {
  const entries = Array.from({length: 20}, () => referrerOf(image));
  const {proxy} = await start(t, legacy(REPOSITORY, image, entries));
  const first = await ask(proxy);
  const [again, heads, ...manifests] = await Promise.all([
    ask(proxy),
    Promise.all(entries.map(({digest}) => proxy.ask(`/v2/app/manifests/${digest}`, {method: 'HEAD'}))),
    ...entries.map(({digest}) => proxy.ask(`/v2/app/manifests/${digest}`)),
  ]);
  t.deepEqual(again.body, first.body);
  t.true(heads.every(({status}) => status === 200));
  t.deepEqual(
    manifests.map(({body}) => body),
    entries.map(({bytes}) => bytes),
  );
  t.deepEqual((await askUntilWritten(proxy, PATH)).body, first.body);
});

test('the entries of a tag that is read each time are requested once, even while they are being stored', async (t) => {
  const entries = Array.from({length: 20}, () => referrerOf(image));
  const [api, tag, ...gets] = legacy(REPOSITORY, image, entries) as [Expectation, Expectation];
  const {proxy} = await start(t, [api, {...tag, always: true}, ...gets], {referrers: {ttl: 0}});
  const {body} = await ask(proxy);
  const again = await Promise.all([ask(proxy), ask(proxy)]);
  t.true(again.every((got) => got.body.equals(body)));
});

test('a list that was learned just before a restart is known after it', async (t) => {
  const {proxy, upstream} = await start(t, legacy(REPOSITORY, image, [sbom, signature]));
  await ask(proxy);
  const restarted = await proxy.restart();
  await upstream.stop();
  t.deepEqual(digests(await ask(restarted)), [sbom.digest, signature.digest]);
});

test('an entry of the tag that has another subject, or that is gone, is not listed', async (t) => {
  const foreign = referrerOf(plainManifest());
  const gone = referrerOf(image);
  const script = legacy(REPOSITORY, image, [sbom, foreign], [sbom, foreign, gone].map(descriptorOf));
  const {proxy} = await start(t, [...script, {...getOf(gone), answer: {status: 404}}]);
  t.deepEqual(digests(await ask(proxy)), [sbom.digest]);
});

test('an entry that cannot be fetched makes the list unknown, not shorter, and nothing of it is remembered as complete', async (t) => {
  const [api, tag] = legacy(REPOSITORY, image, [], [sbom, signature].map(descriptorOf)) as [
    Expectation,
    Expectation,
  ];
  const {proxy, upstream} = await start(t, [
    api,
    tag,
    getOf(sbom),
    {...getOf(signature), answer: {status: 500}, times: 4},
  ]);
  t.is((await ask(proxy)).status, 503);
  upstream.expect(tag, getOf(signature));
  t.deepEqual(digests(await ask(proxy)), [sbom.digest, signature.digest]);
});

test('a tag that resolves to the subject itself names no referrers', async (t) => {
  const {proxy} = await start(t, [
    {request: API, answer: {status: 404}},
    {request: TAG, answer: manifestAnswer(image)},
  ]);
  const got = await ask(proxy);
  t.deepEqual(digests(got), []);
  t.is(got.headers.warning, undefined);
});

for (const [what, answer] of [
  ['an HTML page', {headers: {'Content-Type': 'text/html'}, body: '<html>login</html>'}],
  ['406', {status: 406}],
  ['405', {status: 405}],
  [
    'JSON that says charset',
    {headers: {'Content-Type': `${OCI_INDEX}; charset=utf-8`}, body: indexBytes([])},
  ],
] as const) {
  test(`an upstream that answers the API with ${what} has none: the tag is read`, async (t) => {
    const [, ...tag] = legacy(REPOSITORY, image, [sbom]);
    const {proxy} = await start(t, [{request: API, answer, always: true}, ...tag]);
    t.deepEqual(digests(await ask(proxy)), [sbom.digest]);
  });
}

for (const [what, answer, status] of [
  ['401', {status: 401}, 403],
  ['403', {status: 403}, 403],
  ['429', {status: 429}, 503],
  ['500', {status: 500}, 503],
  ['an index that cannot be parsed', {headers: {'Content-Type': OCI_INDEX}, body: '{"manifests": ['}, 503],
] as const) {
  test(`an upstream that answers the API with ${what} leaves it unknown: the tag is not a substitute`, async (t) => {
    const tag = {request: TAG, answer: {status: 404}, optional: true as const};
    const {proxy} = await start(t, [{request: API, answer, always: true}, tag]);
    const got = await ask(proxy);
    t.is(got.status, status);
    const [error] = (got.json() as {errors: {code: string}[]}).errors;
    t.is(error?.code, status === 403 ? 'DENIED' : 'UNAVAILABLE');
  });
}

test('no referrers are an empty index, 200, and are asked about again after five seconds', async (t) => {
  const {proxy, upstream} = await start(t, legacy(REPOSITORY, image, []));
  const got = await ask(proxy);
  t.is(got.status, 200);
  t.is(got.body.toString(), `{"schemaVersion":2,"mediaType":"${OCI_INDEX}","manifests":[]}`);
  await ask(proxy);
  proxy.clock.move(5001);
  const [, ...signed] = legacy(REPOSITORY, image, [signature]);
  upstream.expect(...signed);
  t.deepEqual(digests(await ask(proxy)), [signature.digest]);
});

test('a malformed digest is 400', async (t) => {
  const {proxy} = await start(t, []);
  for (const digest of [
    'sha256:abc',
    'latest',
    `sha256:${'A'.repeat(64)}`,
    'md5:d41d8cd98f00b204e9800998ecf8427e',
  ]) {
    const got = await proxy.ask(`/v2/app/referrers/${digest}`);
    t.is(got.status, 400);
    t.like(got.json(), {errors: [{code: 'DIGEST_INVALID'}]});
  }
});

test('with the upstream failing the last known list is served, marked stale, within maxStale', async (t) => {
  const {proxy, upstream} = await start(t, legacy(REPOSITORY, image, [sbom]));
  await askUntilWritten(proxy, PATH);
  await upstream.stop();
  proxy.clock.move(6 * DAY);
  const got = await ask(proxy);
  t.is(got.status, 200);
  t.deepEqual(digests(got), [sbom.digest]);
  t.regex(String(got.headers['cache-status']), /fwd=stale;ttl=-\d+;detail=/);
  t.regex(String(got.headers.warning), /serving the referrers listed at/);
  proxy.clock.move(2 * DAY);
  t.is((await ask(proxy)).status, 503);
});

test('an empty list that is known is served empty while the upstream fails', async (t) => {
  const {proxy, upstream} = await start(t, legacy(REPOSITORY, image, []));
  await askUntilWritten(proxy, PATH);
  await upstream.stop();
  proxy.clock.move(MINUTE);
  const got = await ask(proxy);
  t.is(got.status, 200);
  t.deepEqual(digests(got), []);
  t.regex(String(got.headers.warning), /^299 /);
});

test('with a known list a slow upstream is not waited for; its answer serves the next request', async (t) => {
  const slow = Promise.withResolvers<void>();
  const script = [
    {request: API, answer: listAnswer([descriptorOf(sbom)])},
    {request: TAG, answer: {status: 404}},
  ];
  const {proxy, upstream} = await start(t, script, {}, hurried());
  await ask(proxy);
  proxy.clock.move(MINUTE);
  upstream.expect({
    request: API,
    answer: {...listAnswer([descriptorOf(sbom), descriptorOf(signature)]), before: slow.promise},
  });
  upstream.expect({request: TAG, answer: {status: 404}, optional: true});
  const stale = await ask(proxy);
  t.deepEqual(digests(stale), [sbom.digest]);
  t.regex(String(stale.headers['cache-status']), /detail=timeout/);
  slow.resolve();
  let later = await ask(proxy);
  while (digests(later).length < 2) later = await ask(proxy);
  t.deepEqual(digests(later), [sbom.digest, signature.digest]);
});

test.serial(
  'without a known list a silent upstream is given up early enough for three attempts',
  async (t) => {
    const upstream = await createScriptedUpstream(
      t,
      [
        {request: API, answer: {before: HANG}, optional: true},
        {request: TAG, answer: {before: HANG}, optional: true},
      ],
      {anyOrder: true},
    );
    const waits: number[] = [];
    const clock = waiting(createMovableClock(), (ms) => {
      waits.push(ms);
      return ms === 5000 ? ms : 1;
    });
    const proxy = await startBackref(t, {registries: [upstream], clock});
    const got = await ask(proxy);
    t.is(got.status, 503);
    t.true(waits.some((ms) => ms <= 2500 && ms > 2000));
  },
);

test('referrers that only pulls brought are not a list: while the upstream cannot be asked it is unknown', async (t) => {
  const {proxy} = await start(t, [
    getOf(sbom),
    {request: API, answer: {status: 500}, times: 4},
    {request: TAG, answer: {status: 404}, optional: true},
  ]);
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  t.is((await ask(proxy)).status, 503);
});

test('a referrer that was pulled here joins the list of the upstream, in order and once', async (t) => {
  const {proxy} = await start(t, [
    getOf(sbom),
    {request: API, answer: listAnswer([descriptorOf(signature), descriptorOf(sbom)])},
    {request: TAG, answer: {status: 404}, optional: true},
  ]);
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  t.deepEqual(digests(await ask(proxy)), [sbom.digest, signature.digest]);
});

test('a stored referrer that a complete answer lacks is asked about, and dropped only on a 404', async (t) => {
  const head = (manifest: ManifestContent, answer: Expectation['answer']): Expectation => ({
    request: `HEAD /v2/${REPOSITORY}/manifests/${manifest.digest}`,
    ...(answer ? {answer} : {}),
  });
  const {proxy} = await start(t, [
    getOf(sbom),
    getOf(signature),
    {request: API, answer: listAnswer([])},
    {request: TAG, answer: {status: 404}, optional: true},
    head(sbom, {status: 404}),
    head(signature, headAnswer(signature)),
  ]);
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  await proxy.ask(`/v2/app/manifests/${signature.digest}`);
  t.deepEqual(digests(await ask(proxy)), [signature.digest]);
});

/** A referrer of ours that the whole list lacks, whose HEAD is answered with 404 when `release` is called. */
async function startUnlisted(t: ExecutionContext, overrides: Partial<RegistryOverrides> = {}) {
  const asked = Promise.withResolvers<void>();
  const held = Promise.withResolvers<void>();
  const {proxy, upstream} = await start(
    t,
    [
      getOf(sbom),
      {request: API, answer: listAnswer([])},
      {request: TAG, answer: {status: 404}, optional: true},
      {
        request: `HEAD /v2/${REPOSITORY}/manifests/${sbom.digest}`,
        answer: () => {
          asked.resolve();
          return {status: 404, before: held.promise};
        },
      },
    ],
    overrides,
  );
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  const list = ask(proxy);
  await asked.promise;
  return {proxy, upstream, list, release: held.resolve};
}

test('a referrer that is pushed through while the upstream says that it lacks it stays listed', async (t) => {
  const {proxy, upstream, list, release} = await startUnlisted(t, {push: 'through'});
  upstream.expect({
    request: `PUT /v2/${REPOSITORY}/manifests/${sbom.digest}`,
    answer: {status: 201, headers: {'Docker-Content-Digest': sbom.digest}},
  });
  const put = await proxy.ask(`/v2/app/manifests/${sbom.digest}`, {
    method: 'PUT',
    headers: {'Content-Type': sbom.mediaType, 'Content-Length': sbom.bytes.length},
    body: sbom.bytes,
  });
  t.is(put.status, 201);
  release();
  t.deepEqual(digests(await list), [sbom.digest]);
  t.deepEqual((await proxy.ask(`/v2/app/manifests/${sbom.digest}`)).body, sbom.bytes);
});

test('a referrer that cannot be asked about does not keep a deleted one on the list', async (t) => {
  const head = (manifest: ManifestContent, status: number): Expectation => ({
    request: `HEAD /v2/${REPOSITORY}/manifests/${manifest.digest}`,
    answer: {status},
  });
  const {proxy} = await start(t, [
    getOf(sbom),
    getOf(signature),
    {request: API, answer: listAnswer([])},
    {request: TAG, answer: {status: 404}, optional: true},
    head(sbom, 403),
    head(signature, 404),
  ]);
  for (const {digest} of [sbom, signature]) await proxy.ask(`/v2/app/manifests/${digest}`);
  t.deepEqual(digests(await ask(proxy)), [sbom.digest]);
});

test('a server that ends while it asks about a referrer drops nothing afterwards, and nothing fails', async (t) => {
  const {proxy, list, release} = await startUnlisted(t, {});
  const failed: unknown[] = [];
  proxy.server.events.on('background.failed', (event) => failed.push(event));
  list.catch(() => undefined);
  const restarted = await proxy.restart();
  release();
  t.deepEqual((await restarted.ask(`/v2/app/manifests/${sbom.digest}`)).body, sbom.bytes);
  t.deepEqual(failed, []);
});

test('many simultaneous requests ask the upstream once', async (t) => {
  const wait = Promise.withResolvers<void>();
  const {proxy} = await start(t, [
    {request: API, answer: {...listAnswer([descriptorOf(sbom)]), before: wait.promise}},
    {request: TAG, answer: {status: 404}},
  ]);
  const asked = Array.from({length: 10}, () => ask(proxy));
  await proxy.ask('/v2/');
  wait.resolve();
  for (const got of await Promise.all(asked)) t.deepEqual(digests(got), [sbom.digest]);
});

test('what was learned about the API is remembered, and probed again after ten minutes', async (t) => {
  const [api, tag, entry] = legacy(REPOSITORY, image, [signature]) as [Expectation, Expectation, Expectation];
  const {proxy, upstream} = await start(t, [api, tag, entry]);
  await ask(proxy);
  proxy.clock.move(MINUTE);
  upstream.expect(tag);
  await ask(proxy);
  proxy.clock.move(10 * MINUTE);
  upstream.expect(
    {request: API, answer: listAnswer([descriptorOf(signature)])},
    {request: TAG, answer: {status: 404}},
  );
  t.deepEqual(digests(await ask(proxy)), [signature.digest]);
  proxy.clock.move(MINUTE);
  upstream.expect({request: API, answer: listAnswer([descriptorOf(signature)])});
  await ask(proxy);
});

test('an empty list that came from the tag alone is checked with the API each time, since the upstream may have it by now', async (t) => {
  const noTag = {request: TAG, answer: {status: 404}};
  const {proxy, upstream} = await start(t, [{request: API, answer: {status: 404}}, noTag]);
  t.deepEqual(digests(await ask(proxy)), []);
  proxy.clock.move(5001);
  upstream.expect(noTag, {request: API, answer: listAnswer([descriptorOf(sbom)])});
  t.deepEqual(digests(await ask(proxy)), [sbom.digest]);
});

test('an upstream that does not know the repository yet says nothing about its API: images that are pushed and signed then are listed', async (t) => {
  const body = '{"errors":[{"code":"NAME_UNKNOWN"}]}';
  const unknown = {status: 404, headers: {'Content-Type': 'application/json'}, body};
  const noTag = {request: TAG, answer: {status: 404}};
  const {proxy, upstream} = await start(t, [{request: API, answer: unknown}, noTag]);
  t.deepEqual(digests(await ask(proxy)), []);
  proxy.clock.move(1500);
  upstream.expect({request: API, answer: listAnswer([descriptorOf(sbom)])}, noTag);
  const noCache = await proxy.ask(PATH, {headers: {'Cache-Control': 'no-cache'}});
  t.deepEqual(digests(noCache), [sbom.digest]);
});

test('an upstream with the API that no longer knows the repository still has the API', async (t) => {
  const body = '{"errors":[{"code":"NAME_UNKNOWN"}]}';
  const unknown = {status: 404, headers: {'Content-Type': 'application/json'}, body};
  const noTag = {request: TAG, answer: {status: 404}};
  const {proxy, upstream} = await start(t, [{request: API, answer: listAnswer([])}, noTag]);
  await ask(proxy);
  proxy.clock.move(5001);
  upstream.expect({request: API, answer: unknown}, noTag);
  t.deepEqual(digests(await ask(proxy)), []);
  proxy.clock.move(5001);
  upstream.expect({request: API, answer: listAnswer([descriptorOf(sbom)])});
  t.deepEqual(digests(await ask(proxy)), [sbom.digest]);

  const alone = await start(t, [{request: API, answer: unknown}], {referrers: {mode: 'api'}});
  t.deepEqual(digests(await ask(alone.proxy)), []);
});

test('when an upstream lists a referrer twice, the first descriptor counts, before and after the list is stored', async (t) => {
  const [first, second] = [descriptorOf(sbom), {...descriptorOf(sbom), artifactType: 'application/second'}];
  const {proxy} = await start(t, [
    {request: API, answer: listAnswer([first, descriptorOf(signature), second])},
    {request: TAG, answer: {status: 404}},
  ]);
  t.deepEqual(listed(await ask(proxy)), [first, descriptorOf(signature)]);
  t.deepEqual(listed(await askUntilWritten(proxy, PATH)), [first, descriptorOf(signature)]);
});

test('an upstream that has the API and once answers as if it did not is asked again before it is believed', async (t) => {
  const api = {request: API, answer: listAnswer([descriptorOf(sbom)])};
  const noTag = {request: TAG, answer: {status: 404}};
  const {proxy, upstream} = await start(t, [api, noTag]);
  await ask(proxy);
  proxy.clock.move(MINUTE);
  upstream.expect({request: API, answer: {status: 404}});
  const contradicting = await ask(proxy);
  t.deepEqual(digests(contradicting), [sbom.digest]);
  t.regex(String(contradicting.headers.warning), /^299 /);
  upstream.expect({request: API, answer: {status: 404}}, noTag, {
    request: `HEAD /v2/${REPOSITORY}/manifests/${sbom.digest}`,
    answer: {status: 404},
    optional: true,
  });
  t.deepEqual(digests(await ask(proxy)), []);
});

test('mode api asks the API alone, mode tag the tag alone, mode off has no Referrers API', async (t) => {
  const api = await start(t, [{request: API, answer: {status: 404}}], {referrers: {mode: 'api'}});
  const without = await ask(api.proxy);
  t.is(without.status, 503);
  t.regex(without.body.toString(), /referrers\.mode/);

  const [, ...tagScript] = legacy(REPOSITORY, image, [sbom]);
  const tag = await start(t, tagScript, {referrers: {mode: 'tag'}});
  t.deepEqual(digests(await ask(tag.proxy)), [sbom.digest]);

  const off = await start(t, [{request: TAG, answer: {status: 404}}], {referrers: {mode: 'off'}});
  t.is((await ask(off.proxy)).status, 404);
  t.is((await off.proxy.ask(`/v2/app/manifests/${fallbackTagOf(image)}`)).status, 404);
});

test("a list over 4 MiB comes in pages whose Link uses the client's own naming and stays valid while the list grows", async (t) => {
  const filler = 'x'.repeat(1000);
  const many = Array.from({length: 6000}, (_, n) => ({
    ...descriptorOf(sbom),
    digest: `sha256:${n.toString(16).padStart(64, '0')}`,
    annotations: {filler},
  }));
  const {proxy} = await start(t, [
    {request: API, answer: listAnswer(many)},
    {request: TAG, answer: {status: 404}},
    getOf(signature),
  ]);
  const query = 'ns=docker.io&artifactType=application/vnd.example.sbom&artifactType=b';
  const first = await proxy.ask(`${PATH}?${query}`);
  t.true(first.body.length <= 4 * 1024 * 1024);
  const link = /^<(\/v2\/app\/referrers\/[^>]+)>; rel="next"$/.exec(String(first.headers['link']))?.[1] ?? '';
  const {searchParams} = new URL(link, 'http://x');
  t.deepEqual(searchParams.getAll('artifactType').sort(), ['application/vnd.example.sbom', 'b']);
  t.is(searchParams.get('ns'), 'docker.io');
  await proxy.ask(`/v2/app/manifests/${signature.digest}`);
  const second = await proxy.ask(link);
  t.is(second.headers['link'], undefined);
  t.deepEqual(
    [...digests(first), ...digests(second)],
    many.map(({digest}) => digest),
  );
  t.is((await proxy.ask(`${PATH}?last=x`)).status, 400);
});

test('a single descriptor larger than a page is a page', async (t) => {
  const huge = {...descriptorOf(sbom), annotations: {filler: 'x'.repeat(5 * 1024 * 1024)}};
  const {proxy} = await start(t, [
    {request: API, answer: listAnswer([huge, descriptorOf(signature)])},
    {request: TAG, answer: {status: 404}},
  ]);
  const first = await ask(proxy);
  t.deepEqual(digests(first), [sbom.digest]);
  t.truthy(first.headers['link']);
});

test('no-cache asks the upstream for the list again', async (t) => {
  const {proxy, upstream} = await start(t, [
    {request: API, answer: listAnswer([descriptorOf(sbom)])},
    {request: TAG, answer: {status: 404}},
  ]);
  await ask(proxy);
  proxy.clock.move(2000);
  upstream.expect({request: API, answer: listAnswer([descriptorOf(sbom), descriptorOf(signature)])});
  t.is(digests(await ask(proxy)).length, 1);
  const anew = await proxy.ask(PATH, {headers: {'cache-control': 'no-cache'}});
  t.deepEqual(digests(anew), [sbom.digest, signature.digest]);
  t.regex(String(anew.headers['cache-status']), /fwd=request/);
});

test('asking about an unknown repository leaves no trace of its name', async (t) => {
  const {proxy} = await start(t, [
    {request: API, answer: listAnswer([])},
    {request: TAG, answer: {status: 404}},
  ]);
  t.deepEqual(digests(await ask(proxy)), []);
  t.is((await askUntilWritten(proxy, PATH)).headers['cache-status'], 'backref;hit;ttl=5');
  t.deepEqual((await proxy.ask('/v2/_catalog')).json(), {repositories: []});
});

test('that a stored manifest has no referrers is still known after a restart', async (t) => {
  const pulled = {request: `GET /v2/${REPOSITORY}/manifests/${image.digest}`, answer: manifestAnswer(image)};
  const {proxy, upstream} = await start(t, [
    pulled,
    {request: API, answer: listAnswer([])},
    {request: TAG, answer: {status: 404}},
  ]);
  await proxy.ask(`/v2/app/manifests/${image.digest}`);
  await ask(proxy);
  await upstream.stop();
  const again = await ask(await proxy.restart());
  t.is(again.status, 200);
  t.deepEqual(digests(again), []);
});

test('that a manifest has no referrers is still known after a restart if it was stored just after the question', async (t) => {
  const pulled = {request: `GET /v2/${REPOSITORY}/manifests/${image.digest}`, answer: manifestAnswer(image)};
  const {proxy, upstream} = await start(t, [
    {request: API, answer: listAnswer([])},
    {request: TAG, answer: {status: 404}},
    pulled,
  ]);
  await ask(proxy);
  await proxy.ask(`/v2/app/manifests/${image.digest}`);
  t.is((await askUntilWritten(proxy, PATH)).headers['cache-status'], 'backref;hit;ttl=5');
  await upstream.stop();
  const again = await ask(await proxy.restart());
  t.is(again.status, 200);
  t.deepEqual(digests(again), []);
});
