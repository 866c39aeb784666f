import {get} from 'node:http';
import test from 'ava';
import type {Action} from '../../src/caller.ts';
import {endpointsOf, type Verbs} from '../../src/http/routes.ts';
import type {Identity} from '../../src/identity/authenticator.ts';
import {fallbackTag} from '../../src/oci/referrers.ts';
import {
  attachmentTo,
  type Content,
  contentOf,
  type ManifestContent,
  plainManifest,
  randomBlob,
} from '../support/content.ts';
import {
  createScriptedUpstream,
  type ReceivedRequest,
  type ScriptedAnswer,
} from '../support/scripted-upstream.ts';
import {type Lifetime, shareAmongTests} from '../support/shared.ts';
import {basic} from './private-registry.ts';
import {
  type RuledAnswer,
  type RuledRequest,
  type RuledServer,
  type Sender,
  startRuledServer,
} from './ruled-server.ts';

const EVERYTHING: readonly Action[] = ['pull', 'push', 'delete', 'attach'];
const ROOT: Identity = {names: ['user:root']};
/** No rule is about her. */
const NOBODY: Identity = {names: ['user:carol']};

/** Each may do everything in `mine/…` of both registries, and nothing in `other/…`. */
const CALLERS: Record<string, Sender> = {
  'an anonymous caller': 'remote',
  'an anonymous caller of this machine': 'local',
  'a user': {names: ['user:alice']},
  'a member of a group': {names: ['user:bob']},
  'a bearer of a claim': {names: ['gha:sub=1', 'gha:repository=org/app']},
  'a robot': {names: ['robot:ci'], bound: {may: EVERYTHING, on: ['*/mine/**']}},
};

const ACCESS = {
  groups: {dev: ['user:bob']},
  rules: [
    {who: ['user:root'], where: ['**'], may: EVERYTHING},
    {
      who: ['anonymous', 'user:alice', 'group:dev', 'gha:repository=org/*'],
      where: ['*/mine/**'],
      may: EVERYTHING,
    },
  ],
};

const image = plainManifest();
const blob = randomBlob(2000);
/** Those that nobody has pulled yet: each is asked for once in each repository. */
const cold = {GET: randomBlob(1500), HEAD: randomBlob(1500)};
/** The upstream does not have it. */
const absent = randomBlob(10);
/** Too large to be held back until it is verified. */
const arriving = randomBlob(3 * 2 ** 20);
const signature = attachmentTo(image);
const EMPTY = contentOf(Buffer.from('{}'));
/** A repository of each caller, and one that none may see. */
const MINE = Object.keys(CALLERS).map((_, index) => `mine/app${index}`);
const OTHERS = 'other/app';
const REPOSITORIES = [...MINE, OTHERS];
const HOSTED = 'apps.local';

const withLength = ({bytes, digest}: Content, mediaType: string) => ({
  'Content-Type': mediaType,
  'Docker-Content-Digest': digest,
  'Content-Length': String(bytes.length),
});

/** A registry that has everything in every repository: `image` under any tag, and two blobs, one of which takes its time. */
function answerOf({method, url}: ReceivedRequest, isFailing: boolean, mayEnd: Promise<void>): ScriptedAnswer {
  const isHead = method === 'HEAD';
  if (url.endsWith('/manifests/stale') && isFailing) return {status: 503};
  if (url.includes('/tags/list'))
    return {headers: {'Content-Type': 'application/json'}, body: '{"tags":["hit","stale"]}'};
  if (url.includes('/referrers/')) return {status: 404};
  if (/\/manifests\/sha256[:-]/.test(url) && !url.endsWith(image.digest)) return {status: 404};
  if (url.includes('/manifests/'))
    return {headers: withLength(image, image.mediaType), body: isHead ? [] : image.bytes};
  if (url.endsWith(absent.digest)) return {status: 404};
  const all = [arriving, cold.GET, cold.HEAD, blob];
  const content = all.find(({digest}) => url.endsWith(digest)) ?? blob;
  const headers = withLength(content, 'application/octet-stream');
  if (isHead) return {headers, body: []};
  if (content !== arriving) return {headers, body: content.bytes};
  return {headers, body: [arriving.bytes.subarray(0, 1000), {wait: mayEnd}, arriving.bytes.subarray(1000)]};
}

interface Started {
  readonly server: RuledServer;
  /** Requests that the upstream has received. */
  asked(): number;
}

