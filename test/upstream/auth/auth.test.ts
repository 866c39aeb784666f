import {inspect} from 'node:util';
import test from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {parseName} from '../../../src/oci/name.ts';
import type {FailureKind} from '../../../src/upstream/port.ts';
import {createManualClock} from '../../support/clock.ts';
import {
  type BodyPart,
  BREAK,
  createScriptedUpstream,
  type Expectation,
  HANG,
} from '../../support/scripted-upstream.ts';
import {
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

const HEAD = `HEAD ${MANIFEST_PATH}`;
const OTHER = 'HEAD /v2/team/other/manifests/latest';
const other = parseName('team/other');
const credentials = {kind: 'basic', username: 'robot', password: 'hush'} as const;
const BASIC = `Basic ${Buffer.from('robot:hush').toString('base64')}`;

/** The challenge of an upstream whose token service is on the same host. */
const challenge = (host: string, scope?: string) => ({
  status: 401,
  headers: {
    'www-authenticate': `Bearer realm="http://${host}/token",service="registry"${scope === undefined ? '' : `,scope="${scope}"`}`,
  },
  body: '{"errors":[]}',
});
const TOKEN = 'GET /token?service=registry&scope=repository%3Ateam%2Fapp%3Apull';
const token = (value: string, more: Record<string, unknown> = {}) => ({
  body: JSON.stringify({token: value, ...more}),
});

test('a Bearer challenge is answered, and the next request needs none', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: HEAD,
      sends: {authorization: undefined},
      answer: () => challenge(upstream.host, 'repository:team/app:pull'),
    },
    {request: TOKEN, sends: {authorization: undefined}, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}, times: 2},
    {request: `GET ${BLOB_PATH}`, sends: {authorization: 'Bearer T1'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.truthy(await client.headManifest(repository, latest, caller));
  t.truthy(await client.headManifest(repository, latest, caller));
  await bytesOf(await client.getBlob(repository, digest, caller));
});

test('without a scope in the challenge, pull from the repository is requested', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('a scope with commas is one value, several scopes are several', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: HEAD,
      answer: () => challenge(upstream.host, 'repository:team/app:pull,push repository:base:pull'),
    },
    {
      request:
        'GET /token?service=registry&scope=repository%3Ateam%2Fapp%3Apull%2Cpush&scope=repository%3Abase%3Apull',
      answer: {body: JSON.stringify({access_token: 'T1'})},
    },
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('credentials go to the token service as Basic, and the token to the upstream', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, sends: {authorization: undefined}, answer: () => challenge(upstream.host)},
    {request: TOKEN, sends: {authorization: BASIC}, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('concurrent requests for the same token share one exchange', async (t) => {
  const {promise: gate, resolve: open} = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: HEAD, sends: {authorization: undefined}, answer: () => challenge(upstream.host), times: 5},
      {request: TOKEN, answer: {...token('T1'), before: gate}},
      {request: HEAD, sends: {authorization: 'Bearer T1'}, times: 5},
    ],
    {anyOrder: true},
  );
  const {client} = createClient(t, upstream.url);
  const heads = [1, 2, 3, 4, 5].map(() => client.headManifest(repository, latest, caller));
  await upstream.received(6);
  open();
  t.is((await Promise.all(heads)).length, 5);
});

test('tokens are not shared between callers', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
    {request: HEAD, sends: {authorization: undefined}, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T2')},
    {request: HEAD, sends: {authorization: 'Bearer T2'}},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.headManifest(repository, latest, caller);
  await client.headManifest(repository, latest, {...ANONYMOUS, key: 'somebody'});
  t.pass();
});

const renewals: [string, Record<string, unknown>, number][] = [
  ['60 s where nothing is said', {}, 54_000],
  ['expires_in seconds', {expires_in: 300}, 270_000],
  ['expires_in after issued_at', {expires_in: 300, issued_at: '2029-12-31T23:58:20Z'}, 170_000],
];
for (const [name, answer, life] of renewals) {
  test(`a token is renewed before its end: ${name}`, async (t) => {
    const clock = createManualClock(Date.parse('2030-01-01T00:00:00Z'));
    const upstream = await createScriptedUpstream(t, [
      {request: HEAD, answer: () => challenge(upstream.host)},
      {request: TOKEN, answer: token('T1', answer)},
      {request: HEAD, sends: {authorization: 'Bearer T1'}, times: 2},
      {request: TOKEN, answer: token('T2')},
      {request: HEAD, sends: {authorization: 'Bearer T2'}},
    ]);
    const {client} = createClient(t, upstream.url, {}, {clock});
    await client.headManifest(repository, latest, caller);
    await clock.advance(life - 1);
    await client.headManifest(repository, latest, caller);
    await clock.advance(1);
    await client.headManifest(repository, latest, caller);
    t.pass();
  });
}

