import test, {type ExecutionContext} from 'ava';
import type {Identity} from '../../src/identity/authenticator.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {fallbackTag} from '../../src/oci/referrers.ts';
import type {AccessSettings} from '../../src/registry/access-policy.ts';
import {
  type Content,
  contentOf,
  type ManifestContent,
  plainManifest,
  randomBlob,
} from '../support/content.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';
import {type RuledRequest, type RuledServer, startRuledServer} from './ruled-server.ts';
import {errorOf} from './spec-codes.ts';

const ROOT: Identity = {names: ['user:root']};
const SIGNER: Identity = {names: ['user:signer']};
const RELEASER: Identity = {names: ['user:releaser']};
const READER: Identity = {names: ['user:reader']};

const ACCESS: Partial<AccessSettings> = {
  rules: [
    {who: ['user:root'], where: ['**'], may: ['pull', 'push', 'delete']},
    {who: ['user:signer'], where: ['*/app'], may: ['pull', 'attach']},
    {who: ['user:releaser'], where: ['*/app:v*'], may: ['pull', 'push']},
    {who: ['user:reader'], where: ['*/app:v*'], may: ['pull']},
  ],
};

const image = plainManifest();
const EMPTY = contentOf(Buffer.from('{}'));

/** An attachment that nothing else equals. */
function attachment(subject: ManifestContent): ManifestContent {
  const config = {mediaType: 'application/vnd.oci.empty.v1+json', digest: EMPTY.digest, size: 2};
  const body = {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: 'application/x',
    config,
    layers: [],
    subject: {mediaType: subject.mediaType, digest: subject.digest, size: subject.bytes.length},
    annotations: {nonce: randomBlob(8).digest},
  };
  return {...contentOf(Buffer.from(JSON.stringify(body))), mediaType: OCI_MANIFEST};
}

const put = (
  {bytes, mediaType, digest}: ManifestContent,
  reference: string = digest,
  query = '',
): RuledRequest => ({
  method: 'PUT',
  path: `/v2/app/manifests/${reference}${query}`,
  headers: {'content-type': mediaType},
  body: bytes,
});

const post = ({bytes, digest}: Content): RuledRequest => ({
  method: 'POST',
  path: `/v2/app/blobs/uploads/?digest=${digest}`,
  body: bytes,
});

/** A hosted registry with an image at the tag `v1`, and with the blob of attachments. */
async function startHosted(t: ExecutionContext, access = ACCESS): Promise<RuledServer> {
  const server = await startRuledServer(t, {access, registries: [{library: false}]});
  for (const request of [post(EMPTY), put(image, 'v1'), put(image, 'main')])
    t.is((await server.send(ROOT, request)).status, 201);
  return server;
}

test('who may only attach pushes blobs, and manifests with a subject by digest or by its fallback tag', async (t) => {
  const {send} = await startHosted(t);
  t.is((await send(SIGNER, post(randomBlob(100)))).status, 201);
  const signature = attachment(image);
  const got = await send(SIGNER, put(signature));
  t.is(got.status, 201);
  t.is(got.headers['oci-subject'], image.digest);
  t.is((await send(SIGNER, put(attachment(image), fallbackTag(image.digest)))).status, 201);
  t.is((await send(SIGNER, put(attachment(image), `${fallbackTag(image.digest)}.sig`))).status, 201);
  t.is((await send(SIGNER, {method: 'DELETE', path: `/v2/app/manifests/${signature.digest}`})).status, 403);
});

const other = plainManifest();
const fallbackIndex: ManifestContent = {
  ...contentOf(Buffer.from(JSON.stringify({schemaVersion: 2, mediaType: OCI_INDEX, manifests: []}))),
  mediaType: OCI_INDEX,
};

const refused: [title: string, request: RuledRequest][] = [
  ['an image by tag', put(other, 'v2')],
  ['an image by digest', put(other)],
  ['an image over a tag', put(other, 'v1')],
  ['an attachment by a tag of its own', put(attachment(image), 'v2')],
  ["an attachment by another image's fallback tag", put(attachment(image), fallbackTag(other.digest))],
  ['an attachment by digest and a further tag', put(attachment(image), undefined, '?tag=v1')],
  ['an index at a fallback tag', put(fallbackIndex, fallbackTag(image.digest))],
];

