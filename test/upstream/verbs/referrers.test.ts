import test from 'ava';
import {OCI_INDEX, OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {createManualClock} from '../../support/clock.ts';
import {BREAK, createScriptedUpstream, HANG, type ScriptedAnswer} from '../../support/scripted-upstream.ts';
import {caller, createClient, digest, failureOf, repository} from '../../support/upstream.ts';

const PATH = `/v2/team/app/referrers/${digest}`;
const GET = `GET ${PATH}`;
const credentials = {kind: 'basic', username: 'u', password: 'p'} as const;
const challenge = {status: 401, headers: {'www-authenticate': 'Basic realm="r"'}};
const HTML = {
  headers: {'content-type': 'text/html; charset=utf-8'},
  body: '<!doctype html><title>Log in</title>',
};

const descriptor = (hex: string, more: object = {}) => ({
  mediaType: OCI_MANIFEST,
  digest: `sha256:${hex.repeat(64)}`,
  size: 3,
  ...more,
});

const page = (manifests: unknown, headers: ScriptedAnswer['headers'] = {}): ScriptedAnswer => ({
  headers: {'content-type': OCI_INDEX, ...headers},
  body: JSON.stringify({schemaVersion: 2, mediaType: OCI_INDEX, manifests}),
});

test('a list keeps its order, artifact types and annotations, without embedded data', async (t) => {
  const signature = descriptor('b', {artifactType: 'application/x', annotations: {'org.example': 'v'}});
  const upstream = await createScriptedUpstream(t, [
    {
      request: GET,
      sends: {accept: OCI_INDEX},
      answer: page([{...signature, data: 'e30='}, descriptor('a', {artifactType: ''})]),
    },
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.listReferrers(repository, digest, caller), {
    descriptors: [signature, descriptor('a')] as never,
    skipped: [],
  });
});

test('an empty list is a list', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: page([])}]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.listReferrers(repository, digest, caller), {descriptors: [], skipped: []});
});

const NO_API: Record<string, ScriptedAnswer> = {
  '404': {status: 404},
  '404 with an OCI error': {
    status: 404,
    headers: {'content-type': 'application/json'},
    body: '{"errors":[{"code":"MANIFEST_UNKNOWN"}]}',
  },
  '405': {status: 405},
  'the 406 of an Artifactory with referrers disabled': {status: 406},
  'an HTML page of status 200': HTML,
  'a 200 without a content type': {body: '{"manifests":[]}'},
  'a 200 of plain JSON': page([], {'content-type': 'application/json'}),
  'an index whose type has parameters': page([], {'content-type': `${OCI_INDEX}; charset=utf-8`}),
  '204': {status: 204},
};

for (const [what, answer] of Object.entries(NO_API)) {
  test(`${what} means that there is no Referrers API`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: GET, answer, times: answer === HTML ? 4 : 1},
    ]);
    const {client} = createClient(t, upstream.url);
    t.is(await client.listReferrers(repository, digest, caller), 'no-api');
  });
}

test('a 404 with NAME_UNKNOWN is about the repository, and says nothing about the API', async (t) => {
  const answer = {
    status: 404,
    headers: {'content-type': 'application/json; charset=utf-8'},
    body: '{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}',
  };
  const upstream = await createScriptedUpstream(t, [{request: GET, answer}]);
  const {client} = createClient(t, upstream.url);
  t.is(await client.listReferrers(repository, digest, caller), 'unknown-repository');
});

test('an entry with an unsupported digest algorithm is reported as skipped, beside the others', async (t) => {
  const blake = `blake3:${'c'.repeat(64)}`;
  const manifests = [descriptor('a'), {...descriptor('c'), digest: blake}, descriptor('b')];
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: page(manifests)}]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.listReferrers(repository, digest, caller), {
    descriptors: [descriptor('a'), descriptor('b')] as never,
    skipped: [{digest: blake, reason: 'has a digest algorithm that is not supported'}],
  });
});

const UNDECIDED: Record<string, {answer: ScriptedAnswer; kind: string}> = {
  '403': {answer: {status: 403}, kind: 'denied'},
  '429': {answer: {status: 429, headers: {'retry-after': '60'}}, kind: 'throttled'},
  '400': {answer: {status: 400}, kind: 'status'},
  '500': {answer: {status: 500}, kind: 'status'},
  'an index that is not JSON': {
    answer: {headers: {'content-type': OCI_INDEX}, body: '<html>'},
    kind: 'protocol',
  },
  'an index without manifests': {
    answer: {headers: {'content-type': OCI_INDEX}, body: '{}'},
    kind: 'protocol',
  },
  'an index of null': {answer: page(null), kind: 'protocol'},
  'an index whose body has another media type': {
    answer: {headers: {'content-type': OCI_INDEX}, body: `{"mediaType":"${OCI_MANIFEST}","manifests":[]}`},
    kind: 'protocol',
  },
  'a list with an entry that is not a descriptor': {answer: page([{digest: 'sha256:0'}]), kind: 'protocol'},
  'a broken body': {
    answer: {headers: {'content-type': OCI_INDEX, 'content-length': '900'}, body: ['{"manifests":[', BREAK]},
    kind: 'unreachable',
  },
};

