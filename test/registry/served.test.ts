import test, {type ExecutionContext} from 'ava';
import fc from 'fast-check';
import {parseName} from '../../src/oci/name.ts';
import {servedRepositories} from '../../src/registry/served.ts';
import {type AskOptions, type Backref, type RegistryOverrides, startBackref} from '../support/backref.ts';
import {blobAnswer, contentOf, imageManifest, manifestAnswer, randomBlob} from '../support/content.ts';
import {errorOf, pusherTo} from '../support/pusher.ts';
import {descriptorOf, listAnswer, referrerOf} from '../support/referrers.ts';
import {createScriptedUpstream, type Expectation} from '../support/scripted-upstream.ts';

const ROWS: {title: string; allow?: string[]; deny?: string[]; served: string[]; refused: string[]}[] = [
  {title: 'without patterns, all', served: ['app', 'team/a/b'], refused: []},
  {
    title: 'with allow, what it matches',
    allow: ['team/**', 'library/nginx'],
    served: ['team/app', 'team/a/b', 'library/nginx'],
    refused: ['library/redis', 'teams/app', 'app'],
  },
  {
    title: 'with deny, what it does not match',
    deny: ['team/secret-*'],
    served: ['team/app', 'team/secret-a/b', 'app'],
    refused: ['team/secret-a'],
  },
  {
    title: 'with both, what allow matches and deny does not',
    allow: ['team/*'],
    deny: ['team/secret', '**/tmp'],
    served: ['team/app'],
    refused: ['team/secret', 'team/tmp', 'app'],
  },
  {title: 'with a deny of everything, nothing', allow: ['app'], deny: ['**'], served: [], refused: ['app']},
];

for (const {title, allow = [], deny = [], served, refused} of ROWS) {
  test(`served is ${title}`, (t) => {
    const isServed = servedRepositories({allow, deny});
    for (const name of served) t.true(isServed(parseName(name)), name);
    for (const name of refused) t.false(isServed(parseName(name)), name);
  });
}

test('a further pattern of deny never makes a repository served, and one of allow never takes one away from those of others', (t) => {
  const patterns = fc.array(fc.constantFrom('**', '*', 'a/*', 'a/b', '{a,b}/**', '**/c'), {maxLength: 4});
  const names = fc.constantFrom('a', 'a/b', 'a/c', 'b/a/c', 'd').map(parseName);
  fc.assert(
    fc.property(patterns, patterns, patterns, names, (allow, deny, more, name) => {
      const before = servedRepositories({allow, deny})(name);
      const denied = servedRepositories({allow, deny: [...deny, ...more]})(name);
      const allowed = servedRepositories({allow: [...allow, ...more], deny})(name);
      return (before || !denied) && (!before || allow.length === 0 || allowed);
    }),
  );
  t.pass();
});

const layer = randomBlob(2000);
const config = contentOf(Buffer.from('{}'));
const image = imageManifest([layer]);
const DIGEST = image.digest;

const once = (request: string, answer: Expectation['answer']): Expectation => ({
  request,
  ...(answer ? {answer} : {}),
});

/** What a pull of the image with its list of referrers and tags asks for. */
const pulls = (name: string): Expectation[] => [
  once(`GET /v2/${name}/manifests/1`, manifestAnswer(image)),
  once(`GET /v2/${name}/blobs/${layer.digest}`, blobAnswer(layer)),
  once(`GET /v2/${name}/blobs/${config.digest}`, blobAnswer(config)),
  once(`GET /v2/${name}/referrers/${DIGEST}`, listAnswer([])),
  {request: new RegExp(`^GET /v2/${name}/manifests/sha256-`), answer: {status: 404}, always: true},
  once(`GET /v2/${name}/tags/list?n=1000`, {
    headers: {'Content-Type': 'application/json'},
    body: JSON.stringify({name, tags: ['1']}),
  }),
];

async function pullAll({ask}: Backref, name: string): Promise<void> {
  for (const path of [
    'manifests/1',
    `blobs/${layer.digest}`,
    `blobs/${config.digest}`,
    `referrers/${DIGEST}`,
    'tags/list',
  ])
    await ask(`/v2/${name}/${path}`);
}

