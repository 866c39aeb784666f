import test from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {digestOf} from '../../../src/oci/digest.ts';
import {DOCKER_LIST, MANIFEST_ACCEPT, OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {parseName, parseTag} from '../../../src/oci/name.ts';
import {createMovableClock, DAY, startBackref, waiting} from '../../support/backref.ts';
import {
  blobAnswer,
  contentOf,
  headAnswer,
  imageManifest,
  indexOf,
  manifestAnswer,
  plainManifest,
  randomBlob,
} from '../../support/content.ts';
import {createScriptedUpstream, HANG} from '../../support/scripted-upstream.ts';
import {wireInProcess} from '../../support/wired.ts';

const MINUTE = 60_000;
const image = plainManifest();
const newer = plainManifest();
const GET_TAG = 'GET /v2/library/app/manifests/1';
const HEAD_TAG = 'HEAD /v2/library/app/manifests/1';
const tagGet = {request: GET_TAG, answer: manifestAnswer(image)};
const unchanged = {request: HEAD_TAG, answer: headAnswer(image)};
const PATH = '/v2/app/manifests/1';

test('a first pull by tag is one GET, byte for byte, with one constant Accept and identity encoding', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {...tagGet, sends: {accept: MANIFEST_ACCEPT, 'accept-encoding': 'identity'}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(PATH, {headers: {accept: 'text/plain'}});
  t.is(got.status, 200);
  t.deepEqual(got.body, image.bytes);
  t.is(got.headers['content-type'], image.mediaType);
  t.is(got.headers['docker-content-digest'], image.digest);
  t.is(got.headers.etag, `"${image.digest}"`);
  t.is(got.headers['content-length'], String(image.bytes.length));
  t.is(got.headers['cache-status'], 'backref;fwd=uri-miss;stored;ttl=60');
  t.is(got.headers.age, '0');
});

test('within its lifetime a tag is served without asking', async (t) => {
  const upstream = await createScriptedUpstream(t, [tagGet]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  proxy.clock.move(59_000);
  const got = await proxy.ask(PATH);
  t.deepEqual(got.body, image.bytes);
  t.is(got.headers['cache-status'], 'backref;hit;ttl=1');
  t.is(got.headers.age, '59');
});

test('an expired tag costs one HEAD, shared by all who wait; when unchanged it is fresh again', async (t) => {
  const wait = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    tagGet,
    {
      request: HEAD_TAG,
      answer: {...headAnswer(image), before: wait.promise},
      sends: {accept: MANIFEST_ACCEPT},
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  const asked = Array.from({length: 10}, () => proxy.ask(PATH));
  // This is answered on a connection that was opened after theirs: by then all ten are waiting.
  await proxy.ask('/v2/');
  wait.resolve();
  const answers = await Promise.all(asked);
  t.true(answers.every(({body}) => body.equals(image.bytes)));
  t.is(answers.filter(({headers}) => /collapsed/.test(String(headers['cache-status']))).length, 9);
  t.true(
    answers.every(({headers}) => /fwd=stale;.*ttl=60;detail=unchanged/.test(String(headers['cache-status']))),
  );
  const again = await proxy.ask(PATH);
  t.is(again.headers['cache-status'], 'backref;hit;ttl=60');
});

test('a changed tag is fetched once, by its digest', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    tagGet,
    {request: HEAD_TAG, answer: headAnswer(newer)},
    {request: `GET /v2/library/app/manifests/${newer.digest}`, answer: manifestAnswer(newer)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  const got = await proxy.ask(PATH);
  t.deepEqual(got.body, newer.bytes);
  t.is(got.headers['cache-status'], 'backref;fwd=stale;stored;ttl=60;detail=changed');
  const next = await proxy.ask(PATH);
  t.is(next.headers['docker-content-digest'], newer.digest);
  t.is(next.headers['cache-status'], 'backref;hit;ttl=60');
});

test('a changed tag whose new manifest cannot be fetched serves the old one, marked stale', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    tagGet,
    {request: HEAD_TAG, answer: headAnswer(newer)},
    {request: `GET /v2/library/app/manifests/${newer.digest}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  const got = await proxy.ask(PATH);
  t.is(got.status, 200);
  t.deepEqual(got.body, image.bytes);
  t.regex(String(got.headers.warning), /^299 - "/);
});

for (const [what, answer] of [
  ['500', {status: 500}],
  ['429', {status: 429}],
  ['a timeout', {before: HANG}],
  [
    '401 from a token service that fails',
    {status: 401, headers: {'www-authenticate': 'Bearer realm="http://127.0.0.1:1/token"'}},
  ],
] as const) {
  test(`an upstream failing with ${what} serves stale, marked, within maxStale`, async (t) => {
    const upstream = await createScriptedUpstream(t, [tagGet, {request: HEAD_TAG, answer, always: true}]);
    const timeouts = {connect: 60_000, headers: 5000, idle: 30_000};
    let hangs = false;
    // Once the upstream hangs, its time limit is over soon.
    const clock = waiting(createMovableClock(), (ms) => (hangs && ms === timeouts.headers ? 50 : ms));
    const proxy = await startBackref(t, {
      registries: [{...upstream, url: upstream.url, upstream: {timeouts, realmHosts: ['127.0.0.1:1']}}],
      clock,
    });
    await proxy.ask(PATH);
    hangs = 'before' in answer;
    proxy.clock.move(DAY);
    const got = await proxy.ask(PATH);
    t.is(got.status, 200);
    t.deepEqual(got.body, image.bytes);
    t.regex(String(got.headers['cache-status']), /^backref;fwd=stale;ttl=-\d+;detail=[a-z]+$/);
    t.regex(String(got.headers.warning), /^299 - ".*127\.0\.0\.1:\d+.*serving the copy last checked at /);
    t.is(got.headers.age, String(DAY / 1000));
    proxy.clock.move(6 * DAY + 1);
    const expired = await proxy.ask(PATH);
    t.is(expired.status, 503);
  });
}

test('with the upstream stopped a cached tag and its digest are served', async (t) => {
  const upstream = await createScriptedUpstream(t, [tagGet]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  await upstream.stop();
  proxy.clock.move(DAY);
  const byTag = await proxy.ask(PATH);
  t.is(byTag.status, 200);
  const byDigest = await proxy.ask(`/v2/app/manifests/${image.digest}`);
  t.is(byDigest.headers['cache-status'], 'backref;hit');
  t.is(byDigest.headers.warning, undefined);
});

test('what is stored is served after a restart, with or without the upstream', async (t) => {
  const upstream = await createScriptedUpstream(t, [tagGet]);
  const first = await startBackref(t, {registries: [upstream]});
  await first.ask(PATH);
  await upstream.stop();
  const second = await first.restart();
  const got = await second.ask(PATH);
  t.deepEqual(got.body, image.bytes);
  t.is(got.headers['content-type'], image.mediaType);
});

test('no-cache asks the upstream, at most once a second', async (t) => {
  const upstream = await createScriptedUpstream(t, [tagGet, unchanged, unchanged]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const options = {headers: {'cache-control': 'no-cache'}};
  await proxy.ask(PATH);
  proxy.clock.move(1001);
  const asked = await proxy.ask(PATH, options);
  t.is(asked.headers['cache-status'], 'backref;fwd=request;ttl=60;detail=unchanged');
  const held = await proxy.ask(PATH, options);
  t.is(held.headers['cache-status'], 'backref;hit;ttl=60');
  proxy.clock.move(1001);
  await proxy.ask(PATH, options);
});

for (const headers of [{}, {'cache-control': 'no-cache'}]) {
  test(`a tag that was checked in the future is asked about${'cache-control' in headers ? ', with no-cache' : ''}, once`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      tagGet,
      {request: HEAD_TAG, answer: headAnswer(newer)},
      {request: `GET /v2/library/app/manifests/${newer.digest}`, answer: manifestAnswer(newer)},
    ]);
    const proxy = await startBackref(t, {registries: [upstream]});
    proxy.clock.moveWall(3650 * DAY);
    await proxy.ask(PATH);
    proxy.clock.moveWall(-3650 * DAY);
    t.deepEqual((await proxy.ask(PATH, {headers})).body, newer.bytes);
    t.is((await proxy.ask(PATH, {headers})).headers['cache-status'], 'backref;hit;ttl=60');
  });
}

test('an absent tag is 404, remembered for five seconds', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET_TAG, answer: {status: 404}}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(PATH);
  t.is(got.status, 404);
  t.like(got.json(), {errors: [{code: 'MANIFEST_UNKNOWN'}]});
  t.is((await proxy.ask(PATH)).status, 404);
  proxy.clock.move(5001);
  upstream.expect(tagGet);
  t.is((await proxy.ask(PATH)).status, 200);
});

test('a tag that the upstream deleted is served, marked, within keepDeleted and then is 404', async (t) => {
  const gone = {request: HEAD_TAG, answer: {status: 404}, always: true as const};
  const upstream = await createScriptedUpstream(t, [tagGet, gone]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  for (const wait of [0, 10_000, DAY, 5 * DAY]) {
    proxy.clock.move(wait);
    const got = await proxy.ask(PATH);
    t.is(got.status, 200);
    t.regex(String(got.headers['cache-status']), /detail=deleted-upstream/);
    t.regex(String(got.headers.warning), /deleted at 127\.0\.0\.1/);
  }
  proxy.clock.move(DAY);
  t.is((await proxy.ask(PATH)).status, 404);
});

test('with keepDeleted 0 a deleted tag is 404 at once; a tag that comes back is served again', async (t) => {
  const upstream = await createScriptedUpstream(t, [tagGet, {request: HEAD_TAG, answer: {status: 404}}]);
  const proxy = await startBackref(t, {
    registries: [{...upstream, url: upstream.url, tags: {keepDeleted: 0}}],
  });
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  t.is((await proxy.ask(PATH)).status, 404);
  proxy.clock.move(MINUTE);
  upstream.expect(unchanged);
  const back = await proxy.ask(PATH);
  t.is(back.status, 200);
  t.is(back.headers.warning, undefined);
});

test('a denial reaches the client instead of a stale copy', async (t) => {
  const upstream = await createScriptedUpstream(t, [tagGet, {request: HEAD_TAG, answer: {status: 403}}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  const got = await proxy.ask(PATH);
  t.is(got.status, 403);
  t.like(got.json(), {errors: [{code: 'DENIED'}]});
});

test('a miss that cannot be filled is 503 with Retry-After and the reason, never a 404', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET_TAG, answer: {status: 500}, times: 4}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(PATH);
  t.is(got.status, 503);
  t.regex(String(got.headers['retry-after']), /^\d+$/);
  t.is(got.headers['content-type'], 'application/json');
  const [error] = (got.json() as {errors: {code: string; message: string; detail: object}[]}).errors;
  t.is(error?.code, 'UNAVAILABLE');
  t.regex(String(error?.message), /library\/app .*127\.0\.0\.1:\d+: .*500/);
  t.like(error?.detail, {upstream: upstream.host, requestId: got.headers['x-request-id']});
});

test('a miss during a rate limit is 503, or 429 by option', async (t) => {
  const limited = {request: GET_TAG, answer: {status: 429, headers: {'retry-after': '30'}}};
  const upstream = await createScriptedUpstream(t, [limited, limited]);
  const byDefault = await startBackref(t, {registries: [upstream]});
  const unavailable = await byDefault.ask(PATH);
  t.is(unavailable.status, 503);
  t.is(unavailable.headers['retry-after'], '30');
  byDefault.clock.move(10_000);
  const other = await byDefault.ask('/v2/other/manifests/1');
  t.is(other.status, 503);
  t.is(other.headers['retry-after'], '20');
  t.regex(String(other.body), /limits our rate \(429\); set upstream\.credentials/);
  const with429 = await startBackref(t, {
    registries: [{url: upstream.url, upstream: {rateLimitStatus: 429}}],
  });
  const tooMany = await with429.ask(PATH);
  t.is(tooMany.status, 429);
  t.like(tooMany.json(), {errors: [{code: 'TOOMANYREQUESTS'}]});
});

test('bytes with another digest than the requested one are never stored', async (t) => {
  const lie = {
    request: `GET /v2/library/app/manifests/${image.digest}`,
    answer: manifestAnswer(newer),
    times: 8,
  };
  const upstream = await createScriptedUpstream(t, [lie]);
  const proxy = await startBackref(t, {registries: [upstream]});
  for (const _ of [1, 2]) t.is((await proxy.ask(`/v2/app/manifests/${image.digest}`)).status, 503);
});

test("a tag's bytes must have the digest that the upstream names", async (t) => {
  const answer = {
    ...manifestAnswer(image),
    body: newer.bytes,
    headers: {'Docker-Content-Digest': image.digest},
  };
  const upstream = await createScriptedUpstream(t, [{request: GET_TAG, answer, times: 4}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is((await proxy.ask(PATH)).status, 503);
});

test('sha512 manifests are pulled, by digest and by tag, under the algorithm they were pushed with', async (t) => {
  const long = plainManifest('sha512');
  const byDigest = {request: `GET /v2/library/app/manifests/${long.digest}`, answer: manifestAnswer(long)};
  const upstream = await createScriptedUpstream(t, [
    byDigest,
    {request: GET_TAG, answer: manifestAnswer(long)},
    // The upstream's HEAD names another algorithm: one GET, hashed the way the tag is known.
    {request: HEAD_TAG, answer: headAnswer({...long, digest: digestOf(long.bytes)})},
    {request: GET_TAG, answer: {...manifestAnswer(long), headers: {'Content-Type': long.mediaType}}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(`/v2/app/manifests/${long.digest}`);
  t.is(got.headers['docker-content-digest'], long.digest);
  t.is((await proxy.ask(PATH)).headers['docker-content-digest'], long.digest);
  proxy.clock.move(MINUTE);
  t.is((await proxy.ask(PATH)).headers['docker-content-digest'], long.digest);
});

test('a digest known to another repository is served only after the upstream confirmed it, without a download', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    tagGet,
    {request: `HEAD /v2/library/other/manifests/${image.digest}`, answer: headAnswer(image)},
    {request: `HEAD /v2/library/secret/manifests/${image.digest}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  const other = await proxy.ask(`/v2/other/manifests/${image.digest}`);
  t.deepEqual(other.body, image.bytes);
  t.is(other.headers['cache-status'], 'backref;fwd=uri-miss;detail=confirmed');
  t.is((await proxy.ask(`/v2/other/manifests/${image.digest}`)).headers['cache-status'], 'backref;hit');
  const secret = await proxy.ask(`/v2/secret/manifests/${image.digest}`);
  t.is(secret.status, 404);
});

test('HEAD of a cold tag asks by HEAD alone; the GET by digest that follows moves the tag here', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    unchanged,
    {request: `GET /v2/library/app/manifests/${image.digest}`, answer: manifestAnswer(image)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const head = await proxy.ask(PATH, {method: 'HEAD'});
  t.is(head.status, 200);
  t.is(head.headers['docker-content-digest'], image.digest);
  t.is(head.headers['content-length'], String(image.bytes.length));
  t.is(head.headers['content-type'], image.mediaType);
  t.is(head.body.length, 0);
  await proxy.ask(`/v2/app/manifests/${image.digest}`);
  await upstream.stop();
  proxy.clock.move(DAY);
  t.is((await proxy.ask(PATH)).status, 200);
});

test('HEAD is answered by a GET that is hashed where the upstream does not name the digest or does not support HEAD', async (t) => {
  const bare = {'Content-Type': image.mediaType};
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD_TAG, answer: {headers: bare, body: []}},
    {request: GET_TAG, answer: {headers: bare, body: image.bytes}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const head = await proxy.ask(PATH, {method: 'HEAD'});
  t.is(head.headers['docker-content-digest'], image.digest);
  t.is(head.headers['content-length'], String(image.bytes.length));

  const old = await createScriptedUpstream(t, [
    {request: HEAD_TAG, answer: {status: 405}},
    {request: GET_TAG, answer: {headers: bare, body: image.bytes}, times: 2},
  ]);
  const before = await startBackref(t, {registries: [old]});
  t.is((await before.ask(PATH, {method: 'HEAD'})).headers['docker-content-digest'], image.digest);
});

test('a manifest of any media type is served as it is; parameters of the content type are dropped', async (t) => {
  const odd = {
    ...image,
    bytes: Buffer.from('{"schemaVersion": 3,\n"thing": true}'),
    mediaType: 'application/vnd.example.thing; charset=utf-8',
  };
  const list = {...image, bytes: Buffer.from(`{"mediaType":"${DOCKER_LIST}", "manifests": []}\n`)};
  const answer = ({bytes}: {bytes: Buffer}, type: Record<string, string>) => ({headers: type, body: bytes});
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/library/app/manifests/odd', answer: answer(odd, {'Content-Type': odd.mediaType})},
    {request: 'GET /v2/library/app/manifests/list', answer: answer(list, {})},
    {request: 'GET /v2/library/app/manifests/lie', answer: answer(list, {'Content-Type': OCI_MANIFEST})},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const thing = await proxy.ask('/v2/app/manifests/odd');
  t.deepEqual(thing.body, odd.bytes);
  t.is(thing.headers['content-type'], 'application/vnd.example.thing');
  const listed = await proxy.ask('/v2/app/manifests/list');
  t.deepEqual(listed.body, list.bytes);
  t.is(listed.headers['content-type'], DOCKER_LIST);
  t.is((await proxy.ask('/v2/app/manifests/lie')).status, 503);
});

for (const [by, reference] of [
  ['tag', '1'],
  ['digest', image.digest],
] as const) {
  test(`HEAD and GET of a cold manifest by ${by} agree on the Content-Type when the upstream says application/json`, async (t) => {
    const generic = {...manifestAnswer(image), headers: {'Content-Type': 'application/json'}};
    const named = {...generic.headers, 'Docker-Content-Digest': image.digest};
    const upstream = await createScriptedUpstream(t, [
      {
        request: `HEAD /v2/library/app/manifests/${reference}`,
        answer: {...headAnswer(image), headers: named},
      },
      {request: `GET /v2/library/app/manifests/${image.digest}`, answer: generic},
    ]);
    const proxy = await startBackref(t, {registries: [upstream]});
    const path = `/v2/app/manifests/${reference}`;
    const head = await proxy.ask(path, {method: 'HEAD'});
    t.is(head.headers['content-type'], image.mediaType);
    t.is(head.headers['content-length'], String(image.bytes.length));
    t.is((await proxy.ask(path)).headers['content-type'], image.mediaType);
  });
}

test('the media type belongs to the link: one repository does not change that of another', async (t) => {
  const bytes = Buffer.from('{"schemaVersion": 2}');
  const digest = digestOf(bytes);
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/library/a/manifests/${digest}`,
      answer: {headers: {'Content-Type': 'application/vnd.a'}, body: bytes},
    },
    {
      request: `HEAD /v2/library/b/manifests/${digest}`,
      answer: {
        headers: {'Content-Type': 'application/vnd.b', 'Content-Length': String(bytes.length)},
        body: [],
      },
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/a/manifests/${digest}`);
  t.is((await proxy.ask(`/v2/b/manifests/${digest}`)).headers['content-type'], 'application/vnd.b');
  t.is((await proxy.ask(`/v2/a/manifests/${digest}`)).headers['content-type'], 'application/vnd.a');
});

test('If-None-Match with the digest is 304, for GET and HEAD', async (t) => {
  const upstream = await createScriptedUpstream(t, [tagGet]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  for (const method of ['GET', 'HEAD']) {
    const got = await proxy.ask(PATH, {method, headers: {'if-none-match': `W/"x", "${image.digest}"`}});
    t.is(got.status, 304);
    t.is(got.body.length, 0);
    t.is(got.headers.etag, `"${image.digest}"`);
  }
});

test("a client's credentials are neither used nor passed on", async (t) => {
  const upstream = await createScriptedUpstream(t, [{...tagGet, sends: {authorization: undefined}}]);
  const proxy = await startBackref(t, {registries: [upstream]});
  t.is((await proxy.ask(PATH, {headers: {authorization: 'Basic c2VjcmV0OnNlY3JldA=='}})).status, 200);
});

const layer = randomBlob(1000);
const config = contentOf(Buffer.from('{}'));
const whole = imageManifest([layer]);
const lacking = imageManifest([randomBlob(10)]);
const index = indexOf([lacking, whole]);

for (const [what, manifest] of [
  ['an image', whole],
  ['an index', index],
] as const) {
  test(`with the upstream failing, ${what} is served by tag once a pull of it can be completed from here`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: GET_TAG, answer: manifestAnswer(manifest)},
      {request: HEAD_TAG, answer: {status: 500}, always: true},
      {
        request: `GET /v2/library/app/manifests/${whole.digest}`,
        answer: manifestAnswer(whole),
        optional: true,
      },
      {request: `GET /v2/library/app/blobs/${layer.digest}`, answer: blobAnswer(layer)},
      {request: `GET /v2/library/app/blobs/${config.digest}`, answer: blobAnswer(config)},
    ]);
    const breaker = {failures: 100, openFor: 1000};
    const proxy = await startBackref(t, {registries: [{url: upstream.url, upstream: {breaker}}]});
    await proxy.ask(PATH);
    proxy.clock.move(MINUTE);
    const half = await proxy.ask(PATH);
    t.is(half.status, 503);
    t.regex(half.body.toString(), /no whole copy/);
    t.is((await proxy.ask(PATH, {method: 'HEAD'})).status, 503);
    await proxy.ask(`/v2/app/manifests/${whole.digest}`);
    await proxy.ask(`/v2/app/blobs/${layer.digest}`);
    await proxy.ask(`/v2/app/blobs/${config.digest}`);
    await proxy.idle();
    const stale = await proxy.ask(PATH);
    t.is(stale.status, 200);
    t.deepEqual(stale.body, manifest.bytes);
    t.regex(String(stale.headers.warning), /^299 - "/);
    const head = await proxy.ask(PATH, {method: 'HEAD'});
    t.is(head.status, 200);
    t.is(head.headers['docker-content-digest'], manifest.digest);
    t.regex(String(head.headers.warning), /^299 - "/);
  });
}

test('while the circuit is open nothing waits: what is whole is served, and anything else is 503 at once', async (t) => {
  const clock = createMovableClock();
  let waits = true;
  const stopped = {
    ...clock,
    after: (ms: number, call: () => void) => (waits ? clock.after(ms, call) : () => {}),
  };
  const upstream = await createScriptedUpstream(t, [
    {request: GET_TAG, answer: manifestAnswer(whole)},
    {request: `GET /v2/library/app/blobs/${layer.digest}`, answer: blobAnswer(layer)},
    {request: `GET /v2/library/app/blobs/${config.digest}`, answer: blobAnswer(config)},
    {request: 'GET /v2/library/app/manifests/lacking', answer: manifestAnswer(lacking)},
    {request: HEAD_TAG, answer: {status: 500}, times: 4},
  ]);
  const breaker = {failures: 1, openFor: DAY};
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, upstream: {breaker}}],
    clock: stopped,
  });
  await proxy.ask(PATH);
  for (const {digest} of [layer, config]) await proxy.ask(`/v2/app/blobs/${digest}`);
  await proxy.ask('/v2/app/manifests/lacking');
  await proxy.idle();
  clock.move(MINUTE);
  t.is((await proxy.ask(PATH)).status, 200);

  waits = false;
  for (const method of ['GET', 'HEAD']) {
    const stale = await proxy.ask(PATH, {method});
    t.is(stale.status, 200);
    t.regex(String(stale.headers['cache-status']), /fwd=stale;.*detail=open/);
    for (const path of [
      '/v2/app/manifests/lacking',
      '/v2/app/manifests/cold',
      `/v2/app/manifests/${newer.digest}`,
      `/v2/app/blobs/${newer.digest}`,
    ])
      t.is((await proxy.ask(path, {method})).status, 503, `${method} ${path}`);
  }
  t.is((await proxy.ask(`/v2/app/referrers/${whole.digest}`)).status, 503);
  t.is((await proxy.ask('/v2/app/tags/list')).status, 503);
});

