import test, {type ExecutionContext} from 'ava';
import {type Backref, createMovableClock, DAY, startBackref} from '../../support/backref.ts';
import {
  headAnswer,
  imageManifest,
  indexOf,
  type ManifestContent,
  manifestAnswer,
} from '../../support/content.ts';
import {descriptorOf, fallbackTagOf, indexBytes, listAnswer, referrerOf} from '../../support/referrers.ts';
import {createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';

const NAME = 'org/app';
const image = imageManifest();
const index = indexOf([image]);
const sbom = referrerOf(image);
const signature = referrerOf(index);

const tags = (...names: string[]): Expectation => ({
  request: `GET /v2/${NAME}/tags/list?n=1000`,
  answer: {headers: {'Content-Type': 'application/json'}, body: JSON.stringify({name: NAME, tags: names})},
});
const head = (reference: string, manifest: ManifestContent): Expectation => ({
  request: `HEAD /v2/${NAME}/manifests/${reference}`,
  answer: headAnswer(manifest),
});
const get = (reference: string, manifest: ManifestContent): Expectation => ({
  request: `GET /v2/${NAME}/manifests/${reference}`,
  answer: manifestAnswer(manifest),
});
const fails = (reference: string, status: number): Expectation => ({
  request: `HEAD /v2/${NAME}/manifests/${reference}`,
  answer: {status},
  always: true,
});

async function setUp(t: ExecutionContext, script: Expectation[]) {
  const upstream = await createScriptedUpstream(t, script, {anyOrder: true});
  const clock = createMovableClock();
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, upstream: {timeouts: {connect: 60_000, headers: 1000, idle: 1000}}}],
    clock,
  });
  return {upstream, proxy, clock};
}

async function walk(proxy: Backref, budget: number, repository = NAME) {
  const commands = await proxy.server.commands();
  const steps: {requests: number}[] = [];
  const result = await commands.index({
    repository,
    budget,
    signal: new AbortController().signal,
    progress: (step) => steps.push(step),
  });
  return {...result, steps: steps.length};
}

/** What the index gives while the upstream cannot be asked. */
async function referrersOf(proxy: Backref, subject: ManifestContent): Promise<string[]> {
  const {body} = await proxy.ask(`/v2/${NAME}/referrers/${subject.digest}`);
  return JSON.parse(body.toString()).manifests.map(({digest}: {digest: string}) => digest);
}

test('the manifest of every tag is stored, and so are the children of an index', async (t) => {
  const {proxy, upstream} = await setUp(t, [
    tags('1', 'sbom', 'sig'),
    head('1', index),
    get('1', index),
    get(image.digest, image),
    head('sbom', sbom),
    get('sbom', sbom),
    head('sig', signature),
    get('sig', signature),
  ]);
  t.like(await walk(proxy, 100), {
    tags: 3,
    indexed: 3,
    manifests: 4,
    referrers: 2,
    requests: 8,
    complete: true,
    stopped: undefined,
    failed: 0,
    steps: 3,
  });
  t.is(upstream.requests.length, 8);
  upstream.expect(
    ...[image, index].map(({digest}) => ({
      request: `GET /v2/${NAME}/referrers/${digest}`,
      answer: listAnswer([]),
    })),
    ...[sbom, signature].map(({digest}) => ({
      ...head(digest, digest === sbom.digest ? sbom : signature),
      request: `HEAD /v2/${NAME}/manifests/${digest}`,
    })),
    ...[image, index].map((subject) => ({
      request: `GET /v2/${NAME}/manifests/${fallbackTagOf(subject)}`,
      answer: {status: 404},
      optional: true as const,
    })),
  );
  t.deepEqual(await referrersOf(proxy, image), [sbom.digest]);
  t.deepEqual(await referrersOf(proxy, index), [signature.digest]);
});

test('a fallback tag is a tag: what it names is stored', async (t) => {
  const tag = fallbackTagOf(image);
  const fallback = {
    bytes: indexBytes([descriptorOf(sbom)]),
    digest: indexOf([]).digest,
    mediaType: 'application/vnd.oci.image.index.v1+json',
  };
  const {proxy} = await setUp(t, [
    tags(tag),
    {
      request: `HEAD /v2/${NAME}/manifests/${tag}`,
      answer: {headers: {'Content-Type': fallback.mediaType}, body: []},
    },
    {
      request: `GET /v2/${NAME}/manifests/${tag}`,
      answer: {headers: {'Content-Type': fallback.mediaType}, body: fallback.bytes},
    },
    get(sbom.digest, sbom),
  ]);
  t.like(await walk(proxy, 100), {manifests: 2, referrers: 1, requests: 4, complete: true});
});

test('what is stored costs no request; a tag that has aged costs one HEAD', async (t) => {
  const script = [tags('1', '2'), head('1', image), get('1', image), head('2', sbom), get('2', sbom)];
  const {proxy, upstream, clock} = await setUp(t, script);
  t.like(await walk(proxy, 100), {requests: 5, complete: true});
  t.like(await walk(proxy, 1), {requests: 0, manifests: 2, referrers: 1, complete: true});
  clock.move(DAY);
  upstream.expect(tags('1', '2'), head('1', image), head('2', sbom));
  t.like(await walk(proxy, 100), {requests: 3, complete: true});
});

