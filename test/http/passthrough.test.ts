import test, {type ExecutionContext} from 'ava';
import {plainManifest, randomBlob} from '../support/content.ts';
import {
  basic,
  createPrivateRegistry,
  type PassthroughServer,
  type PrivateRegistry,
  type PrivateRegistryOptions,
  startPassthrough,
} from './private-registry.ts';
import {errorOf} from './spec-codes.ts';

const image = plainManifest();
const blob = randomBlob(2000);
const ALICE = basic('alice', 'sesame');
const BOB = basic('bob', 'builder');
const MALLORY = basic('alice', 'guess');
const IMAGE = '/v2/team/app/manifests/1';
const BLOB = `/v2/team/app/blobs/${blob.digest}`;

interface Started {
  upstream: PrivateRegistry;
  server: PassthroughServer;
}

async function start(t: ExecutionContext, changes: Partial<PrivateRegistryOptions> = {}): Promise<Started> {
  const upstream = await createPrivateRegistry(t, {
    users: {alice: 'sesame', bob: 'builder'},
    repositories: {
      'team/app': {readers: ['alice'], tags: {1: image}, manifests: [], blobs: [blob]},
      'open/app': {readers: ['anonymous'], tags: {1: image}, manifests: [], blobs: [blob]},
    },
    ...changes,
  });
  return {upstream, server: await startPassthrough(t, upstream)};
}

test('a client that is anonymous learns where to log in, and for which registry', async (t) => {
  const {server} = await start(t);
  for (const method of ['GET', 'HEAD']) {
    const got = await server.as(undefined, IMAGE, {method});
    t.is(got.status, 401);
    t.is(
      got.headers['www-authenticate'],
      'Bearer realm="http://private.mirror.test/token",service="backref/private.example",scope="repository:team/app:pull"',
    );
  }
});

test('a token that was got with a login of the upstream pulls what the login may pull', async (t) => {
  const {server} = await start(t);
  const issued = await server.login(ALICE, IMAGE);
  t.is(issued.status, 200, String(issued.body));
  const {token, refresh_token: refresh} = issued.json() as Record<string, string>;
  t.is(refresh, undefined);
  t.deepEqual((await server.as(`Bearer ${token}`, IMAGE)).body, image.bytes);
  const other = await server.login(ALICE, BLOB);
  t.deepEqual((await server.as(`Bearer ${(other.json() as {token: string}).token}`, BLOB)).body, blob.bytes);
});

test('Basic credentials work without a token', async (t) => {
  const {server} = await start(t);
  t.deepEqual((await server.as(ALICE, IMAGE)).body, image.bytes);
  t.deepEqual((await server.as(ALICE, BLOB)).body, blob.bytes);
});

for (const scheme of ['bearer', 'basic'] as const)
  test(`a login that the upstream refuses is 401, at once and with a token, over ${scheme}`, async (t) => {
    const {server} = await start(t, {scheme});
    const got = await server.as(MALLORY, IMAGE);
    t.is(got.status, 401);
    t.is(errorOf(got).message, 'the upstream refuses the user name or the password');
    t.regex(String(got.headers['www-authenticate']), /error="invalid_token"$/);
    t.is((await server.login(MALLORY, IMAGE)).status, 401);
    t.is((await server.as(ALICE, IMAGE)).status, 200);
  });

test('a login that may not pull is denied, as the upstream denies it', async (t) => {
  const {server} = await start(t);
  t.is((await server.as(ALICE, IMAGE)).status, 200);
  for (const path of [IMAGE, BLOB, '/v2/team/app/tags/list']) {
    const got = await server.as(BOB, path);
    t.is(got.status, 403, path);
    t.is(errorOf(got).code, 'DENIED');
  }
});

test('what the upstream opens to everybody needs no login', async (t) => {
  const {server} = await start(t);
  t.is((await server.as(undefined, '/v2/open/app/manifests/1')).status, 200);
  t.is((await server.as(undefined, `/v2/open/app/blobs/${blob.digest}`)).status, 200);
});

test('a client logs in at the registry before it names a repository', async (t) => {
  const {server} = await start(t);
  const ping = await server.as(undefined, '/v2/');
  t.is(ping.status, 401);
  t.is(
    ping.headers['www-authenticate'],
    'Bearer realm="http://private.mirror.test/token",service="backref/private.example"',
  );
  const issued = await server.login(ALICE, '/v2/');
  t.is(issued.status, 200);
  t.is((await server.as(`Bearer ${(issued.json() as {token: string}).token}`, '/v2/')).status, 200);
  t.is((await server.login(MALLORY, '/v2/')).status, 401);
  t.is((await server.as(ALICE, '/v2/')).status, 200);
  t.is((await server.as(MALLORY, '/v2/')).status, 401);
});

test('a client gets a token by a form as well', async (t) => {
  const {server} = await start(t);
  const form = (password: string) => ({
    method: 'POST',
    headers: {'content-type': 'application/x-www-form-urlencoded'},
    body: String(
      new URLSearchParams({
        grant_type: 'password',
        username: 'alice',
        password,
        service: 'backref/private.example',
        scope: 'repository:team/app:pull',
        access_type: 'offline',
      }),
    ),
  });
  const issued = await server.as(undefined, '/token', form('sesame'));
  const {access_token: token, refresh_token: refresh} = issued.json() as Record<string, string>;
  t.is(refresh, undefined);
  t.is((await server.as(`Bearer ${token}`, IMAGE)).status, 200);
  t.is((await server.as(undefined, '/token', form('guess'))).status, 401);
});

test('a hit is asked about by one HEAD, and again when a minute has passed', async (t) => {
  const {server, upstream} = await start(t);
  t.is((await server.as(ALICE, IMAGE)).status, 200);
  t.is((await server.as(ALICE, BLOB)).status, 200);
  await server.idle();
  const path = `/v2/team/app/manifests/${image.digest}`;
  let count = upstream.requests.length;
  for (const again of [path, BLOB, BLOB]) t.is((await server.as(ALICE, again)).status, 200);
  t.deepEqual(upstream.since(count), []);
  server.clock.move(60_000);
  count = upstream.requests.length;
  for (const again of [BLOB, path, BLOB]) t.is((await server.as(ALICE, again)).status, 200);
  t.deepEqual(upstream.since(count), [`HEAD ${BLOB}`]);
});

test('bytes are stored once, for all who may have them', async (t) => {
  const {server, upstream} = await start(t, {
    repositories: {'team/app': {readers: ['alice', 'bob'], tags: {1: image}, manifests: [], blobs: [blob]}},
  });
  t.is((await server.as(ALICE, BLOB)).status, 200);
  await server.idle();
  const got = await server.as(BOB, BLOB);
  t.deepEqual(got.body, blob.bytes);
  t.is(upstream.requests.filter(({method, url}) => method === 'GET' && url === BLOB).length, 1);
});

test('a permission that the upstream withdraws ends within a minute', async (t) => {
  const {server, upstream} = await start(t);
  t.is((await server.as(ALICE, BLOB)).status, 200);
  await server.idle();
  const repository = upstream.options.repositories['team/app'];
  repository?.readers.splice(0);
  server.clock.move(60_000);
  t.is((await server.as(ALICE, BLOB)).status, 403);
});