/** @param isEmpty the upstream has nothing, and nothing was pushed */
async function start(t: Lifetime, isEmpty: boolean): Promise<Started> {
  const mayEnd = Promise.withResolvers<void>();
  let isFailing = false;
  const answer = (request: ReceivedRequest): ScriptedAnswer =>
    isEmpty ? {status: 404} : answerOf(request, isFailing, mayEnd.promise);
  const upstream = await createScriptedUpstream(t, [{request: /./, answer, times: Infinity, optional: true}]);
  const registries = [{url: upstream.url, library: false}, {name: HOSTED}];
  const server = await startRuledServer(t, {access: ACCESS, registries});
  const asked = () => upstream.requests.length;
  t.teardown(mayEnd.resolve);
  if (isEmpty) return {server, asked};
  for (const name of REPOSITORIES) await fill(server, name);
  server.clock.move(3 * 60_000);
  isFailing = true;
  for (const name of REPOSITORIES) {
    await taken(server, {path: `/v2/${name}/manifests/hit`}, 200);
    await taken(server, {path: `/v2/${name}/tags/list`}, 200);
    await beginDownload(server, name);
  }
  return {server, asked};
}

async function taken(server: RuledServer, request: RuledRequest, status: number): Promise<void> {
  const {method = 'GET', path} = request;
  const got = await server.send(ROOT, request);
  if (got.status !== status) throw new Error(`${method} ${path}: ${got.status} ${got.body}`);
}

const put = (
  {bytes, mediaType, digest}: ManifestContent,
  name: string,
  reference: string = digest,
): RuledRequest => ({
  method: 'PUT',
  path: `/v2/${HOSTED}/${name}/manifests/${reference}`,
  headers: {'content-type': mediaType},
  body: bytes,
});

const post = ({bytes, digest}: Content, name: string): RuledRequest => ({
  method: 'POST',
  path: `/v2/${HOSTED}/${name}/blobs/uploads/?digest=${digest}`,
  body: bytes,
});

/** Content of both registries in all states but that of a running download. */
async function fill(server: RuledServer, name: string): Promise<void> {
  await taken(server, {path: `/v2/${name}/manifests/stale`}, 200);
  await taken(server, {path: `/v2/${name}/blobs/${blob.digest}`}, 200);
  for (const content of [blob, EMPTY]) await taken(server, post(content, name), 201);
  await taken(server, put(image, name, 'hit'), 201);
  await taken(server, put(image, name, 'doomed'), 201);
  await taken(server, put(signature, name), 201);
}

/** Resolves when the first bytes have come; the rest comes later. */
const beginDownload = (server: RuledServer, name: string, headers = server.headersOf(ROOT)): Promise<void> =>
  new Promise((resolve, reject) => {
    const options = {
      host: '127.0.0.1',
      port: server.port,
      path: `/v2/${name}/blobs/${arriving.digest}`,
      headers,
      agent: false,
    };
    get(options, (message) => {
      message.once('data', () => resolve());
      message.once('error', () => {});
      message.resume();
    }).once('error', reject);
  });

/** A cell of the matrix: a request to a repository in one state of what it asks for. */
interface Cell {
  /** `GET /v2/*name/manifests/:reference`, as in the table of endpoints. */
  readonly route: string;
  readonly state: string;
  /** The status where it is allowed and there. */
  readonly status: number;
  /** What comes before the request, on the server that has content. */
  readonly before?: (server: RuledServer, name: string) => Promise<string>;
  /** @param made what came before */
  readonly request: (name: string, made: string) => RuledRequest;
}

const MANIFEST = '/v2/*name/manifests/:reference';
const BLOB = '/v2/*name/blobs/:digest';
const UPLOADS = '/v2/*name/blobs/uploads{/}';
const SESSION = '/v2/*name/blobs/uploads/:session';
const ABSENT_SESSION = '4f0a0000-0000-4000-8000-000000000000';

const reads = (route: string, states: Record<string, (name: string) => string>): Cell[] =>
  Object.entries(states).flatMap(([state, pathOf]) =>
    ['GET', 'HEAD'].map((method) => ({
      route: `${method} ${route}`,
      state,
      status: 200,
      request: (name: string) => ({method, path: pathOf(name)}),
    })),
  );

const session = (method: string, status: number, more: Partial<RuledRequest>, query = ''): Cell => ({
  route: `${method} ${SESSION}`,
  state: 'an upload that began',
  status,
  before: async (server, name) => {
    const begun = await server.send(ROOT, {method: 'POST', path: `/v2/${HOSTED}/${name}/blobs/uploads/`});
    return String(begun.headers['docker-upload-uuid']);
  },
  request: (name, id) => ({
    method,
    path: `/v2/${HOSTED}/${name}/blobs/uploads/${id || ABSENT_SESSION}${query}`,
    ...more,
  }),
});