test('a tag that has moved is followed to where it points now', async (t) => {
  const {proxy, upstream, clock} = await setUp(t, [tags('1'), head('1', image), get('1', image)]);
  await walk(proxy, 100);
  clock.move(DAY);
  upstream.expect(tags('1'), head('1', sbom), get('1', sbom));
  t.like(await walk(proxy, 100), {requests: 3, manifests: 1, referrers: 1, complete: true});
});

test('no more requests are made than the budget allows, and the next run continues where the last one ended', async (t) => {
  const names = Array.from({length: 10}, (_, number) => `${number}`);
  const manifests = new Map(names.map((name) => [name, referrerOf(image)]));
  const {proxy, upstream, clock} = await setUp(t, [
    {...tags(...names), always: true},
    ...[...manifests].flatMap(([name, manifest]) => [
      {...head(name, manifest), optional: true as const},
      {...head(name, manifest), optional: true as const},
      {...get(name, manifest), optional: true as const},
    ]),
  ]);
  const budget = 7;
  for (let run = 0, left = names.length; left > 0; run++) {
    const before = upstream.requests.length;
    const result = await walk(proxy, budget);
    const asked = upstream.requests.length - before;
    t.is(asked, result.requests);
    t.true(asked <= budget);
    t.true(run < 5, 'every run gets further');
    if (run < 2) t.regex(result.stopped ?? '', /the budget of 7 requests is spent/);
    const gets = upstream.requests.filter(
      ({method, url}) => method === 'GET' && !url.includes('tags'),
    ).length;
    left = names.length - gets;
    clock.move(DAY);
  }
});

test('the pages of the tag list count as requests, and a budget that they use up ends the walk', async (t) => {
  const page = (query: string, names: string[], next?: string): Expectation => ({
    request: `GET /v2/${NAME}/tags/list?${query}`,
    answer: {
      headers: {
        'Content-Type': 'application/json',
        ...(next ? {Link: `</v2/${NAME}/tags/list?${next}>; rel="next"`} : {}),
      },
      body: JSON.stringify({name: NAME, tags: names}),
    },
  });
  const {proxy, upstream} = await setUp(t, [
    page('n=1000', ['1'], 'last=1'),
    page('last=1', ['2'], 'last=2'),
  ]);
  t.like(await walk(proxy, 2), {
    tags: 0,
    requests: 2,
    complete: false,
    stopped: 'the budget of 2 requests is spent',
  });
  t.is(upstream.requests.length, 2);
});

test('a tag that fails is reported, and the others are followed', async (t) => {
  const {proxy} = await setUp(t, [
    tags('1', '2', '3'),
    head('1', image),
    get('1', image),
    fails('2', 500),
    head('3', sbom),
    get('3', sbom),
  ]);
  const result = await walk(proxy, 100);
  t.like(result, {tags: 3, indexed: 2, failed: 1, complete: false, stopped: undefined, steps: 3});
  t.like(result.failures, [{tag: '2'}]);
  t.regex(result.failures[0]?.reason ?? '', /500/);
});

test('a tag that is gone, and a child that is missing, are not failures', async (t) => {
  const {proxy} = await setUp(t, [
    tags('1', '2'),
    {request: `HEAD /v2/${NAME}/manifests/1`, answer: {status: 404}},
    head('2', index),
    get('2', index),
    {request: `GET /v2/${NAME}/manifests/${image.digest}`, answer: {status: 404}},
  ]);
  t.like(await walk(proxy, 100), {indexed: 2, manifests: 1, failed: 0, complete: true});
});

test('an upstream that limits our rate ends the walk with what was reached', async (t) => {
  const names = Array.from({length: 50}, (_, number) => `t${number}`);
  const {proxy, upstream} = await setUp(t, [
    tags('a', ...names),
    head('a', sbom),
    get('a', sbom),
    ...names.map(
      (name): Expectation => ({
        request: `HEAD /v2/${NAME}/manifests/${name}`,
        answer: {status: 429, headers: {'Retry-After': '3600'}},
        optional: true,
      }),
    ),
  ]);
  const result = await walk(proxy, 1000);
  t.like(result, {tags: 51, indexed: 1, referrers: 1, failed: 0, complete: false});
  t.regex(result.stopped ?? '', /429|limit/);
  t.true(upstream.requests.length < 12, `${upstream.requests.length} requests`);
});

test('a repository that the upstream does not have, and an unknown registry, are errors', async (t) => {
  const {proxy} = await setUp(t, [{request: `GET /v2/${NAME}/tags/list?n=1000`, answer: {status: 404}}]);
  await t.throwsAsync(() => walk(proxy, 10), {message: /has no repository org\/app/});
  await t.throwsAsync(() => walk(proxy, 10, 'A B'), {message: /repository name "A B" is not valid/});
});

test('an upstream that cannot be asked for its tags is a failure', async (t) => {
  const {proxy, upstream} = await setUp(t, []);
  await upstream.stop();
  await t.throwsAsync(() => walk(proxy, 10), {name: 'UpstreamFailure'});
});