for (const [title, request] of refused)
  test(`who may only attach does not push ${title}, and nothing of it is kept`, async (t) => {
    const {send} = await startHosted(t);
    const got = await send(SIGNER, request);
    t.is(got.status, 403);
    const {code, message} = errorOf(got);
    t.is(code, 'DENIED');
    t.regex(message, /^rule 2 of access\.rules .* does not allow user:signer to push docker\.io\/app/);
    t.regex(
      message,
      /only manifests with a subject are accepted, pushed by digest or by a tag that belongs to the subject/,
    );
    t.is((await send(ROOT, {path: '/v2/app/manifests/v2'})).status, 404);
    t.is((await send(ROOT, {path: '/v2/app/manifests/v1'})).headers['docker-content-digest'], image.digest);
    const referrers = await send(ROOT, {path: `/v2/app/referrers/${image.digest}`});
    t.deepEqual(JSON.parse(referrers.body.toString()).manifests, []);
  });

test('who may push some tags sets no other one, as a further tag neither', async (t) => {
  const {send} = await startHosted(t);
  t.is((await send(RELEASER, post(randomBlob(100)))).status, 201);
  t.is((await send(RELEASER, put(other, 'v2'))).status, 201);
  t.is((await send(RELEASER, put(other, 'main'))).status, 403);
  const further = await send(RELEASER, put(other, 'v2', '?tag=v3&tag=main'));
  t.is(further.status, 403);
  t.regex(
    errorOf(further).message,
    /no rule of access\.rules allows user:releaser to push docker\.io\/app:main/,
  );
  t.is((await send(ROOT, {path: '/v2/app/manifests/v3'})).status, 404);
  t.is((await send(RELEASER, put(other, 'v2', '?tag=v3'))).status, 201);
});

test('a list of tags shows only those that the caller may pull, in full pages', async (t) => {
  const {send} = await startHosted(t);
  for (const tag of ['a1', 'v2', 'v3', 'w1']) t.is((await send(ROOT, put(image, tag))).status, 201);
  const tagsAt = async (path: string) => {
    const {body, headers} = await send(READER, {path});
    return [...JSON.parse(body.toString()).tags, headers['link'] ?? 'the end'];
  };
  t.deepEqual(await tagsAt('/v2/app/tags/list'), ['v1', 'v2', 'v3', 'the end']);
  t.deepEqual(await tagsAt('/v2/app/tags/list?n=2'), [
    'v1',
    'v2',
    '</v2/app/tags/list?n=2&last=v2>; rel="next"',
  ]);
  t.deepEqual(await tagsAt('/v2/app/tags/list?n=2&last=v2'), ['v3', 'the end']);
  t.deepEqual(await tagsAt('/v2/app/tags/list?last=main'), ['v1', 'v2', 'v3', 'the end']);
  t.is((await send(READER, {path: '/v2/app/manifests/v1'})).status, 200);
  t.is((await send(READER, {path: '/v2/app/manifests/main'})).status, 403);
  t.is((await send(READER, {path: `/v2/app/manifests/${image.digest}`})).status, 200);
});

test("of an upstream's tags, only those that the caller may pull are listed", async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {
      request: /^GET \/v2\/app\/tags\/list/,
      answer: {headers: {'Content-Type': 'application/json'}, body: '{"tags":["main","v2","v1"]}'},
    },
  ]);
  const {send} = await startRuledServer(t, {
    access: ACCESS,
    registries: [{url: upstream.url, library: false}],
  });
  const tags = async (identity: Identity) =>
    JSON.parse((await send(identity, {path: '/v2/app/tags/list'})).body.toString()).tags;
  t.deepEqual(await tags(READER), ['v1', 'v2']);
  t.deepEqual(await tags(ROOT), ['main', 'v1', 'v2']);
});

/** An upstream that pushes are written to. */
async function startThrough(
  t: ExecutionContext,
  ...script: Parameters<typeof createScriptedUpstream>[1] & {}
) {
  const upstream = await createScriptedUpstream(t, script);
  const registries = [{url: upstream.url, library: false, push: 'through' as const}];
  return {upstream, ...(await startRuledServer(t, {access: ACCESS, registries}))};
}

test('what who may only attach must not push is not written to an upstream', async (t) => {
  const {send, upstream} = await startThrough(t);
  for (const [title, request] of refused) t.is((await send(SIGNER, request)).status, 403, title);
  t.deepEqual(upstream.requests, []);
});

test('an upstream is not asked to mount from wherever it has a blob, unless the caller may pull everything', async (t) => {
  const {digest} = randomBlob(10);
  const answer = {status: 202, headers: {Location: '/v2/app/blobs/uploads/1'}};
  const mount = {method: 'POST', path: `/v2/app/blobs/uploads/?mount=${digest}`};
  const {send} = await startThrough(t, {request: 'POST /v2/app/blobs/uploads/', answer});
  t.is((await send(SIGNER, mount)).status, 202);
  const upstream = await createScriptedUpstream(t, [
    {request: /^POST \/v2\/app\/blobs\/uploads\/\?mount=/, answer},
  ]);
  const registries = [{url: upstream.url, library: false, push: 'through' as const}];
  const open = await startRuledServer(t, {access: {}, registries});
  t.is((await open.send('local', mount)).status, 202);
});