const chunk = {body: blob.bytes, headers: {'content-type': 'application/octet-stream'}};

const CELLS: readonly Cell[] = [
  ...reads(MANIFEST, {
    'a hit': (name) => `/v2/${name}/manifests/hit`,
    'a hit by digest': (name) => `/v2/${name}/manifests/${image.digest}`,
    'a stale one': (name) => `/v2/${name}/manifests/stale`,
    'a miss': (name) => `/v2/${name}/manifests/miss`,
    'a pushed one': (name) => `/v2/${HOSTED}/${name}/manifests/hit`,
    'a fallback tag': (name) => `/v2/${HOSTED}/${name}/manifests/${fallbackTag(image.digest)}`,
  }),
  {
    route: `PUT ${MANIFEST}`,
    state: 'a tag',
    status: 201,
    request: (name) => put(image, name, 'new'),
  },
  {route: `PUT ${MANIFEST}`, state: 'an attachment', status: 201, request: (name) => put(signature, name)},
  ...reads(BLOB, {
    'a hit': (name) => `/v2/${name}/blobs/${blob.digest}`,
    'a pushed one': (name) => `/v2/${HOSTED}/${name}/blobs/${blob.digest}`,
  }),
  ...(['GET', 'HEAD'] as const).flatMap((method) => [
    {
      route: `${method} ${BLOB}`,
      state: 'a miss',
      status: 200,
      request: (name: string) => ({method, path: `/v2/${name}/blobs/${cold[method].digest}`}),
    },
    {
      route: `${method} ${BLOB}`,
      state: 'one that is nowhere',
      status: 404,
      request: (name: string) => ({method, path: `/v2/${name}/blobs/${absent.digest}`}),
    },
  ]),
  {
    route: `HEAD ${BLOB}`,
    state: 'a running download',
    status: 200,
    request: (name) => ({method: 'HEAD', path: `/v2/${name}/blobs/${arriving.digest}`}),
  },
  {
    route: `GET ${BLOB}`,
    state: 'a range of a running download',
    status: 206,
    request: (name) => ({path: `/v2/${name}/blobs/${arriving.digest}`, headers: {range: 'bytes=0-9'}}),
  },
  {
    route: `GET ${BLOB}`,
    state: 'a range',
    status: 206,
    request: (name) => ({path: `/v2/${name}/blobs/${blob.digest}`, headers: {range: 'bytes=0-9'}}),
  },
  ...reads('/v2/*name/tags/list', {
    'a hit': (name) => `/v2/${name}/tags/list`,
    'pushed tags': (name) => `/v2/${HOSTED}/${name}/tags/list`,
  }),
  ...reads('/v2/*name/referrers/:digest', {
    'those of the upstream': (name) => `/v2/${name}/referrers/${image.digest}`,
    'pushed ones': (name) => `/v2/${HOSTED}/${name}/referrers/${image.digest}`,
  }),
  {
    route: `POST ${UPLOADS}`,
    state: 'an upload',
    status: 202,
    request: (name) => ({method: 'POST', path: `/v2/${HOSTED}/${name}/blobs/uploads/`}),
  },
  {
    route: `POST ${UPLOADS}`,
    state: 'a mount from the same place',
    status: 201,
    request: (name) => ({
      method: 'POST',
      path: `/v2/${HOSTED}/${name}/x/blobs/uploads/?mount=${blob.digest}&from=${HOSTED}/${name}`,
    }),
  },
  session('GET', 204, {}),
  session('PATCH', 202, chunk),
  session('PUT', 201, chunk, `?digest=${blob.digest}`),
  session('DELETE', 204, {}),
  {
    route: `DELETE ${MANIFEST}`,
    state: 'a tag',
    status: 202,
    request: (name) => ({method: 'DELETE', path: `/v2/${HOSTED}/${name}/manifests/doomed`}),
  },
  {
    route: `DELETE ${MANIFEST}`,
    state: 'a referrer',
    status: 202,
    request: (name) => ({method: 'DELETE', path: `/v2/${HOSTED}/${name}/manifests/${signature.digest}`}),
  },
  {
    route: `DELETE ${BLOB}`,
    state: 'a pushed one',
    status: 202,
    request: (name) => ({method: 'DELETE', path: `/v2/${HOSTED}/${name}/blobs/${blob.digest}`}),
  },
];

/** Routes that name no repository are not part of the matrix of repositories. */
const CATALOG = ['GET /v2/_catalog', 'HEAD /v2/_catalog'];
const NO_VERBS = new Proxy({}, {get: () => ({})}) as Verbs;

