import test from 'ava';
import {blobOf} from '../../../src/oci/blob.ts';
import {digestOf} from '../../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import {BREAK, createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {caller, createClient, failureOf, latest, MANIFEST_PATH, repository} from '../../support/upstream.ts';

const blob = blobOf(Buffer.from('hello'));
const HEAD = `HEAD /v2/team/app/blobs/${blob.digest}`;
const POST = 'POST /v2/team/app/blobs/uploads/';
const SENT = `digest=${encodeURIComponent(blob.digest)}`;
const credentials = {kind: 'basic', username: 'u', password: 'p'} as const;
const manifest = {mediaType: OCI_MANIFEST, bytes: Buffer.from('{}')};
const missing = {request: HEAD, answer: {status: 404}};
const session = (location: string) => ({
  request: POST,
  sends: {'content-length': '0'},
  answer: {status: 202, headers: {location}},
});
const created = {status: 201};

test('a blob that the upstream has is not sent', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {headers: {'content-length': '5'}}},
  ]);
  const {client} = createClient(t, upstream.url);
  await t.notThrowsAsync(client.pushBlob(repository, blob, caller));
});

test("a blob is sent to the session's Location, whose query is not re-encoded", async (t) => {
  const upstream = await createScriptedUpstream(t, [
    missing,
    session('/elsewhere/7?_state=a%2Fb%20c~&x'),
    {
      request: `PUT /elsewhere/7?_state=a%2Fb%20c~&x&${SENT}`,
      sends: {'content-type': 'application/octet-stream', 'content-length': '5'},
      answer: created,
    },
  ]);
  const {client} = createClient(t, upstream.url);
  await client.pushBlob(repository, blob, caller);
  t.is(String(upstream.requests.at(-1)?.body), 'hello');
});

