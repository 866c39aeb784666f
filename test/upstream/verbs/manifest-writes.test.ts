import test from 'ava';
import {digestOf} from '../../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../../src/oci/media-type.ts';
import type {Tag} from '../../../src/oci/name.ts';
import {UpstreamRefusal} from '../../../src/upstream/port.ts';
import {createScriptedUpstream} from '../../support/scripted-upstream.ts';
import {
  caller,
  createClient,
  failureOf,
  latest,
  MANIFEST_PATH,
  MANIFEST_TEXT,
  digest as OTHER,
  repository,
} from '../../support/upstream.ts';

const manifest = {mediaType: OCI_MANIFEST, bytes: Buffer.from('{}')};
const tags = ['1', '1.2', 'v_3'] as Tag[];

test("a manifest is uploaded with further tags, and the upstream's digest and tags are returned", async (t) => {
  const digest = digestOf(manifest.bytes);
  const upstream = await createScriptedUpstream(t, [
    {
      request: `PUT ${MANIFEST_PATH}?tag=1&tag=1.2&tag=v_3`,
      sends: {'content-type': OCI_MANIFEST},
      answer: {
        status: 201,
        headers: {'docker-content-digest': digest, 'oci-tag': '1, 1.2,not/one,1'},
      },
    },
    {
      request: `PUT ${MANIFEST_PATH}?tag=1&tag=1.2&tag=v_3`,
      answer: {status: 201, headers: {'oci-tag': ['v_3', '1']}},
    },
    {request: `PUT ${MANIFEST_PATH}`, answer: {status: 201}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.deepEqual(await client.putManifest(repository, latest, {...manifest, tags}, caller), {
    digest,
    tags: ['1', '1.2'] as Tag[],
  });
  t.deepEqual(await client.putManifest(repository, latest, {...manifest, tags}, caller), {
    digest,
    tags: ['v_3', '1'] as Tag[],
  });
  t.deepEqual(await client.putManifest(repository, latest, manifest, caller), {
    digest,
    tags: [],
  });
});

test('a tag and a manifest are deleted, and a refusal is passed on', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `DELETE ${MANIFEST_PATH}`, answer: {status: 202}},
    {request: `DELETE /v2/team/app/manifests/${OTHER}`, answer: {status: 404}},
    {request: `DELETE ${MANIFEST_PATH}`, answer: {status: 405}},
  ]);
  const {client} = createClient(t, upstream.url);
  await client.deleteManifest(repository, latest, caller);
  const refusals = [
    await failureOf(client.deleteManifest(repository, OTHER, caller)),
    await failureOf(client.deleteManifest(repository, latest, caller)),
  ];
  t.deepEqual(
    refusals.map((refusal) => refusal instanceof UpstreamRefusal && refusal.status),
    [404, 405],
  );
});

test('a token for deleting is obtained beside the one for pushing', async (t) => {
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
  const put = `PUT ${MANIFEST_PATH}`;
  const remove = `DELETE ${MANIFEST_PATH}`;
  upstream.expect(
    {request: put, answer: () => challenge('pull,push')},
    token('pull,push'),
    {request: put, sends: {authorization: 'Bearer pull-push'}, answer: {status: 201}},
    {request: remove, sends: {authorization: undefined}, answer: () => challenge('delete')},
    token('delete'),
    {request: remove, sends: {authorization: 'Bearer delete'}, answer: {status: 202}},
    {request: put, sends: {authorization: 'Bearer pull-push'}, answer: {status: 201}},
  );
  const {client} = createClient(t, upstream.url);
  await client.putManifest(repository, latest, manifest, caller);
  await client.deleteManifest(repository, latest, caller);
  await client.putManifest(repository, latest, manifest, caller);
  t.pass();
});