test('the matrix has every route that shows or changes content, and no other', (t) => {
  const routes = endpointsOf(NO_VERBS)
    .filter(({needs}) => needs === 'repository' || needs === 'registry')
    .flatMap(({path, methods}) => Object.keys(methods).map((method) => `${method} ${path}`));
  const tested = new Set([...CELLS.map(({route}) => route), ...CATALOG]);
  t.deepEqual(
    routes.filter((route) => !tested.has(route)),
    [],
  );
  const answered = routes.map((route) => route.replace(/^GET/, 'HEAD'));
  t.deepEqual(
    [...tested].filter((route) => !routes.includes(route) && !answered.includes(route)),
    [],
  );
});

const shared = shareAmongTests(test, async (lifetime) => ({
  full: await start(lifetime, false),
  empty: await start(lifetime, true),
}));

/** The whole answer but what differs between any two requests, and any two servers. */
function comparable({status, headers, body}: RuledAnswer, {port}: RuledServer): unknown {
  const {date: _, 'x-request-id': id = '', ...rest} = headers;
  const answer = {status, headers: rest, body: body.toString()};
  return JSON.stringify(answer).replaceAll(String(id), 'ID').replaceAll(`:${port}`, ':PORT');
}

for (const [index, [who, sender]] of Object.entries(CALLERS).entries()) {
  const mine = MINE[index] ?? '';

  test.serial(
    `${who} cannot tell what is there in any cell where the rules deny it, and no upstream is asked`,
    async (t) => {
      const {full, empty} = await shared();
      const asked = full.asked();
      for (const {route, state, before, request} of CELLS) {
        const made = (await before?.(full.server, OTHERS)) ?? '';
        const there = await full.server.send(sender, request(OTHERS, made));
        const absent = await empty.server.send(sender, request(OTHERS, made));
        const cell = `${route}, ${state}`;
        t.is(there.status, typeof sender === 'string' ? 401 : 403, cell);
        t.is(comparable(there, full.server), comparable(absent, empty.server), cell);
      }
      t.is(full.asked(), asked);
      t.is(empty.asked(), 0);
    },
  );

  test.serial(`${who} finds in the catalogue, and mounts from, what it may pull alone`, async (t) => {
    const {full, empty} = await shared();
    const {body} = await full.server.send(sender, {path: '/v2/_catalog'});
    const {repositories} = JSON.parse(body.toString());
    for (const name of MINE)
      t.true(repositories.includes(name) && repositories.includes(`${HOSTED}/${name}`));
    t.false(repositories.some((name: string) => name.includes(OTHERS)));
    const from = `from=${HOSTED}/${OTHERS}`;
    const mount = {
      method: 'POST',
      path: `/v2/${HOSTED}/${mine}/new/blobs/uploads/?mount=${blob.digest}&${from}`,
    };
    for (const {server} of [full, empty]) t.is((await server.send(sender, mount)).status, 202);
  });

  test.serial(`${who} is served in each cell where the rules allow it`, async (t) => {
    const {server} = (await shared()).full;
    for (const {route, state, status, before, request} of CELLS) {
      const made = (await before?.(server, mine)) ?? '';
      const got = await server.send(sender, request(mine, made));
      t.is(got.status, status, `${route}, ${state}: ${got.body}`);
    }
  });
}

for (const method of ['GET', 'HEAD'])
  test.serial(
    `a caller whom no rule allows anything is denied the catalogue by ${method}, whatever is there`,
    async (t) => {
      const {full, empty} = await shared();
      const request = {method, path: '/v2/_catalog'};
      const there = await full.server.send(NOBODY, request);
      t.is(there.status, 403);
      const absent = await empty.server.send(NOBODY, request);
      t.is(comparable(there, full.server), comparable(absent, empty.server));
    },
  );

/** The host at which logins are for the upstream. */
const OWN_HOST = 'own.mirror.test';
/** Who may pull everything from the upstream. */
const READER = basic('reader', 'right');

/** Nobody of these may pull anything from an upstream that is asked with the callers' own logins. */
const STRANGERS: Record<string, string | undefined> = {
  'a caller without a login': undefined,
  'a caller whose login the upstream refuses': basic('reader', 'wrong'),
  'a caller that the upstream does not let pull': basic('stranger', 'right'),
};

/** The cells of content that is the upstream's. */
const PULLS = CELLS.filter(({request}) => {
  const {method = 'GET', path} = request('mine', '');
  return ['GET', 'HEAD'].includes(method) && !path.startsWith(`/v2/${HOSTED}/`) && !path.includes('uploads');
});