test('with the upstream failing, it is not asked again for the manifest of a tag that is not here', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: HEAD_TAG, answer: {status: 500}, times: 8}]);
  const {content, storage, route, clock} = await wireInProcess(t, {
    registries: [upstream],
    clock: createMovableClock(),
  });
  const repository = {registry: 'docker.io', name: parseName('library/app')};
  const tag = parseTag('1');
  const {digest} = newer;
  await storage.metadata.commit([
    {type: 'tag.put', repository, name: tag, digest, origin: 'upstream', at: clock.now()},
  ]);
  clock.move(MINUTE);
  for (const verb of ['get', 'head'] as const) {
    const asking = content.manifests[verb](route('app'), tag, ANONYMOUS, {noCache: false});
    await t.throwsAsync(asking, {code: 'UNAVAILABLE'});
  }
});

test('with the upstream failing, a manifest is refused when only another repository is linked to its layer', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET_TAG, answer: manifestAnswer(whole)},
    {request: `GET /v2/library/app/blobs/${config.digest}`, answer: blobAnswer(config)},
    {request: `GET /v2/library/base/blobs/${layer.digest}`, answer: blobAnswer(layer)},
    {request: HEAD_TAG, answer: {status: 500}, times: 4},
    {request: `HEAD /v2/library/app/blobs/${layer.digest}`, answer: {status: 500}, times: 4},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  await proxy.ask(`/v2/app/blobs/${config.digest}`);
  await proxy.ask(`/v2/base/blobs/${layer.digest}`);
  await proxy.idle();
  proxy.clock.move(MINUTE);
  const stale = await proxy.ask(PATH);
  t.is(stale.status, 503);
  t.regex(stale.body.toString(), /no whole copy/);
  t.is((await proxy.ask(`/v2/app/blobs/${layer.digest}`)).status, 503);
});