test('an upload on another host is sent without Authorization', async (t) => {
  const storage = await createScriptedUpstream(t, [
    {request: `PUT /signed?s=1&${SENT}`, sends: {authorization: undefined}, answer: created},
  ]);
  const upstream = await createScriptedUpstream(t, [
    {request: HEAD, answer: {status: 401, headers: {'www-authenticate': 'Basic realm="r"'}}},
    {...missing, sends: {authorization: /^Basic /}},
    {request: POST, answer: {status: 401, headers: {'www-authenticate': 'Basic realm="r"'}}},
    {...session(`${storage.url}/signed?s=1`), sends: {authorization: /^Basic /}},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  await client.pushBlob(repository, blob, caller);
  t.is(String(storage.requests[0]?.body), 'hello');
});

test('a token for pushing is obtained beside the one for pulling, and cached', async (t) => {
  const challenge = (actions: string) => ({
    status: 401,
    headers: {
      'www-authenticate': `Bearer realm="${upstream.url}/token",scope="repository:team/app:${actions}"`,
    },
  });
  const token = (actions: string) => ({
    request: `GET /token?scope=${encodeURIComponent(`repository:team/app:${actions}`)}`,
    answer: {body: JSON.stringify({token: actions.replace(',', '-')})},
  });
  const upstream = await createScriptedUpstream(t);
  const push = {authorization: 'Bearer pull-push'};
  upstream.expect(
    {request: HEAD, answer: () => challenge('pull')},
    token('pull'),
    {...missing, sends: {authorization: 'Bearer pull'}},
    {request: POST, sends: {authorization: undefined}, answer: () => challenge('pull,push')},
    token('pull,push'),
    {...session('/s'), sends: push},
    {request: `PUT /s?${SENT}`, sends: push, answer: created},
    {request: `PUT ${MANIFEST_PATH}`, sends: push, answer: created},
    {request: `HEAD ${MANIFEST_PATH}`, sends: {authorization: 'Bearer pull'}},
  );
  const {client} = createClient(t, upstream.url);
  await client.pushBlob(repository, blob, caller);
  await client.putManifest(repository, latest, manifest, caller);
  await client.headManifest(repository, latest, caller);
  t.pass();
});

test('after a broken connection an upload begins a new session: bytes are not sent twice to one', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    missing,
    session('/1'),
    {request: `PUT /1?${SENT}`, answer: {before: BREAK}},
    session('/2'),
    {request: `PUT /2?${SENT}`, answer: created},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.pushBlob(repository, blob, caller);
  t.is(String(upstream.requests.at(-1)?.body), 'hello');
});

test('without a 201 to its last bytes, a blob counts as stored only when the upstream says that it has it', async (t) => {
  const there = {request: HEAD, answer: {headers: {'content-length': '5'}}};
  const upstream = await createScriptedUpstream(t, [
    ...[there, missing].flatMap((head) => [
      missing,
      session('/s'),
      {request: `PUT /s?${SENT}`, answer: {status: 200, body: '{}'}},
      head,
    ]),
  ]);
  const {client} = createClient(t, upstream.url);
  await client.pushBlob(repository, blob, caller);
  const failure = await failureOf(client.pushBlob(repository, blob, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, /accepted the bytes of sha256:.* but does not have the blob/);
});

test('a 307 is followed with the whole body, a 302 is not', async (t) => {
  const storage = await createScriptedUpstream(t, [
    {
      request: 'PUT /m',
      sends: {authorization: undefined},
      answer: {...created, headers: {'docker-content-digest': digestOf(manifest.bytes)}},
    },
  ]);
  const upstream = await createScriptedUpstream(t, [
    {request: `PUT ${MANIFEST_PATH}`, answer: {status: 307, headers: {location: `${storage.url}/m`}}},
    {request: `PUT ${MANIFEST_PATH}`, answer: {status: 302, headers: {location: `${storage.url}/m`}}},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.putManifest(repository, latest, manifest, caller);
  t.is(String(storage.requests[0]?.body), '{}');
  t.is((await failureOf(client.putManifest(repository, latest, manifest, caller))).kind, 'status');
});

test("a refusal contains the registry's own reason", async (t) => {
  const error = {errors: [{code: 'MANIFEST_BLOB_UNKNOWN', message: 'blob\nunknown'}]};
  const headers = {'content-type': 'application/json'};
  const upstream = await createScriptedUpstream(t, [
    {
      request: `PUT ${MANIFEST_PATH}`,
      sends: {'content-type': OCI_MANIFEST, 'content-length': '2'},
      answer: {status: 404, headers, body: JSON.stringify(error)},
    },
    {
      request: `PUT ${MANIFEST_PATH}`,
      answer: {status: 405, headers: {'content-type': 'text/html'}, body: '<p>no'},
    },
    {request: `PUT ${MANIFEST_PATH}`, answer: {status: 400, headers, body: '[]'}},
  ]);
  const {client} = createClient(t, upstream.url);
  const reasons = [];
  for (let index = 0; index < 3; index++) {
    reasons.push((await failureOf(client.putManifest(repository, latest, manifest, caller))).message);
  }
  t.deepEqual(reasons, [
    `${upstream.host}: refuses the manifest (404 MANIFEST_BLOB_UNKNOWN: blob unknown)`,
    `${upstream.host}: refuses the manifest (405)`,
    `${upstream.host}: refuses the manifest (400)`,
  ]);
});

test('the upload of a manifest is retried while the registry is overloaded', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `PUT ${MANIFEST_PATH}`, answer: {status: 503}},
    {request: `PUT ${MANIFEST_PATH}`, answer: created},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.putManifest(repository, latest, manifest, caller);
  t.is(String(upstream.requests[1]?.body), '{}');
});

test('an upload without a usable Location is a protocol failure', async (t) => {
  const locations = ['', 'http://', 'ftp://127.0.0.1/x'];
  const upstream = await createScriptedUpstream(
    t,
    locations.flatMap((location) => [missing, session(location)]),
  );
  const {client} = createClient(t, upstream.url);
  for (const location of locations) {
    t.is((await failureOf(client.pushBlob(repository, blob, caller))).kind, 'protocol', location);
  }
});