test('a token that the upstream no longer accepts is replaced once', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
    {request: HEAD, sends: {authorization: 'Bearer T1'}, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T2')},
    {request: HEAD, sends: {authorization: 'Bearer T2'}},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.headManifest(repository, latest, caller);
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('a refused new token is a denial, and the next request starts over', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}, answer: () => challenge(upstream.host)},
    {request: HEAD, sends: {authorization: undefined}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'denied');
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('403 with a token is a denial', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T1')},
    {request: HEAD, answer: {status: 403}},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'denied');
});

test('a refused anonymous token is a denial, not a failure of credentials', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: {status: 401}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'denied');
});

for (const status of [401, 403]) {
  test(`a token service that answers our credentials with ${status} is not asked again for a minute`, async (t) => {
    const clock = createManualClock();
    const upstream = await createScriptedUpstream(t, [
      {request: HEAD, answer: () => challenge(upstream.host)},
      {request: TOKEN, answer: {status}},
      {request: OTHER, answer: () => challenge(upstream.host)},
    ]);
    const {client, heard} = createClient(t, upstream.url, {credentials}, {clock});
    const failure = await failureOf(client.headManifest(repository, latest, caller));
    t.like(failure, {kind: 'credentials', retryAfter: 60_000});
    t.regex(failure.message, /upstream\.credentials/);
    await clock.advance(59_999);
    t.like(await failureOf(client.headManifest(repository, latest, caller)), {
      kind: 'credentials',
      retryAfter: 1,
    });
    t.is((await failureOf(client.headManifest(other, latest, caller))).kind, 'credentials');
    t.is(heard.filter(({name}) => name === 'upstream.credentials-refused').length, 1);
    t.false(heard.some(({name}) => name === 'upstream.circuit'));

    upstream.expect(
      {request: TOKEN, answer: token('T1')},
      {request: HEAD, sends: {authorization: 'Bearer T1'}},
    );
    await clock.advance(1);
    t.truthy(await client.headManifest(repository, latest, caller));
  });
}

test('unproven credentials are tried once, however many repositories are requested', async (t) => {
  const names = ['a', 'b', 'c', 'd', 'e'];
  const upstream = await createScriptedUpstream(
    t,
    [
      ...names.map(
        (name): Expectation => ({
          request: `HEAD /v2/${name}/manifests/latest`,
          answer: () => challenge(upstream.host),
        }),
      ),
      {request: /^GET \/token/, answer: {status: 401}},
    ],
    {anyOrder: true},
  );
  const {client} = createClient(t, upstream.url, {credentials});
  const failures = names.map((name) => failureOf(client.headManifest(parseName(name), latest, caller)));
  for (const failure of await Promise.all(failures)) t.is(failure.kind, 'credentials');
});

test('a Basic challenge is answered, remembered, and a refusal closes the gate', async (t) => {
  const basic = {status: 401, headers: {'www-authenticate': 'Basic realm="registry"'}};
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, sends: {authorization: undefined}, answer: basic},
    {request: HEAD, sends: {authorization: BASIC}, times: 2},
    {request: HEAD, sends: {authorization: BASIC}, answer: basic},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.truthy(await client.headManifest(repository, latest, caller));
  t.truthy(await client.headManifest(repository, latest, caller));
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'credentials');
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'credentials');
});

test('a Basic challenge without credentials is a denial', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 401, headers: {'www-authenticate': 'Basic realm="registry"'}}},
    {request: HEAD, answer: {status: 401}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'denied');
  t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, 'denied');
});

test('Bearer is preferred to Basic, whatever their order', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: HEAD,
      answer: () => ({
        status: 401,
        headers: {
          'www-authenticate': ['Basic realm="r"', challenge(upstream.host).headers['www-authenticate']],
        },
      }),
    },
    {request: TOKEN, answer: token('T1')},
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.truthy(await client.headManifest(repository, latest, caller));
});

