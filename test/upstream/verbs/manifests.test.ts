import test from 'ava';
import packageJson from '../../../package.json' with {type: 'json'};
import {ANONYMOUS} from '../../../src/caller.ts';
import {DOCKER_MANIFEST, MANIFEST_ACCEPT, OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {USER_AGENT} from '../../../src/upstream/transport/request.ts';
import {contentOf, plainManifest} from '../../support/content.ts';
import {BREAK, createScriptedUpstream, type ScriptedAnswer} from '../../support/scripted-upstream.ts';
import {
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  MANIFEST_PATH,
  MANIFEST_TEXT,
  repository,
} from '../../support/upstream.ts';

const SENT = {
  accept: MANIFEST_ACCEPT,
  'accept-encoding': 'identity',
  'user-agent': USER_AGENT,
  authorization: undefined,
  via: '1.1 backref-test',
};

test('a manifest has its bytes, claimed digest and bare media type', async (t) => {
  const {bytes, digest} = contentOf(Buffer.from(MANIFEST_TEXT));
  const headers = {'content-type': `${OCI_MANIFEST}; charset=utf-8`, 'docker-content-digest': digest};
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, sends: SENT, answer: {headers, body: bytes}},
  ]);
  const {client} = createClient(t, upstream.url);
  const manifest = await client.getManifest(repository, latest, caller);
  t.deepEqual(manifest, {bytes, digest, mediaType: OCI_MANIFEST});
});

test('a HEAD accepts the same types and returns digest, type and size', async (t) => {
  const headers = {'content-type': OCI_MANIFEST, 'docker-content-digest': digest};
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${MANIFEST_PATH}`, sends: SENT, answer: {headers, body: '{"a": 1}'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.headManifest(repository, latest, caller), {
    digest,
    mediaType: OCI_MANIFEST,
    size: 8,
  });
});

test("the version in the User-Agent is the package's", (t) => {
  t.is(USER_AGENT, `backref/${packageJson.version}`);
});

test('a missing digest, or one of an unknown algorithm, is ignored', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${MANIFEST_PATH}`, answer: {headers: {'content-type': DOCKER_MANIFEST}}},
    {request: `HEAD ${MANIFEST_PATH}`, answer: {headers: {'docker-content-digest': 'md5:0123'}}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.like(await client.headManifest(repository, latest, caller), {
    digest: undefined,
    mediaType: DOCKER_MANIFEST,
  });
  t.like(await client.headManifest(repository, latest, caller), {digest: undefined, mediaType: undefined});
});

for (const status of [405, 501]) {
  test(`an upstream that answers HEAD with ${status} is asked by GET`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: `HEAD ${MANIFEST_PATH}`, answer: {status}},
      {
        request: `GET ${MANIFEST_PATH}`,
        sends: SENT,
        answer: {headers: {'content-type': OCI_MANIFEST}, body: MANIFEST_TEXT},
      },
    ]);
    const {client} = createClient(t, upstream.url);
    const head = await client.headManifest(repository, latest, caller);
    t.deepEqual(head, {digest: undefined, mediaType: OCI_MANIFEST, size: MANIFEST_TEXT.length});
  });
}

test('404 means that it does not exist', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `HEAD ${MANIFEST_PATH}`, answer: {status: 404}},
    {request: `GET ${MANIFEST_PATH}`, answer: {status: 404, body: '{"errors":[]}'}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is(await client.headManifest(repository, latest, caller), undefined);
  t.is(await client.getManifest(repository, latest, caller), undefined);
});

test('an encoded answer is a protocol failure', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, answer: {headers: {'content-encoding': 'gzip'}, body: 'zzz'}},
    {
      request: `GET ${MANIFEST_PATH}`,
      answer: {headers: {'content-encoding': 'identity'}, body: MANIFEST_TEXT},
    },
  ]);
  const {client} = createClient(t, upstream.url);
  const failure = await failureOf(client.getManifest(repository, latest, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, /Content-Encoding gzip/);
  t.deepEqual((await client.getManifest(repository, latest, caller))?.bytes, Buffer.from(MANIFEST_TEXT));
});

test('a manifest above 16 MiB is a protocol failure', async (t) => {
  const parts = Array.from({length: 17}, () => Buffer.alloc(1024 * 1024));
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, answer: {body: parts}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'protocol');
});

test('a manifest whose connection breaks is a failure, never a partial manifest', async (t) => {
  const answer = {headers: {'content-length': '10'}, body: ['12345', BREAK] as const};
  const upstream = await createScriptedUpstream(t, [{request: `GET ${MANIFEST_PATH}`, answer, times: 4}]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'unreachable');
});

test('the Via entries of the request are forwarded, with our own after them', async (t) => {
  const via = '1.1 edge, 1.0 fred (old), 1.1 backref-test';
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, sends: {via}, answer: {body: MANIFEST_TEXT}},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.getManifest(repository, latest, {...ANONYMOUS, key: 'k', via: ['1.1 edge', '1.0 fred (old)']});
  t.pass();
});

test('508 is a loop', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, answer: {status: 508}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'loop');
});

