import test, {type ExecutionContext} from 'ava';
import {createTokens} from '../../../src/upstream/auth/token.ts';
import {UpstreamFailure} from '../../../src/upstream/port.ts';
import {isPrivateAddress} from '../../../src/upstream/transport/private-address.ts';
import {createRedirectNetwork, followRedirects} from '../../../src/upstream/transport/redirect.ts';
import type {Reply} from '../../../src/upstream/transport/reply.ts';
import type {RequestOptions} from '../../../src/upstream/transport/request.ts';
import {createManualClock} from '../../support/clock.ts';
import {createScriptedUpstream, type Expectation} from '../../support/scripted-upstream.ts';
import {
  at,
  BLOB_PATH,
  bytesOf,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  MANIFEST_PATH,
  repository,
} from '../../support/upstream.ts';

/** An upstream with a public address (RFC 5737), which only a forward proxy reaches. */
const PUBLIC = 'http://203.0.113.7';
const GET = `GET ${PUBLIC}${BLOB_PATH}`;
const to = (location: string) => ({status: 307, headers: {location}});

/** Plays the script as the proxy, for all hosts that are not on this machine. */
async function start(t: ExecutionContext, script: Expectation[], redirectHosts: readonly string[] = []) {
  const proxy = await createScriptedUpstream(t, script);
  const env = {HTTP_PROXY: proxy.url, NO_PROXY: 'localhost,127.0.0.1,[::1]'};
  return createClient(t, PUBLIC, {redirectHosts}, {env});
}

for (const address of [
  '0.0.0.0',
  '10.1.2.3',
  '100.64.0.1',
  '127.0.0.1',
  '127.255.255.254',
  '169.254.169.254',
  '172.16.0.1',
  '172.31.255.255',
  '192.0.0.192',
  '192.168.1.1',
  '::',
  '::1',
  '::127.0.0.1',
  '::ffff:127.0.0.1',
  '::ffff:a00:1',
  '64:ff9b::192.168.0.1',
  '64:ff9b:1::10.0.0.1',
  'fc00::1',
  'fd12:3456::1',
  'fe80::1%eth0',
  'febf::1',
]) {
  test(`${address} is a private address`, (t) => t.true(isPrivateAddress(address)));
}

for (const address of [
  '1.1.1.1',
  '100.63.255.255',
  '100.128.0.1',
  '172.15.255.255',
  '172.32.0.1',
  '203.0.113.7',
  '::ffff:1.1.1.1',
  '64:ff9b::1.1.1.1',
  '2606:4700::1111',
  'fbff::1',
]) {
  test(`${address} is not a private address`, (t) => t.false(isPrivateAddress(address)));
}

for (const host of ['127.0.0.1', '[::1]', '[::ffff:127.0.0.1]', '0x7f.1', '2130706433', '169.254.169.254']) {
  test(`a redirect from a public upstream to ${host} is not followed`, async (t) => {
    const {client} = await start(t, [{request: GET, answer: to(`http://${host}:5000/secret`)}]);
    const failure = await failureOf(client.getBlob(repository, digest, caller));
    t.is(failure.kind, 'protocol');
    t.regex(failure.message, /has the private address .*upstream\.redirectHosts/);
  });
}