test('a refusal is reported as upstream.refused, not as upstream.failed', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `PUT ${MANIFEST_PATH}`, answer: {status: 400}},
  ]);
  const {client, heard} = createClient(t, upstream.url);
  const {message: reason} = await failureOf(client.putManifest(repository, latest, manifest, caller));
  t.deepEqual(heard.slice(1), [{name: 'upstream.refused', event: {host: upstream.host, reason}}]);
});

test('a manifest can be uploaded on the condition that it replaces the one that was read', async (t) => {
  const etags = ['"a"', 'W/"a"', 'a', undefined];
  const upstream = await createScriptedUpstream(t, [
    ...etags.map((etag) => ({
      request: `GET ${MANIFEST_PATH}`,
      answer: {headers: etag === undefined ? {} : {ETag: etag}, body: MANIFEST_TEXT},
    })),
    {request: `PUT ${MANIFEST_PATH}`, sends: {'if-match': '"a"'}, answer: {status: 201}},
    {request: `PUT ${MANIFEST_PATH}`, sends: {'if-match': undefined}, answer: {status: 201}},
  ]);
  const {client} = createClient(t, upstream.url);
  const given = [];
  for (const _ of etags) given.push((await client.getManifest(repository, latest, caller))?.etag);
  t.deepEqual(given, ['"a"', undefined, undefined, undefined]);
  await client.putManifest(repository, latest, {...manifest, ifMatch: given[0]}, caller);
  await client.putManifest(repository, latest, manifest, caller);
});

test("the ETag of a storage server behind the registry is not the registry's", async (t) => {
  const storage = await createScriptedUpstream(t, [
    {request: 'GET /signed', answer: {headers: {ETag: '"md5"'}, body: MANIFEST_TEXT}},
  ]);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET ${MANIFEST_PATH}`, answer: {status: 307, headers: {Location: `${storage.url}/signed`}}},
  ]);
  const {client} = createClient(t, upstream.url);
  t.is((await client.getManifest(repository, latest, caller))?.etag, undefined);
});

const NONE = {'docker-content-digest': 'none'};

for (const [what, answer] of [
  ['a 200', {status: 200, body: '{}'}],
  ['a 201 without a digest', {status: 201, headers: NONE}],
  ['a 201 with the digest of other bytes', {status: 201, headers: {'docker-content-digest': OTHER}}],
  ['a 202', {status: 202, headers: {'docker-content-digest': digestOf(manifest.bytes)}}],
] as const) {
  const put = {
    request: `PUT ${MANIFEST_PATH}?tag=1`,
    answer: {...answer, headers: {'oci-tag': '1', ...answer.headers}},
  };

  test(`a manifest whose PUT is answered by ${what} is read back`, async (t) => {
    const stored = {...manifest, bytes: Buffer.from(MANIFEST_TEXT)};
    const upstream = await createScriptedUpstream(t, [
      put,
      {request: `GET ${MANIFEST_PATH}`, sends: {'cache-control': 'no-cache'}, answer: {body: MANIFEST_TEXT}},
    ]);
    const {client} = createClient(t, upstream.url);
    const taken = await client.putManifest(repository, latest, {...stored, tags: ['1'] as Tag[]}, caller);
    t.deepEqual(taken, {digest: undefined, tags: []});
  });

  for (const [there, reply, reason] of [
    ['absent', {status: 404}, /does not have it/],
    ['another one', {body: '{"schemaVersion":2,"layers":[]}'}, /has another manifest there/],
  ] as const) {
    test(`the upload has failed when it is ${there} after ${what}`, async (t) => {
      const upstream = await createScriptedUpstream(t, [
        put,
        {request: `GET ${MANIFEST_PATH}`, answer: reply},
      ]);
      const {client} = createClient(t, upstream.url);
      const putting = client.putManifest(repository, latest, {...manifest, tags: ['1'] as Tag[]}, caller);
      const failure = await failureOf(putting);
      t.is(failure.kind, 'protocol');
      t.regex(failure.message, reason);
    });
  }
}