test('403 is a denial, other statuses are status failures', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, answer: {status: 403}},
    {request: `GET ${MANIFEST_PATH}`, answer: {status: 500}, times: 4},
    {request: `GET ${MANIFEST_PATH}`, answer: {status: 418}},
  ]);
  const {client, heard} = createClient(t, upstream.url);
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'denied');
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'status');
  const failure = await failureOf(client.getManifest(repository, latest, caller));
  t.is(failure.kind, 'status');
  t.is(failure.host, upstream.host);
  t.deepEqual(heard.at(-1), {
    name: 'upstream.failed',
    event: {host: upstream.host, kind: 'status', reason: failure.message},
  });
});

test('an upstream URL with a path is used with it', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /mirror${MANIFEST_PATH}`, answer: {body: MANIFEST_TEXT}},
  ]);
  const {client} = createClient(t, `${upstream.url}/mirror/`);
  t.truthy(await client.getManifest(repository, latest, caller));
});

test('each exchange and the rate limit are reported as events', async (t) => {
  const headers = {'ratelimit-limit': '100;w=21600', 'ratelimit-remaining': '76;w=21600'};
  const upstream = await createScriptedUpstream(t, [{request: `HEAD ${MANIFEST_PATH}`, answer: {headers}}]);
  const {client, heard} = createClient(t, upstream.url);
  await client.headManifest(repository, latest, caller);
  const {host} = upstream;
  const quota = {limit: 100, remaining: 76, window: 21_600_000};
  t.like(heard[0], {
    name: 'upstream.request',
    event: {host, method: 'HEAD', path: MANIFEST_PATH, status: 200},
  });
  t.deepEqual(heard[1], {name: 'upstream.quota', event: {host, ...quota}});
});

for (const [what, body] of [
  ['text', 'Down for maintenance'],
  ['HTML that is called JSON', '<html></html>'],
  ['nothing', ''],
  ['half a manifest', '{"schemaVersion":2,"layers":['],
  ['an array', '[]'],
  ['null', 'null'],
  ['an error in JSON', '{"errors":[{"code":"UNAVAILABLE"}]}'],
] as const) {
  test(`by tag, ${what} is a protocol failure`, async (t) => {
    const headers = {'content-type': 'application/json'};
    const upstream = await createScriptedUpstream(t, [
      {request: `GET ${MANIFEST_PATH}`, answer: {headers, body}, times: 4},
    ]);
    const {client} = createClient(t, upstream.url);
    const failure = await failureOf(client.getManifest(repository, latest, caller));
    t.is(failure.kind, 'protocol');
    t.regex(
      failure.message,
      /the tag latest with \d+ bytes of type application\/json that are not a manifest/,
    );
  });
}

for (const body of [
  '{"schemaVersion":1,"fsLayers":[]}',
  `{"mediaType":"application/vnd.oci.artifact.manifest.v1+json"}`,
  '{"manifests":[]}',
  '{"layers":[]}',
  '{"blobs":[]}',
]) {
  test(`by tag, ${body} is accepted as a manifest`, async (t) => {
    const upstream = await createScriptedUpstream(t, [{request: `GET ${MANIFEST_PATH}`, answer: {body}}]);
    const {client} = createClient(t, upstream.url);
    t.is(String((await client.getManifest(repository, latest, caller))?.bytes), body);
  });
}

test('by tag, bytes that do not match the digest that the upstream names are a protocol failure', async (t) => {
  const manifest = plainManifest();
  const flipped = Buffer.from(String(manifest.bytes).replace('nonce', 'nonse'));
  const headers = {'docker-content-digest': manifest.digest};
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, answer: {headers, body: flipped}, times: 4},
  ]);
  const {client} = createClient(t, upstream.url);
  const failure = await failureOf(client.getManifest(repository, latest, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, new RegExp(`named ${manifest.digest}`));
});

for (const [what, spoiled] of Object.entries({
  'half a body': {headers: {'content-length': '18'}, body: [MANIFEST_TEXT.slice(0, 9), BREAK]},
  'an HTML page': {headers: {'content-type': 'text/html'}, body: '<html>'},
  'other bytes': {body: '{"schemaVersion":1}'},
} as Record<string, ScriptedAnswer>)) {
  test(`a manifest is asked for again after ${what}`, async (t) => {
    const {digest} = contentOf(Buffer.from(MANIFEST_TEXT));
    const request = `GET /v2/team/app/manifests/${digest}`;
    const upstream = await createScriptedUpstream(t, [
      {request, answer: spoiled, times: 3},
      {request, answer: {body: MANIFEST_TEXT}},
    ]);
    const {client, heard} = createClient(t, upstream.url);
    t.is(String((await client.getManifest(repository, digest, caller))?.bytes), MANIFEST_TEXT);
    t.false(heard.some(({name}) => name === 'upstream.failed'));
  });
}

test('spoiled answers and statuses count together: there are four attempts in all', async (t) => {
  const request = `GET ${MANIFEST_PATH}`;
  const upstream = await createScriptedUpstream(t, [
    {request, answer: {status: 503}, times: 2},
    {request, answer: {body: '{'}},
    {request, answer: {status: 503}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.getManifest(repository, latest, caller))).kind, 'status');
});