const READS: [method: string, path: string, headers?: Record<string, string>][] = [
  ['GET', 'manifests/1'],
  ['HEAD', 'manifests/1'],
  ['GET', 'manifests/1', {'Cache-Control': 'no-cache'}],
  ['GET', `manifests/${DIGEST}`],
  ['HEAD', `manifests/${DIGEST}`],
  ['GET', `manifests/${DIGEST.replace(':', '-')}`],
  ['GET', 'manifests/never-seen'],
  ['GET', `blobs/${layer.digest}`],
  ['GET', `blobs/${layer.digest}`, {Range: 'bytes=0-9'}],
  ['HEAD', `blobs/${layer.digest}`],
  ['GET', `blobs/sha256:${'0'.repeat(64)}`],
  ['GET', `referrers/${DIGEST}`],
  ['GET', `referrers/${DIGEST}?artifactType=application/vnd.example`],
  ['GET', 'tags/list'],
  ['GET', 'tags/list?n=1'],
];

const DENY_APP = {allow: [], deny: ['team/app']};

/** Asks for everything there is to read, and checks that it is answered like a repository that does not exist. */
async function expectAbsent(t: ExecutionContext, {ask}: Backref, name: string): Promise<void> {
  for (const [method, path, headers = {}] of READS) {
    const answer = await ask(`/v2/${name}/${path}`, {method, headers});
    t.is(answer.status, 404, `${method} ${path}`);
    for (const header of ['docker-content-digest', 'cache-status', 'etag', 'age', 'warning'])
      t.is(answer.headers[header], undefined, `${method} ${path} ${header}`);
    if (method === 'HEAD') continue;
    const {code, message, detail = {}} = errorOf(answer);
    t.is(code, 'NAME_UNKNOWN');
    t.is(
      message,
      `the configuration of registry docker.io does not serve repository ${name}: allow it in registries.docker.io.repositories, or ask the operator to`,
    );
    t.deepEqual({...detail, requestId: ''}, {name, registry: 'docker.io', requestId: ''});
  }
}

test('a repository that is not served does not exist, and its upstream is not asked about it', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, repositories: DENY_APP}]});
  await expectAbsent(t, proxy, 'team/app');
  t.is(upstream.requests.length, 0);
});

test('what was cached of a repository before is not served either, with the same answers, until it is served again', async (t) => {
  const upstream = await createScriptedUpstream(t, pulls('team/app'));
  const {url} = upstream;
  const proxy = await startBackref(t, {registries: [upstream]});
  await pullAll(proxy, 'team/app');
  const asked = upstream.requests.length;
  proxy.reload({registries: [{url, repositories: DENY_APP}]});
  await expectAbsent(t, proxy, 'team/app');
  t.deepEqual((await proxy.ask('/v2/_catalog')).json(), {repositories: []});
  proxy.reload({registries: [{url, repositories: {allow: ['team/*'], deny: []}}]});
  t.like((await proxy.ask('/v2/team/app/manifests/1')).headers, {'docker-content-digest': DIGEST});
  t.deepEqual((await proxy.ask(`/v2/team/app/blobs/${layer.digest}`)).body, layer.bytes);
  t.deepEqual((await proxy.ask('/v2/_catalog')).json(), {repositories: ['team/app']});
  t.is(upstream.requests.length, asked);
});

test('the catalog does not show repositories that are not served, nor do pages of it come short', async (t) => {
  const names = ['a/1', 'b/1', 'b/2', 'c/1'];
  const upstream = await createScriptedUpstream(
    t,
    names.map((name) => once(`GET /v2/${name}/manifests/1`, manifestAnswer(image))),
  );
  const proxy = await startBackref(t, {registries: [upstream]});
  for (const name of names) await proxy.ask(`/v2/${name}/manifests/1`);
  proxy.reload({registries: [{url: upstream.url, repositories: {allow: [], deny: ['b/*']}}]});
  const page = await proxy.ask('/v2/_catalog?n=2');
  t.deepEqual(page.json(), {repositories: ['a/1', 'c/1']});
  t.is(page.headers['link'], undefined);
});

