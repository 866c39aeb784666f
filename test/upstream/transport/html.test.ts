import test from 'ava';
import {OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import type {UpstreamClient} from '../../../src/upstream/client.ts';
import {createScriptedUpstream, type ScriptedAnswer} from '../../support/scripted-upstream.ts';
import {
  at,
  BLOB_PATH,
  caller,
  createClient,
  digest,
  failureOf,
  latest,
  MANIFEST_PATH,
  repository,
} from '../../support/upstream.ts';

const TYPE = {'content-type': 'text/html; charset=utf-8'};
const LOGIN: ScriptedAnswer = {headers: TYPE, body: '<!doctype html><title>Log in</title>'};
const UPLOADS = '/v2/team/app/blobs/uploads/';
const manifest = {mediaType: OCI_MANIFEST, bytes: Buffer.from('{}')};

const READS: Record<string, {request: string; ask(client: UpstreamClient): Promise<unknown>}> = {
  'a manifest': {
    request: `GET ${MANIFEST_PATH}`,
    ask: (client) => client.getManifest(repository, latest, caller),
  },
  'a manifest by digest': {
    request: `GET /v2/team/app/manifests/${digest}`,
    ask: (client) => client.getManifest(repository, digest, caller),
  },
  'a HEAD of a manifest': {
    request: `HEAD ${MANIFEST_PATH}`,
    ask: (client) => client.headManifest(repository, latest, caller),
  },
  'a blob': {request: `GET ${BLOB_PATH}`, ask: (client) => client.getBlob(repository, digest, caller)},
  'a HEAD of a blob': {
    request: `HEAD ${BLOB_PATH}`,
    ask: (client) => client.headBlob(repository, digest, caller),
  },
  'a tag list': {
    request: 'GET /v2/team/app/tags/list?n=1000',
    ask: (client) => client.listTags(repository, caller),
  },
};

const PAGES: Record<string, ScriptedAnswer> = {
  'of status 200': LOGIN,
  'of status 203': {...LOGIN, status: 203},
  'of status 206': {...LOGIN, status: 206, headers: {...TYPE, 'content-range': 'bytes 0-35/36'}},
  'in XHTML': {...LOGIN, headers: {'content-type': 'Application/XHTML+xml'}},
};

for (const [what, {request, ask}] of Object.entries(READS)) {
  for (const [which, answer] of Object.entries(PAGES)) {
    test(`an HTML page ${which} is not an answer to ${what}`, async (t) => {
      const upstream = await createScriptedUpstream(t, [{request, answer, times: 4}]);
      const {client} = createClient(t, upstream.url);
      const failure = await failureOf(ask(client));
      t.is(failure.kind, 'protocol');
      t.regex(failure.message, /HTML page: a login or maintenance page/);
    });
  }
}

test('a redirect to a login page on another host is a failure that names the host', async (t) => {
  const login = await createScriptedUpstream(t, [{request: 'HEAD /login', answer: LOGIN, times: 4}]);
  const upstream = await createScriptedUpstream(t, [
    {
      request: `HEAD ${BLOB_PATH}`,
      answer: {status: 302, headers: {location: `${login.url}/login`}},
      times: 4,
    },
  ]);
  const {client} = createClient(t, upstream.url);
  const failure = await failureOf(client.headBlob(repository, digest, caller));
  t.is(failure.host, upstream.host);
  t.regex(failure.message, new RegExp(`from ${login.host}`));
});

test('an HTML page is not an answer to a write', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `PUT ${MANIFEST_PATH}`, answer: LOGIN},
    {request: `DELETE ${BLOB_PATH}`, answer: {...LOGIN, status: 202}},
    {request: /^POST /, answer: {...LOGIN, status: 201}},
  ]);
  const {client} = createClient(t, upstream.url);
  const from = {mount: {digest}};
  t.is((await failureOf(client.putManifest(repository, latest, manifest, caller))).kind, 'protocol');
  t.is((await failureOf(client.deleteBlob(repository, digest, caller))).kind, 'protocol');
  t.is((await failureOf(client.beginUpload(repository, from, caller))).kind, 'protocol');
});

test('writes to Quay, which labels its answers to /v2/ and to writes text/html, succeed', async (t) => {
  const location = `${UPLOADS}1`;
  const upstream = await createScriptedUpstream(t, [
    {request: 'GET /v2/', answer: {headers: TYPE, body: 'true'}},
    {request: `PATCH ${location}`, answer: {status: 202, headers: {...TYPE, location, range: '0-4'}}},
    {request: `POST ${UPLOADS}`, answer: {status: 202, headers: {...TYPE, location, range: '0-0'}}},
    {request: `GET ${location}`, answer: {status: 204, headers: {...TYPE, range: '0-4'}}},
    {request: `PUT ${MANIFEST_PATH}`, answer: {status: 201, headers: {...TYPE, location}, body: 'OK'}},
    {request: `DELETE ${MANIFEST_PATH}`, answer: {status: 202, headers: {...TYPE, 'content-length': '0'}}},
  ]);
  const {client} = createClient(t, upstream.url);
  const session = at(`${upstream.url}${location}`);
  const chunk = {
    length: 5,
    range: undefined,
    bytes: (async function* () {
      yield Buffer.from('bytes');
    })(),
  };
  t.like(await client.appendUpload(repository, session, chunk, caller), {offset: 5});
  t.like(await client.beginUpload(repository, {}, caller), {offset: 0});
  t.like(await client.uploadState(repository, session, caller), {offset: 5});
  await client.putManifest(repository, latest, manifest, caller);
  await client.deleteManifest(repository, latest, caller);
});
