import test from 'ava';
import {createPassingClock, startBackref} from './support/backref.ts';
import {headAnswer, manifestAnswer, plainManifest, randomBlob} from './support/content.ts';
import {createScriptedUpstream, type ScriptedUpstream} from './support/scripted-upstream.ts';

const [one, two] = [plainManifest(), plainManifest()];
const blob = randomBlob(200);
const BLOB = `/v2/app/blobs/${blob.digest}`;
const UPSTREAM_BLOB = `GET /v2/library/app/blobs/${blob.digest}`;

const manifestOf = (tag: string) => `/v2/app/manifests/${tag}`;
const upstreamManifest = (tag: string) => `GET /v2/library/app/manifests/${tag}`;
/** The upstream of a second registry, besides the one that a test is about. */
const further = {url: 'http://127.0.0.1:9'};

/** An answer with a blob whose second half is delayed. */
function inHalves() {
  const {promise, resolve} = Promise.withResolvers<void>();
  const headers = {'Content-Length': String(blob.bytes.length)};
  const body = [blob.bytes.subarray(0, 100), {wait: promise}, blob.bytes.subarray(100)];
  return {answer: {headers, body}, resume: resolve};
}

/** Adds a registry that asks for a token once. */
function expectToken(upstream: ScriptedUpstream): void {
  const challenge = `Bearer realm="${upstream.url}/token",service="registry"`;
  upstream.expect(
    {
      request: upstreamManifest('one'),
      sends: {authorization: undefined},
      answer: {status: 401, headers: {'WWW-Authenticate': challenge}},
    },
    {request: /^GET \/token\?/, answer: {body: '{"token":"kept"}'}},
    {request: upstreamManifest('one'), sends: {authorization: 'Bearer kept'}, answer: manifestAnswer(one)},
  );
}

test('an upstream whose settings stay keeps its tokens and connections over a reload, even if its registry changes', async (t) => {
  const upstream = await createScriptedUpstream(t);
  expectToken(upstream);
  upstream.expect({
    request: upstreamManifest('two'),
    sends: {authorization: 'Bearer kept'},
    answer: manifestAnswer(two),
  });
  const {ask, reload} = await startBackref(t, {registries: [upstream]});
  t.is((await ask(manifestOf('one'))).status, 200);
  const connections = upstream.connections();
  const {url} = upstream;
  t.deepEqual(reload({registries: [{url, tags: {ttl: 1000}}, further]}), {
    added: ['registry-1.example'],
    removed: [],
    changed: ['docker.io'],
    outlived: [],
    left: [],
  });
  t.is((await ask(manifestOf('two'))).headers['cache-status'], 'backref;fwd=uri-miss;stored;ttl=1');
  t.is(upstream.connections(), connections);
});

test('a download continues over a reload, and is still shared', async (t) => {
  const {answer, resume} = inHalves();
  const upstream = await createScriptedUpstream(t, [
    {request: UPSTREAM_BLOB, answer},
    {request: `HEAD ${UPSTREAM_BLOB.slice(4)}`, answer: headAnswer({...one, ...blob}), optional: true},
  ]);
  const {ask, open, reload} = await startBackref(t, {registries: [upstream], clock: createPassingClock()});
  const first = await open(BLOB);
  reload({registries: [upstream, further]});
  const second = ask(BLOB);
  resume();
  t.deepEqual(Buffer.concat(await first.toArray()), blob.bytes);
  t.deepEqual((await second).body, blob.bytes);
  t.is(upstream.requests.filter(({method}) => method === 'GET').length, 1);
});

test('a running request keeps a registry that is removed; its upstream is closed afterwards', async (t) => {
  const {answer, resume} = inHalves();
  const upstream = await createScriptedUpstream(t, [{request: UPSTREAM_BLOB, answer}]);
  const registries = [further, {url: upstream.url}];
  const {ask, open, reload} = await startBackref(t, {registries, clock: createPassingClock()});
  const asked = `/v2/library/app/blobs/${blob.digest}?ns=registry-1.example`;
  const message = await open(asked);
  t.deepEqual(reload({registries: [further]}).removed, ['registry-1.example']);
  t.is((await ask(asked)).status, 404);
  resume();
  t.deepEqual(Buffer.concat(await message.toArray()), blob.bytes);
  await upstream.disconnected();
});

test('idle connections to a removed upstream are closed at once', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: upstreamManifest('one'), answer: manifestAnswer(one)},
  ]);
  const {ask, reload} = await startBackref(t, {registries: [upstream]});
  t.is((await ask(manifestOf('one'))).status, 200);
  reload({registries: [further]});
  await upstream.disconnected();
});

test('a registry with another upstream is asked there, without the token of the earlier one', async (t) => {
  const before = await createScriptedUpstream(t);
  expectToken(before);
  const after = await createScriptedUpstream(t, [
    {request: upstreamManifest('two'), sends: {authorization: undefined}, answer: manifestAnswer(two)},
  ]);
  const {ask, reload} = await startBackref(t, {registries: [before]});
  t.is((await ask(manifestOf('one'))).status, 200);
  t.like(reload({registries: [after]}), {added: [], removed: [], changed: ['docker.io']});
  t.is((await ask(manifestOf('two'))).status, 200);
});

test('settings that a running server cannot change are reported each time, and stay', async (t) => {
  const {ask, reload} = await startBackref(t, {registries: [further]});
  const config = {cache: {memory: 2 ** 20}, garbage: {interval: 0, grace: 1}, shutdown: {grace: 1}};
  for (let time = 0; time < 2; time++) t.deepEqual(reload({config}).left, ['cache.memory', 'garbage.grace']);
  t.is((await ask('/v2/')).status, 200);
});

test('a configuration that cannot be adopted changes nothing', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: upstreamManifest('one'), answer: manifestAnswer(one)},
  ]);
  const {ask, reload} = await startBackref(t, {registries: [upstream]});
  t.throws(() => reload({registries: [further, {url: 'ftp://r.test'}]}), {message: /ftp:\/\/r\.test/});
  t.is((await ask(manifestOf('one'))).status, 200);
});

test('rules count from the next request after a reload', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: upstreamManifest('one'), answer: manifestAnswer(one)},
  ]);
  const {ask, reload} = await startBackref(t, {registries: [upstream]});
  t.is((await ask(manifestOf('one'))).status, 200);
  const rules = [{who: ['user:alice'], where: ['docker.io/**'], may: ['pull' as const]}];
  t.deepEqual(reload({config: {access: {rules}}}).left, []);
  t.is((await ask(manifestOf('one'))).status, 403);
  reload({config: {access: {mode: 'audit', rules}}});
  t.is((await ask(manifestOf('one'))).status, 200);
  reload({config: {}});
  t.is((await ask(manifestOf('one'))).status, 200);
});

test('a reload says that who can log in, and how, stays until a restart', async (t) => {
  const {reload} = await startBackref(t, {registries: [further]});
  const tokens = {service: 'other', ttl: 60_000, key: undefined, realm: undefined};
  const {left} = reload({config: {access: {mode: 'audit', tokens, users: {htpasswd: '/none'}}}});
  t.deepEqual(left.toSorted(), ['access.tokens.service', 'access.tokens.ttl', 'access.users.htpasswd']);
});
