import test from 'ava';
import {parseName} from '../../../src/oci/name.ts';
import {createManualClock} from '../../support/clock.ts';
import {createScriptedUpstream, type ScriptedAnswer} from '../../support/scripted-upstream.ts';
import {
  BLOB_PATH,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  MANIFEST_PATH,
  MANIFEST_TEXT,
  repository,
} from '../../support/upstream.ts';

const other = parseName('other/app');
const GET = `GET ${MANIFEST_PATH}`;
const HOUR = 3_600_000;
const credentials = {kind: 'basic', username: 'u', password: 'p'} as const;
const LIMITED: ScriptedAnswer = {
  status: 429,
  headers: {'retry-after': '3600', 'content-type': 'application/json'},
  body: '{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached\\nyour pull rate limit."}]}',
};
const FOUND = {request: GET, answer: {body: MANIFEST_TEXT}};

test('an upstream that answers 429 gets no request before its Retry-After, whoever the caller is', async (t) => {
  const clock = createManualClock();
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: LIMITED}]);
  const {client, heard} = createClient(t, upstream.url, {}, {clock});
  const first = await failureOf(client.getManifest(repository, latest, caller));
  t.like(first, {kind: 'throttled', retryAfter: HOUR});
  await clock.advance(60_000);
  const refused = [
    failureOf(client.getManifest(repository, latest, caller)),
    failureOf(client.headManifest(other, latest, {...caller, key: 'another'})),
    failureOf(client.listTags(other, caller)),
    failureOf(client.beginUpload(repository, {}, caller)),
  ];
  for (const failure of await Promise.all(refused)) {
    t.like(failure, {kind: 'throttled', retryAfter: HOUR - 60_000, message: first.message});
  }
  t.is(upstream.requests.length, 1);

  upstream.expect(FOUND);
  await clock.advance(HOUR - 60_000);
  t.truthy(await client.getManifest(repository, latest, caller));
  t.false(heard.some(({name}) => name === 'upstream.circuit'));
});

test("the failure contains the upstream's own message, and a hint to log in when there are no credentials", async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: LIMITED, times: 2}]);
  const anonymous = createClient(t, upstream.url).client;
  const known = createClient(t, upstream.url, {credentials}).client;
  const {message} = await failureOf(anonymous.getManifest(repository, latest, caller));
  t.regex(message, /limits our rate \(429: You have reached your pull rate limit\.\)/);
  t.regex(message, /set upstream\.credentials/);
  const other = await failureOf(known.getManifest(repository, latest, caller));
  t.regex(other.message, /You have reached/);
  t.notRegex(other.message, /upstream\.credentials/);
});

test('a rate limit is reported once for each time that it closes the gate', async (t) => {
  const clock = createManualClock();
  const go = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {...LIMITED, before: go.promise}, times: 3},
  ]);
  const {client, heard} = createClient(t, upstream.url, {}, {clock});
  const throttledEvents = () =>
    heard.flatMap((one) => (one.name === 'upstream.throttled' ? [one.event] : []));
  const ask = () => failureOf(client.getManifest(repository, latest, caller));
  const together = [ask(), ask(), ask()];
  await upstream.received(3);
  go.resolve();
  await Promise.all(together);
  for (let count = 0; count < 5; count++) await ask();
  t.like(throttledEvents(), {length: 1, 0: {host: upstream.host, retryAfter: HOUR}});

  upstream.expect({request: GET, answer: LIMITED});
  await clock.advance(HOUR);
  await ask();
  await ask();
  t.is(throttledEvents().length, 2);
});

test('a token service that limits the rate is not asked again either, for any scope', async (t) => {
  const clock = createManualClock();
  const token = /^GET \/token\?/;
  const upstream = await createScriptedUpstream(t, []);
  const challenge = {
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${upstream.url}/token",service="registry"`},
  };
  upstream.expect({request: GET, answer: challenge}, {request: token, answer: LIMITED});
  const {client} = createClient(t, upstream.url, {}, {clock});
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'throttled');
  t.like(await failureOf(client.getManifest(other, latest, caller)), {kind: 'throttled', retryAfter: HOUR});
  t.is(upstream.requests.length, 2);
});