const broken: [string, NonNullable<Expectation['answer']>, number, FailureKind][] = [
  ['500 to the end of the attempts', {status: 500}, 4, 'token'],
  ['503 to the end of the attempts', {status: 503}, 4, 'token'],
  ['404', {status: 404}, 1, 'token'],
  ['200 without a token', {body: '{}'}, 4, 'token'],
  ['200 with a token that is no header value', {body: JSON.stringify({token: 'a\r\nb'})}, 4, 'token'],
  ['HTML', {body: '<html>'}, 4, 'token'],
  ['429', {status: 429, headers: {'retry-after': '30'}}, 1, 'throttled'],
];
for (const [name, answer, times, kind] of broken) {
  test(`a token service that answers ${name} is the kind "${kind}"`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: HEAD, answer: () => challenge(upstream.host)},
      {request: TOKEN, answer, times},
    ]);
    const {client} = createClient(t, upstream.url, {credentials});
    t.is((await failureOf(client.headManifest(repository, latest, caller))).kind, kind);
  });
}

test('a token service that breaks the connection or is silent is the kind "token"', async (t) => {
  const clock = createManualClock(undefined, {skipBelow: 1000});
  const service = await createScriptedUpstream(t, [{request: TOKEN, answer: {before: HANG}}]);
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(service.host), times: 2},
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const silent = failureOf(client.headManifest(repository, latest, caller));
  await service.received(1);
  await clock.advance(5000);
  t.is((await silent).kind, 'token');
  await service.stop();
  const gone = failureOf(client.headManifest(repository, latest, caller));
  t.is((await gone).kind, 'token');
  t.regex((await gone).message, /token service .* refuses connections/);
});

test('a token service that stalls in its response times out within the same budget, and is asked again', async (t) => {
  const clock = createManualClock(undefined, {skipBelow: 1000});
  const begun = Promise.withResolvers<void>();
  const announce: BodyPart = {
    get wait() {
      begun.resolve();
      return Promise.resolve();
    },
  };
  const service = await createScriptedUpstream(t, [
    {request: TOKEN, answer: {body: ['{"token": ', announce, HANG]}},
    {request: TOKEN, answer: token('T1')},
  ]);
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(service.host), times: 2},
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  const silent = failureOf(client.headManifest(repository, latest, caller));
  await begun.promise;
  // The headers have arrived by then: both ends are in this process.
  await Array.fromAsync({length: 20}, () => new Promise(setImmediate));
  await clock.advance(5000);
  t.is((await silent).kind, 'token');
  t.regex((await silent).message, /did not answer in time/);
  await client.headManifest(repository, latest, caller);
});

test("a realm outside the upstream's domain gets nothing, and the message names the setting", async (t) => {
  const service = await createScriptedUpstream(t);
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(`localhost:${service.port}`), times: 2},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.is(failure.kind, 'credentials');
  t.regex(failure.message, /add "localhost" to upstream\.realmHosts/);
  const anonymous = createClient(t, upstream.url);
  t.is((await failureOf(anonymous.client.headManifest(repository, latest, caller))).kind, 'protocol');
});

test('a listed realm is used', async (t) => {
  const service = await createScriptedUpstream(t, [
    {request: TOKEN, sends: {authorization: BASIC}, answer: token('T1')},
  ]);
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(`localhost:${service.port}`)},
    {request: HEAD, sends: {authorization: 'Bearer T1'}},
  ]);
  const {client} = createClient(t, upstream.url, {credentials, realmHosts: ['localhost']});
  t.truthy(await client.headManifest(repository, latest, caller));
});

test('no event and no error contains a secret', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: () => challenge(upstream.host)},
    {request: TOKEN, answer: token('T-SECRET')},
    {request: HEAD, sends: {authorization: 'Bearer T-SECRET'}, answer: {status: 403}},
    {
      request: HEAD,
      sends: {authorization: 'Bearer T-SECRET'},
      answer: {before: BREAK},
      times: 5,
      optional: true,
    },
  ]);
  const {client, heard} = createClient(t, upstream.url, {credentials});
  const failures = [
    await failureOf(client.headManifest(repository, latest, caller)),
    await failureOf(client.headManifest(repository, latest, caller)),
  ];
  const printed = inspect([failures, heard], {depth: 12, showHidden: true, getters: true});
  for (const secret of ['T-SECRET', 'hush', BASIC]) t.false(printed.includes(secret), secret);
});