test('without rules, a push from another machine is denied or asks for a login, and names what is missing', async (t) => {
  const {send} = await startRuledServer(t, {access: {}, registries: [{library: false}]});
  t.is((await send('local', post(EMPTY))).status, 201);
  const remote = await send('remote', post(EMPTY));
  t.is(remote.status, 401);
  t.regex(
    errorOf(remote).message,
    /without access\.rules, pushes and deletions are allowed only through a listener/,
  );
  const forwarded = {...post(EMPTY), headers: {'x-forwarded-for': '10.0.0.1'}};
  t.is((await send(READER, forwarded)).status, 403);
  t.is((await send('remote', {path: `/v2/app/blobs/${EMPTY.digest}`})).status, 200);
});

test('a denial is an event, and so is what is only audited; neither a list nor an attachment is', async (t) => {
  const enforced = await startHosted(t);
  const audited = await startHosted(t, {...ACCESS, mode: 'audit'});
  const heard: unknown[] = [];
  for (const {events} of [enforced, audited])
    events.on('access.denied', ({reason: _, ...event}) => heard.push(event));
  const denied = {
    caller: 'user:reader',
    action: 'pull',
    registry: 'docker.io',
    repository: 'app',
    tag: 'main',
  };
  t.is((await enforced.send(READER, {path: '/v2/app/manifests/main'})).status, 403);
  t.deepEqual(heard.splice(0), [{mode: 'enforce', ...denied}]);
  t.is((await audited.send(READER, {path: '/v2/app/manifests/main'})).status, 200);
  t.deepEqual(heard.splice(0), [{mode: 'audit', ...denied}]);
  for (const path of ['/v2/app/tags/list', '/v2/_catalog']) await enforced.send(READER, {path});
  t.is((await enforced.send(SIGNER, put(attachment(image)))).status, 201);
  t.deepEqual(heard, []);
  const {body} = await audited.send(READER, {path: '/v2/app/tags/list'});
  t.deepEqual(JSON.parse(body.toString()).tags, ['main', 'v1']);
});

test('a blob is mounted only from repositories that the token is for', async (t) => {
  const {send} = await startHosted(t);
  t.is(
    (await send(ROOT, {...post(EMPTY), path: `/v2/other/blobs/uploads/?digest=${EMPTY.digest}`})).status,
    201,
  );
  const target = {type: 'repository', name: 'new', actions: ['pull', 'push']};
  const source = {type: 'repository', name: 'other', actions: ['pull']};
  const mount = (query: string) => ({
    method: 'POST',
    path: `/v2/new/blobs/uploads/?mount=${EMPTY.digest}${query}`,
  });
  const narrow = {...ROOT, scopes: [target]};
  t.is((await send(narrow, mount('&from=other'))).status, 202);
  t.is((await send(narrow, mount(''))).status, 202);
  t.is((await send({...ROOT, scopes: [target, source]}, mount('&from=other'))).status, 201);
  t.is((await send(ROOT, mount(''))).status, 201);
});

test('a blob is mounted from any repository that has it and that the caller may pull from, not only from the first', async (t) => {
  const rules = [
    {who: ['user:root'], where: ['**'], may: ['pull' as const, 'push' as const]},
    {who: ['user:signer'], where: ['*/open/**', '*/new'], may: ['pull' as const, 'push' as const]},
  ];
  const {send, events} = await startHosted(t, {rules});
  const denials: unknown[] = [];
  events.on('access.denied', (denial) => void denials.push(denial));
  const layer = randomBlob(100);
  const push = (name: string) =>
    send(ROOT, {...post(layer), path: `/v2/${name}/blobs/uploads/?digest=${layer.digest}`});
  const mount = {method: 'POST', path: `/v2/new/blobs/uploads/?mount=${layer.digest}`};
  for (const name of ['closed/a', 'closed/b', 'closed/c']) t.is((await push(name)).status, 201);
  t.is((await send(SIGNER, mount)).status, 202);
  t.is((await push('open/app')).status, 201);
  t.is((await send(SIGNER, mount)).status, 201);
  t.deepEqual(denials, [], 'it asked for none of them');
});

test('a reference that is neither a tag nor a digest is refused before the rules look at it', async (t) => {
  const rules = [
    {who: ['*'], where: ['**/app:v*.*.*'], may: ['pull' as const]},
    {who: ['*'], where: ['**'], may: ['pull' as const, 'push' as const]},
  ];
  const {send} = await startHosted(t, {...ACCESS, rules});
  const got = await send(ROOT, {method: 'GET', path: `/v2/app/manifests/v${'.'.repeat(3000)}%2F%2F`});
  t.is(got.status, 400);
});