test('a redirect to a name with a private address is not followed: the address that is connected to counts', async (t) => {
  const secret = await createScriptedUpstream(t);
  const {client} = await start(t, [{request: GET, answer: to(`http://localhost:${secret.port}/secret`)}]);
  const failure = await failureOf(client.getBlob(repository, digest, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, /has the private address .*add "localhost" to upstream\.redirectHosts/);
  t.is(secret.connections(), 0);
});

for (const listed of ['localhost', 'localhost:port']) {
  test(`a redirect to a private address is followed when redirectHosts lists ${listed}`, async (t) => {
    const storage = await createScriptedUpstream(t, [{request: 'GET /blob', answer: {body: 'abc'}}]);
    const host = listed.replace('port', String(storage.port));
    const script = [{request: GET, answer: to(`http://localhost:${storage.port}/blob`)}];
    const {client} = await start(t, script, [host]);
    t.is(String(await bytesOf(await client.getBlob(repository, digest, caller))), 'abc');
  });
}

test('a redirect from a public upstream to another public host is followed', async (t) => {
  const {client} = await start(t, [
    {request: GET, answer: to('http://203.0.113.8/blob')},
    {request: 'GET http://203.0.113.8/blob', answer: {body: 'abc'}},
  ]);
  t.is(String(await bytesOf(await client.getBlob(repository, digest, caller))), 'abc');
});

test('an upstream whose name has a private address may redirect to private addresses', async (t) => {
  const storage = await createScriptedUpstream(t, [{request: 'GET /blob', answer: {body: 'abc'}}]);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: to(`${storage.url}/blob`)},
  ]);
  const {client} = createClient(t, `http://localhost:${upstream.port}`);
  t.is(String(await bytesOf(await client.getBlob(repository, digest, caller))), 'abc');
});

test('an upload is not redirected to a private address either', async (t) => {
  const {client} = await start(t, [{request: `GET ${PUBLIC}/v2/`, optional: true}]);
  const bytes = async function* () {
    yield Buffer.from('bytes');
  };
  const session = at('http://127.0.0.1:5000/upload');
  const chunk = {length: 5, range: undefined, bytes: bytes()};
  t.is((await failureOf(client.appendUpload(repository, session, chunk, caller))).kind, 'protocol');
  t.is((await failureOf(client.uploadState(repository, session, caller))).kind, 'protocol');
});

test('a token request is not redirected to a private address either', async (t) => {
  const challenge = {
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${PUBLIC}/token",service="registry"`},
  };
  const {client} = await start(t, [
    {request: `HEAD ${PUBLIC}${MANIFEST_PATH}`, answer: challenge},
    {request: /^GET http:\/\/203\.0\.113\.7\/token\?/, answer: to('http://127.0.0.1:5000/secret')},
  ]);
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.regex(failure.message, /private address 127\.0\.0\.1/);
});

test('requests to hosts that are not configured are counted as other', async (t) => {
  const script = [
    {request: GET, answer: to('http://203.0.113.8/blob')},
    {request: 'GET http://203.0.113.8/blob', answer: to('http://203.0.113.9/blob')},
    {request: 'GET http://203.0.113.9/blob', answer: {body: 'abc'}},
  ];
  const {client, heard} = await start(t, script, ['203.0.113.9']);
  await bytesOf(await client.getBlob(repository, digest, caller));
  t.deepEqual(
    heard.flatMap((one) => (one.name === 'upstream.request' ? [[one.event.host, one.event.label]] : [])),
    [
      ['203.0.113.7', '203.0.113.7'],
      ['203.0.113.8', 'other'],
      ['203.0.113.9', '203.0.113.9'],
    ],
  );
});

test('a host that is listed without its port is counted under its listed name', async (t) => {
  const storage = await createScriptedUpstream(t, [{request: 'GET /blob', answer: {body: 'abc'}}]);
  const script = [{request: GET, answer: to(`http://localhost:${storage.port}/blob`)}];
  const {client, heard} = await start(t, script, ['localhost']);
  await bytesOf(await client.getBlob(repository, digest, caller));
  const labels = heard.flatMap((one) => (one.name === 'upstream.request' ? [one.event.label] : []));
  t.deepEqual(labels, ['203.0.113.7', 'localhost']);
});