test('patterns are about the name at the upstream, however a client names it', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    once('GET /v2/library/nginx/manifests/1', manifestAnswer(image)),
  ]);
  const proxy = await startBackref(t, {
    registries: [{url: upstream.url, aliases: ['hub'], repositories: {allow: ['library/nginx'], deny: []}}],
  });
  for (const name of ['nginx', 'library/nginx', 'docker.io/nginx', 'hub/library/nginx'])
    t.is((await proxy.ask(`/v2/${name}/manifests/1`)).status, 200, name);
  for (const path of [
    '/v2/redis/manifests/1',
    '/v2/hub/redis/manifests/1',
    '/v2/redis/manifests/1?ns=docker.io',
  ])
    t.is((await proxy.ask(path)).status, 404, path);
});

const WRITES = (digest: string): [method: string, path: string][] => [
  ['POST', 'blobs/uploads/'],
  ['POST', `blobs/uploads/?mount=${digest}&from=team/other`],
  ['GET', 'blobs/uploads/0b0a5f0e-1c5f-4c5e-9a53-0d8a8a0f6a11'],
  ['PATCH', 'blobs/uploads/0b0a5f0e-1c5f-4c5e-9a53-0d8a8a0f6a11'],
  ['PUT', `blobs/uploads/0b0a5f0e-1c5f-4c5e-9a53-0d8a8a0f6a11?digest=${digest}`],
  ['DELETE', 'blobs/uploads/0b0a5f0e-1c5f-4c5e-9a53-0d8a8a0f6a11'],
  ['PUT', 'manifests/1'],
  ['PUT', `manifests/${DIGEST}`],
  ['DELETE', `manifests/${DIGEST}`],
  ['DELETE', 'manifests/1'],
  ['DELETE', `blobs/${digest}`],
];

async function expectDenied(t: ExecutionContext, {ask}: Backref): Promise<void> {
  for (const [method, path] of WRITES(layer.digest)) {
    const options: AskOptions = {method, headers: {'Content-Type': image.mediaType}};
    const answer = await ask(
      `/v2/team/app/${path}`,
      path.startsWith('manifests') && method === 'PUT' ? {...options, body: image.bytes} : options,
    );
    t.is(answer.status, 403, `${method} ${path}`);
    t.is(errorOf(answer).code, 'DENIED');
    t.regex(errorOf(answer).message, /does not serve repository team\/app/);
  }
}

const PUSHED: [title: string, changes: (url: string) => RegistryOverrides][] = [
  ['through to the upstream', (url) => ({url, push: 'through'})],
  ['over the upstream', (url) => ({url, push: 'local', overlay: {tags: 'allow'}})],
  ['to a hosted registry', () => ({push: 'local'})],
];

for (const [title, changes] of PUSHED) {
  test(`a push ${title} is denied for a repository that is not served`, async (t) => {
    const upstream = await createScriptedUpstream(t);
    const proxy = await startBackref(t, {registries: [{...changes(upstream.url), repositories: DENY_APP}]});
    await expectDenied(t, proxy);
    t.is(upstream.requests.length, 0);
  });
}

test('what was pushed to a repository is kept, but not served, while the configuration leaves it out', async (t) => {
  const proxy = await startBackref(t, {registries: [{}]});
  await pusherTo(proxy, 'team/app').image(image, [config, layer], '1');
  proxy.reload({registries: [{repositories: DENY_APP}]});
  await expectAbsent(t, proxy, 'team/app');
  await expectDenied(t, proxy);
  proxy.reload({registries: [{}]});
  t.is((await proxy.ask('/v2/team/app/manifests/1')).status, 200);
});

test('a mirror refuses a push as a mirror does, whatever it serves', async (t) => {
  const upstream = await createScriptedUpstream(t);
  const proxy = await startBackref(t, {registries: [{url: upstream.url, repositories: DENY_APP}]});
  t.is((await proxy.ask('/v2/team/app/blobs/uploads/', {method: 'POST'})).status, 405);
});