for (const [what, {answer, kind}] of Object.entries(UNDECIDED)) {
  test(`${what} leaves it open whether there is a Referrers API`, async (t) => {
    const upstream = await createScriptedUpstream(t, [{request: GET, answer, always: true}]);
    const {client} = createClient(t, upstream.url);
    t.is((await failureOf(client.listReferrers(repository, digest, caller))).kind, kind as never);
  });
}

test('a 401 despite credentials leaves it open whether there is a Referrers API', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: challenge}]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.listReferrers(repository, digest, caller))).kind, 'denied');
});

test('a timeout leaves it open whether there is a Referrers API', async (t) => {
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: {before: HANG}}]);
  const clock = createManualClock();
  const {client} = createClient(t, upstream.url, {}, {clock});
  const failure = failureOf(client.listReferrers(repository, digest, caller));
  await upstream.received(1);
  await clock.advance(5000);
  t.is((await failure).kind, 'timeout');
});

test("GHCR's 303 to another host is followed without Authorization, and the 404 or 429 there is judged", async (t) => {
  const elsewhere = await createScriptedUpstream(t, [
    {
      request: 'GET /docs?x=1',
      sends: {authorization: undefined},
      answer: {status: 404, headers: {'content-type': 'text/plain'}, body: '404 page not found'},
    },
    {
      request: 'GET /docs?x=1',
      sends: {authorization: undefined},
      answer: {status: 429, headers: {'content-type': 'text/plain'}},
    },
  ]);
  const away = {status: 303, headers: {location: `${elsewhere.url}/docs?x=1`}};
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: challenge},
    {request: GET, sends: {authorization: /^Basic /}, answer: away},
    {request: GET, sends: {authorization: /^Basic /}, answer: away},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.is(await client.listReferrers(repository, digest, caller), 'no-api');
  const failure = await failureOf(client.listReferrers(repository, digest, caller));
  t.is(failure.kind, 'throttled');
  t.regex(failure.message, new RegExp(`from ${elsewhere.host}`));
});

test('a redirect to a login page means that there is no Referrers API', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {status: 302, headers: {location: '/login?next=referrers'}}, always: true},
    {request: 'GET /login?next=referrers', answer: HTML, times: 4},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is(await client.listReferrers(repository, digest, caller), 'no-api');
});

test("registry.k8s.io's 307 is followed to the list, whose further pages are on the host that answered", async (t) => {
  const backend = await createScriptedUpstream(t, [
    {
      request: GET,
      sends: {authorization: undefined},
      answer: page([descriptor('a')], {link: `<${PATH}?next=2>; rel="next"`}),
    },
    {request: `${GET}?next=2`, sends: {authorization: undefined}, answer: page([descriptor('b')])},
  ]);
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: {status: 307, headers: {location: `${backend.url}${PATH}`}}},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.deepEqual(await client.listReferrers(repository, digest, caller), {
    descriptors: [descriptor('a'), descriptor('b')] as never,
    skipped: [],
  });
});

test('a list of over 4 MiB is read completely', async (t) => {
  const annotations = {note: 'x'.repeat(1000)};
  const manifests = Array.from({length: 5000}, (_, index) => ({
    ...descriptor('0', {annotations}),
    digest: `sha256:${index.toString(16).padStart(64, '0')}`,
  }));
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: page(manifests)}]);
  const {client} = createClient(t, upstream.url);
  t.like(await client.listReferrers(repository, digest, caller), {
    descriptors: {length: manifests.length} as never,
  });
});

test('a link to another host is not followed', async (t) => {
  const elsewhere = await createScriptedUpstream(t);
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: page([descriptor('a')], {link: `<${elsewhere.url}${PATH}?n=2>; rel="next"`})},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.listReferrers(repository, digest, caller))).kind, 'protocol');
});

test('a page that links to itself is a failure', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: page([descriptor('a')], {link: `<${PATH}>; rel="next"`})},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await failureOf(client.listReferrers(repository, digest, caller))).kind, 'protocol');
});

const BROKEN: Record<string, ScriptedAnswer> = {
  '404': {status: 404},
  '405': {status: 405},
  '500': {status: 500},
  HTML,
};

for (const [what, answer] of Object.entries(BROKEN)) {
  test(`a second page that is ${what} makes the whole list a failure`, async (t) => {
    const upstream = await createScriptedUpstream(t, [
      {request: GET, answer: page([descriptor('a')], {link: '<?page=2>; rel=next'})},
      {request: `${GET}?page=2`, answer, always: true},
    ]);
    const {client} = createClient(t, upstream.url);
    await failureOf(client.listReferrers(repository, digest, caller));
    t.pass();
  });
}