test('with the upstream failing, the tag of a signature is served without its config, which clients do not read', async (t) => {
  const tag = `sha256-${'a'.repeat(64)}.sig`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/${tag}`, answer: manifestAnswer(whole)},
    {request: `HEAD /v2/library/app/manifests/${tag}`, answer: {status: 500}, times: 4},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/app/manifests/${tag}`);
  proxy.clock.move(MINUTE);
  const stale = await proxy.ask(`/v2/app/manifests/${tag}`);
  t.is(stale.status, 200);
  t.deepEqual(stale.body, whole.bytes);
  t.regex(String(stale.headers.warning), /^299 - "/);
});

test('a pull can be completed without foreign layers', async (t) => {
  const body = {
    schemaVersion: 2,
    layers: [
      {mediaType: 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', size: 9, digest: layer.digest},
    ],
  };
  const manifest = {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_MANIFEST};
  const upstream = await createScriptedUpstream(t, [
    {request: GET_TAG, answer: manifestAnswer(manifest)},
    {request: HEAD_TAG, answer: {status: 500}, times: 4},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(PATH);
  proxy.clock.move(MINUTE);
  t.is((await proxy.ask(PATH)).status, 200);
});

const NOT_MANIFESTS = {
  'a login page': {headers: {'Content-Type': 'text/html'}, body: '<!doctype html><title>Log in</title>'},
  'a page that is called JSON': {headers: {'Content-Type': 'application/json'}, body: '<html></html>'},
  'an error in JSON': {headers: {'Content-Type': 'application/json'}, body: '{"errors":[]}'},
};

for (const [what, answer] of Object.entries(NOT_MANIFESTS)) {
  test(`${what} never becomes a tag's manifest, cold`, async (t) => {
    const upstream = await createScriptedUpstream(t, [{request: GET_TAG, answer, times: 4}, tagGet]);
    const proxy = await startBackref(t, {registries: [upstream]});
    const got = await proxy.ask(PATH);
    t.is(got.status, 503);
    t.like(got.json(), {errors: [{code: 'UNAVAILABLE', detail: {kind: 'protocol'}}]});
    t.deepEqual((await proxy.ask(PATH)).body, image.bytes);
  });

  test(`${what} never becomes a tag's manifest, warm: the tag that is known is served stale`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      tagGet,
      {request: HEAD_TAG, answer, always: true},
      {request: GET_TAG, answer, times: 4, optional: true},
    ]);
    const proxy = await startBackref(t, {registries: [upstream]});
    await proxy.ask(PATH);
    proxy.clock.move(2 * MINUTE);
    const got = await proxy.ask(PATH);
    t.is(got.status, 200);
    t.deepEqual(got.body, image.bytes);
    t.regex(String(got.headers['cache-status']), /detail=protocol/);
    t.regex(String(got.headers['warning']), /^299 - /);
  });
}

test('an upstream that serves only what is accepted is asked for an OCI artifact manifest', async (t) => {
  const type = 'application/vnd.oci.artifact.manifest.v1+json';
  const artifact = {
    ...contentOf(Buffer.from(JSON.stringify({mediaType: type, artifactType: 'a/b', blobs: []}))),
    mediaType: type,
  };
  const upstream = await createScriptedUpstream(t, [
    {
      request: GET_TAG,
      answer: ({headers}) =>
        headers.accept?.split(', ').includes(type) ? manifestAnswer(artifact) : {status: 404},
    },
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const got = await proxy.ask(PATH);
  t.deepEqual(got.body, artifact.bytes);
  t.is(got.headers['content-type'], type);
});