test('a redirect to the forward proxy itself is not followed, although connections to its address are made', async (t) => {
  const secret = await createScriptedUpstream(t);
  const proxy = await createScriptedUpstream(t, [
    {request: GET, answer: to(`http://localhost:${secret.port}/secret`)},
  ]);
  const env = {HTTP_PROXY: `http://localhost:${proxy.port}`, NO_PROXY: 'localhost'};
  const {client} = createClient(t, PUBLIC, {}, {env});
  const failure = await failureOf(client.getBlob(repository, digest, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, /redirects to the forward proxy localhost/);
  t.is(secret.connections(), 0);
});

const storage = new URL('http://10.0.0.1/blob');
/** Where an upstream whose name has these addresses may redirect to. */
function networkFor(addressesOf: () => Promise<string[]>) {
  const clock = createManualClock();
  const deps = {listed: [], proxies: new Set<string>(), clock, addressesOf};
  return {clock, networkOf: createRedirectNetwork(new URL('http://registry.example'), deps)};
}

test('an upstream whose name has a public and a private address may not redirect to private ones', async (t) => {
  const {networkOf} = networkFor(async () => ['203.0.113.7', '10.0.0.5']);
  await t.throwsAsync(networkOf(storage), {message: /10\.0\.0\.1, which has the private address/});
});

test('while DNS fails, an upstream keeps its last known addresses, and is looked up again', async (t) => {
  const answers = [['10.0.0.5'], undefined, ['203.0.113.7']];
  const {clock, networkOf} = networkFor(async () => {
    const answer = answers.shift();
    if (!answer) throw new Error('DNS does not answer');
    return answer;
  });
  t.is(await networkOf(storage), 'any');
  await clock.advance(60_000);
  t.is(await networkOf(storage), 'any');
  await t.throwsAsync(networkOf(storage));
});

test("a redirect does not wait for DNS longer than the request's budget", async (t) => {
  const headers = {location: 'http://elsewhere.example/'};
  const nothing = (async function* () {})();
  const body = {ended: Promise.resolve(), chunks: nothing, timed: nothing, close() {}};
  const send = async ({url}: RequestOptions): Promise<Reply> => ({status: 307, headers, url, body});
  const {networkOf} = networkFor(() => new Promise(() => {}));
  const late = new AbortController();
  const request = {method: 'GET', url: new URL('http://registry.example/'), headers: {}} as const;
  const following = followRedirects(send, request, late.signal, networkOf);
  late.abort(new Error('late'));
  await t.throwsAsync(following, {message: 'late'});
});

test('a token service in the domain of a public upstream is reached only at public addresses', async (t) => {
  const asked: RequestOptions[] = [];
  const {clock, networkOf} = networkFor(async () => ['203.0.113.7']);
  const tokens = createTokens({
    host: 'registry.example',
    send: async (request) => {
      asked.push(request);
      throw new Error('no more is needed');
    },
    credentials: {configured: false, read: async () => undefined, forget() {}},
    gate: {login: (attempt) => attempt(), proven: () => true},
    gates: {check() {}, limited: () => new UpstreamFailure('throttled', 'registry.example', '')},
    networkOf,
    clock,
    budget: 1000,
  });
  const realm = new URL('https://internal.registry.example/token');
  const source = {realm, service: undefined, scope: 'repository:team/app:pull'};
  await t.throwsAsync(tokens.get(source, caller, undefined, new AbortController().signal));
  t.like(asked, [{url: {hostname: realm.hostname}, network: 'public'}]);
});

test('a token service at a private address is used when realmHosts lists it', async (t) => {
  const service = await createScriptedUpstream(t, [
    {request: /^GET \/token\?/, answer: {body: '{"token":"abc"}'}},
  ]);
  const realm = `http://localhost:${service.port}/token`;
  const request = `HEAD ${PUBLIC}${MANIFEST_PATH}`;
  const headers = {'www-authenticate': `Bearer realm="${realm}",service="registry"`};
  const proxy = await createScriptedUpstream(t, [
    {request, answer: {status: 401, headers}},
    {request, sends: {authorization: 'Bearer abc'}},
  ]);
  const env = {HTTP_PROXY: proxy.url, NO_PROXY: 'localhost'};
  const {client} = createClient(t, PUBLIC, {realmHosts: ['localhost']}, {env});
  t.truthy(await client.headManifest(repository, latest, caller));
});