const asOwn = (authorization: string | undefined, request: RuledRequest): RuledRequest => ({
  ...request,
  headers: {...request.headers, host: OWN_HOST, ...(authorization === undefined ? {} : {authorization})},
});

/** Two servers in front of one upstream that knows its users; one of them has what the reader has pulled. */
const sharedOwn = shareAmongTests(test, async (lifetime) => {
  const mayEnd = Promise.withResolvers<void>();
  let isFailing = false;
  const answer = (request: ReceivedRequest): ScriptedAnswer => {
    const {url, headers} = request;
    const user = ['reader', 'stranger'].find((name) => headers.authorization === basic(name, 'right'));
    if (url.startsWith('/token') && headers.authorization !== undefined && !user) return {status: 401};
    if (url.startsWith('/token')) return {body: JSON.stringify({token: `of-${user ?? 'nobody'}`})};
    if (headers.authorization === 'Bearer of-reader') return answerOf(request, isFailing, mayEnd.promise);
    if (headers.authorization === 'Bearer of-stranger') return {status: 403};
    return {status: 401, headers: {'www-authenticate': `Bearer realm="${upstream.url}/token"`}};
  };
  const upstream = await createScriptedUpstream(lifetime, [
    {request: /./, answer, times: Infinity, optional: true},
  ]);
  const start = () =>
    startRuledServer(lifetime, {
      access: {},
      registries: [
        {
          url: upstream.url,
          library: false,
          hosts: [OWN_HOST],
          tags: {keepDeleted: 0},
          upstream: {credentials: {kind: 'passthrough'}},
        },
      ],
    });
  const [full, empty] = [await start(), await start()];
  lifetime.teardown(mayEnd.resolve);
  const take = async (path: string) => {
    const got = await full.send('local', asOwn(READER, {path: `/v2/mine/${path}`}));
    if (got.status !== 200) throw new Error(`${path}: ${got.status} ${got.body}`);
  };
  for (const path of ['manifests/stale', 'manifests/hit', `blobs/${blob.digest}`, 'tags/list'])
    await take(path);
  full.clock.move(3 * 60_000);
  isFailing = true;
  for (const path of ['manifests/hit', 'tags/list']) await take(path);
  await beginDownload(full, 'mine', {host: OWN_HOST, authorization: READER});
  return {full, empty};
});

for (const [who, login] of Object.entries(STRANGERS))
  test.serial(`${who} cannot tell in any cell what others have pulled with their own logins`, async (t) => {
    const {full, empty} = await sharedOwn();
    for (const {route, state, request} of PULLS) {
      const asked = asOwn(login, request('mine', ''));
      const there = await full.send('local', asked);
      const absent = await empty.send('local', asked);
      t.is(there.status, login === basic('stranger', 'right') ? 403 : 401, `${route}, ${state}`);
      t.is(comparable(there, full), comparable(absent, empty), `${route}, ${state}`);
      // Refused logins are limited by the minute.
      for (const server of [full, empty]) server.clock.move(60_000);
    }
  });

test.serial('a caller that the upstream lets pull is served in each cell of its content', async (t) => {
  const {full} = await sharedOwn();
  for (const {route, state, status, request} of PULLS) {
    const got = await full.send('local', asOwn(READER, request('mine', '')));
    t.is(got.status, status, `${route}, ${state}: ${got.body}`);
  }
});

test.serial(
  'whom the rules deny cannot tell a registry with own logins from others, or from none',
  async (t) => {
    const server = await startRuledServer(t, {
      access: {rules: [{who: ['user:root'], where: ['**'], may: ['pull']}]},
      registries: [
        {url: 'http://127.0.0.1:1', library: false},
        {
          name: 'own.example',
          hosts: [OWN_HOST],
          url: 'http://127.0.0.1:1',
          tags: {keepDeleted: 0},
          upstream: {credentials: {kind: 'passthrough'}},
        },
      ],
    });
    const answers: string[] = [];
    for (const host of [OWN_HOST, 'elsewhere.test']) {
      const got = await server.send('local', {path: '/v2/mine/manifests/1', headers: {host}});
      t.is(got.status, 401);
      answers.push(String(got.headers['www-authenticate']).replace(host, 'HOST'));
      const paths = ['/v2/own.example/mine/manifests/1', '/v2/none.example/mine/manifests/1'];
      for (const path of paths) t.is((await server.send('local', {path, headers: {host}})).status, 401, path);
    }
    t.is(answers[0], answers[1]);
  },
);
