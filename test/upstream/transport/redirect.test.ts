import test from 'ava';
import {AUTHORITY, SERVER_TLS} from '../../support/certificates.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {
  BLOB_PATH,
  bytesOf,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  repository,
} from '../../support/upstream.ts';

const credentials = {kind: 'basic', username: 'u', password: 'p'} as const;
const challenge = {status: 401, headers: {'www-authenticate': 'Basic realm="r"'}};
const GET = `GET ${BLOB_PATH}`;
const to = (location: string, status = 307) => ({status, headers: {location}});

for (const status of [301, 302, 303, 307, 308]) {
  test(`a ${status} is followed, with the range and without Authorization`, async (t) => {
    const range = 'bytes=1-';
    const cdn = await createScriptedUpstream(t, [
      {
        request: 'GET /signed?x=1',
        sends: {authorization: undefined, range},
        answer: {status: 206, headers: {'content-range': 'bytes 1-2/3'}, body: 'bc'},
      },
    ]);
    const upstream = await createScriptedUpstream(t, [
      {request: GET, answer: challenge},
      {request: GET, sends: {authorization: /^Basic /, range}, answer: to(`${cdn.url}/signed?x=1`, status)},
    ]);
    const {client} = createClient(t, upstream.url, {credentials});
    const blob = await client.getBlob(repository, digest, caller, {start: 1});
    t.is(String(await bytesOf(blob)), 'bc');
  });
}

test('Authorization stays on the same origin, and does not return after having left it', async (t) => {
  const elsewhere = await createScriptedUpstream(t);
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: challenge},
    {request: GET, sends: {authorization: /^Basic /}, answer: to('/second')},
    {
      request: 'GET /second',
      sends: {authorization: /^Basic /},
      answer: to(`http://localhost:${elsewhere.port}/third`),
    },
    {request: 'GET /fourth', sends: {authorization: undefined}, answer: {body: 'x'}},
  ]);
  elsewhere.expect({
    request: 'GET /third',
    sends: {authorization: undefined},
    answer: to(`${upstream.url}/fourth`),
  });
  const {client} = createClient(t, upstream.url, {credentials});
  t.is(String(await bytesOf(await client.getBlob(repository, digest, caller))), 'x');
});

test('the same host with another name or port is another origin', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: challenge},
    {
      request: GET,
      sends: {authorization: /^Basic /},
      answer: () => to(`http://localhost:${upstream.port}/other`),
    },
    {request: 'GET /other', sends: {authorization: undefined}, answer: {body: 'x'}},
  ]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.is(String(await bytesOf(await client.getBlob(repository, digest, caller))), 'x');
});

test('a challenge from another host is a denial: it never gets a login', async (t) => {
  const elsewhere = await createScriptedUpstream(t, [
    {request: 'GET /x', sends: {authorization: undefined}, answer: challenge},
  ]);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: to(`${elsewhere.url}/x`)}]);
  const {client} = createClient(t, upstream.url, {credentials});
  t.is((await failureOf(client.getBlob(repository, digest, caller))).kind, 'denied');
});

test('five redirects are followed, the sixth is not', async (t) => {
  const hops = [0, 1, 2, 3, 4].map((hop) => ({
    request: hop === 0 ? GET : `GET /${hop}`,
    answer: to(`/${hop + 1}`),
  }));
  const upstream = await createScriptedUpstream(t, [
    ...hops,
    {request: 'GET /5', answer: {body: 'x'}},
    ...hops,
    {request: 'GET /5', answer: to('/6')},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is(String(await bytesOf(await client.getBlob(repository, digest, caller))), 'x');
  t.is((await failureOf(client.getBlob(repository, digest, caller))).kind, 'protocol');
});

test('a redirect from https to http is refused', async (t) => {
  const plain = await createScriptedUpstream(t);
  const upstream = await createScriptedUpstream(t, [{request: GET, answer: to(`${plain.url}/x`)}], {
    tls: SERVER_TLS,
  });
  const {client} = createClient(t, upstream.url, {ca: [AUTHORITY], insecure: true});
  const failure = await failureOf(client.getBlob(repository, digest, caller));
  t.is(failure.kind, 'protocol');
  t.regex(failure.message, /https to http/);
});

test('a redirect to another protocol or to an invalid URL is refused', async (t) => {
  const locations = ['ftp://127.0.0.1/x', 'file:///etc/passwd', 'http://'];
  const upstream = await createScriptedUpstream(
    t,
    locations.map((location) => ({request: GET, answer: to(location)})),
  );
  const {client} = createClient(t, upstream.url);
  for (const location of locations) {
    t.is((await failureOf(client.getBlob(repository, digest, caller))).kind, 'protocol', location);
  }
});

test('a HEAD stays a HEAD, and the digest is that of the last reply', async (t) => {
  const headers = {'docker-content-digest': digest, 'content-length': '5'};
  const upstream = await createScriptedUpstream(t, [
    {request: 'HEAD /v2/team/app/manifests/latest', answer: to('/moved', 303)},
    {request: 'HEAD /moved', answer: {headers}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.like(await client.headManifest(repository, latest, caller), {digest, size: 5});
});

test('the query of a redirect, which may be a signature, appears in no event and no error', async (t) => {
  const cdn = await createScriptedUpstream(t, [{request: 'GET /s?Signature=hush', answer: {status: 403}}]);
  const upstream = await createScriptedUpstream(t, [
    {request: GET, answer: to(`${cdn.url}/s?Signature=hush`)},
  ]);
  const {client, heard} = createClient(t, upstream.url);
  const failure = await failureOf(client.getBlob(repository, digest, caller));
  t.false(JSON.stringify([heard, failure.message]).includes('hush'));
});