test('no blob is mounted from a repository that is not served', async (t) => {
  const proxy = await startBackref(t, {registries: [{}]});
  await pusherTo(proxy, 'team/app').blob(layer);
  proxy.reload({registries: [{repositories: DENY_APP}]});
  for (const query of [`mount=${layer.digest}&from=team/app`, `mount=${layer.digest}`]) {
    const headers = {'Content-Length': 0};
    const answer = await proxy.ask(`/v2/team/other/blobs/uploads/?${query}`, {method: 'POST', headers});
    t.is(answer.status, 202, query);
  }
});

test('bytes that a repository which is not served has brought are still fetched for another one only once it has them', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    ...pulls('team/app'),
    once(`HEAD /v2/team/other/blobs/${layer.digest}`, {status: 404}),
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await pullAll(proxy, 'team/app');
  proxy.reload({registries: [{url: upstream.url, repositories: DENY_APP}]});
  t.is((await proxy.ask(`/v2/team/other/blobs/${layer.digest}`)).status, 404);
});

const NEVER = new AbortController().signal;

test('warm, ready and index say that a repository is not served, and ask its upstream for nothing', async (t) => {
  const upstream = await createScriptedUpstream(t, pulls('team/app'));
  const proxy = await startBackref(t, {registries: [upstream]});
  await pullAll(proxy, 'team/app');
  const asked = upstream.requests.length;
  proxy.reload({registries: [{url: upstream.url, repositories: DENY_APP}]});
  const commands = await proxy.server.commands();
  const options = {images: ['team/app:1'], platforms: [], signal: NEVER, progress: () => {}};
  const [warmed] = (await commands.warm({...options, referrers: true})).warmed;
  t.regex(warmed?.error ?? '', /does not serve repository team\/app/);
  const [readiness] = (await commands.ready(options)).readiness;
  t.like(readiness, {pulls: false, verifies: false});
  t.regex(readiness?.problem ?? '', /does not serve repository team\/app/);
  await t.throwsAsync(
    commands.index({repository: 'team/app', budget: 10, signal: NEVER, progress: () => {}}),
    {
      message: /does not serve repository team\/app/,
    },
  );
  t.is(upstream.requests.length, asked);
});

test('what is fetched in advance for an image ends when a reload leaves its repository out', async (t) => {
  const {promise: reloaded, resolve: go} = Promise.withResolvers<void>();
  const sbom = referrerOf(image);
  const names = ['team/one', 'team/two', 'team/three'];
  const upstream = await createScriptedUpstream(
    t,
    [
      ...names.map((name) => once(`GET /v2/${name}/manifests/1`, manifestAnswer(image))),
      ...names.map((name) => {
        const list = listAnswer([descriptorOf(sbom)]);
        return once(`GET /v2/${name}/referrers/${DIGEST}`, {...list, before: reloaded});
      }),
      once(`GET /v2/team/three/manifests/${sbom.digest}`, manifestAnswer(sbom)),
      {...once(`GET /v2/team/three/referrers/${sbom.digest}`, listAnswer([])), optional: true},
    ],
    {anyOrder: true},
  );
  const registry: RegistryOverrides = {
    url: upstream.url,
    referrers: {mode: 'api', prefetch: 'manifests'},
  };
  const proxy = await startBackref(t, {registries: [registry]});
  for (const name of names) await proxy.ask(`/v2/${name}/manifests/1`);
  // Two are under way, and the third waits for one of them.
  await upstream.received(5);
  proxy.reload({registries: [{...registry, repositories: {allow: [], deny: ['team/one', 'team/two']}}]});
  go();
  await upstream.received(7);
  const fetched = upstream.requests.filter(
    ({url}) => url.endsWith(sbom.digest) && url.includes('/manifests/'),
  );
  t.deepEqual(
    fetched.map(({url}) => url),
    [`/v2/team/three/manifests/${sbom.digest}`],
  );
});