test('a storage server that limits the rate closes its own gate, not that of the registry', async (t) => {
  const storage = await createScriptedUpstream(t, [{request: 'GET /blob', answer: LIMITED}]);
  const away = {status: 307, headers: {location: `${storage.url}/blob`}};
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${BLOB_PATH}`, answer: away, times: 2},
    FOUND,
  ]);
  const {client} = createClient(t, upstream.url, {}, {clock: createManualClock()});
  for (const _ of [1, 2]) {
    const failure = await failureOf(client.getBlob(repository, digest, caller));
    t.like(failure, {kind: 'throttled', host: upstream.host});
    t.regex(failure.message, new RegExp(`from ${storage.host}`));
  }
  t.truthy(await client.getManifest(repository, latest, caller));
});

test('a 429 without Retry-After closes no gate', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: {status: 429}}, FOUND]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'throttled');
  t.truthy(await client.getManifest(repository, latest, caller));
});

test('whatever its Retry-After, an upstream is asked again after six hours', async (t) => {
  const clock = createManualClock();
  const answer = {status: 429, headers: {'retry-after': '999999999'}};
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const {client} = createClient(t, upstream.url, {}, {clock});
  t.is((await failureOf(client.getManifest(repository, latest, caller))).retryAfter, 6 * HOUR);
  upstream.expect(FOUND);
  await clock.advance(6 * HOUR);
  t.truthy(await client.getManifest(repository, latest, caller));
});

test('a host to which the token service redirects closes only its own gate', async (t) => {
  const elsewhere = await createScriptedUpstream(t, [{request: /^GET \/limited/, answer: LIMITED}]);
  const upstream = await createScriptedUpstream(t, []);
  const challenge = {
    status: 401,
    headers: {'www-authenticate': `Bearer realm="${upstream.url}/token",service="registry"`},
  };
  const away = {status: 307, headers: {location: `${elsewhere.url}/limited`}};
  upstream.expect({request: GET, answer: challenge}, {request: /^GET \/token\?/, answer: away}, FOUND);
  const {client} = createClient(t, upstream.url, {}, {clock: createManualClock()});
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'throttled');
  t.truthy(await client.getManifest(repository, latest, caller));
});

test('a 429 to a HEAD, which has no body, is reported as well', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: `HEAD ${MANIFEST_PATH}`, answer: LIMITED}]);
  const {client} = createClient(t, upstream.url, {}, {clock: createManualClock()});
  const failure = await failureOf(client.headManifest(repository, latest, caller));
  t.like(failure, {kind: 'throttled', retryAfter: HOUR});
});

for (const [title, window, life] of [
  ['the window that it names', ';w=21600', 6 * HOUR],
  ['an hour, where it names no window', '', HOUR],
] as const) {
  test(`what an upstream last reported of its rate limit counts for ${title}`, async (t) => {
    const clock = createManualClock();
    const report = (remaining: number) => ({
      request: `HEAD ${MANIFEST_PATH}`,
      answer: {headers: {'ratelimit-limit': `100${window}`, 'ratelimit-remaining': `${remaining}${window}`}},
    });
    const upstream = await createScriptedUpstream(t, [report(76), report(75)]);
    const {client} = createClient(t, upstream.url, {}, {clock});
    t.is(client.quota(), undefined);
    await client.headManifest(repository, latest, caller);
    await client.headManifest(repository, latest, caller);
    t.like(client.quota(), {limit: 100, remaining: 75});
    await clock.advance(life - 1);
    t.like(client.quota(), {remaining: 75});
    await clock.advance(1);
    t.is(client.quota(), undefined);
  });
}
