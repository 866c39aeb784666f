import {readdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {inspect} from 'node:util';
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

test('no login is in the events, the answers, the metrics or the data folder', async (t) => {
  const {server, upstream} = await start(t);
  const heard: unknown[] = [];
  const events = server.server.events as unknown as {emit(...event: unknown[]): boolean};
  const emit = events.emit.bind(events);
  events.emit = (...event) => {
    heard.push(event);
    return emit(...event);
  };
  const said: string[] = [];
  const ask = async (authorization: string | undefined, path: string) => {
    const {status, headers, body} = await server.as(authorization, path);
    said.push(JSON.stringify([status, headers]), body.toString());
  };
  const {token} = (await server.login(ALICE, IMAGE)).json() as {token: string};
  for (const who of [ALICE, BOB, MALLORY, `Bearer ${token}`, `Bearer ${token}x`, undefined])
    for (const path of [IMAGE, BLOB, '/v2/', '/v2/team/app/tags/list', '/v2/_catalog', '/metrics'])
      await ask(who, path);
  await server.login(MALLORY, IMAGE);
  upstream.fail(true);
  server.clock.move(3 * 60_000);
  for (const who of [ALICE, BOB]) for (const path of [IMAGE, BLOB, '/metrics']) await ask(who, path);
  upstream.fail(false);
  await server.server.close();
  const files = await readdir(server.folder, {recursive: true, withFileTypes: true});
  for (const file of files.filter((entry) => entry.isFile()))
    said.push(await readFile(join(file.parentPath, file.name), 'latin1'));
  said.push(inspect(heard, {depth: 10, showHidden: true, maxArrayLength: null, maxStringLength: null}));
  t.true(heard.length > 100);
  const payload = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
  const secrets = ['sesame', 'builder', 'guess', 'of-alice', 'of-bob', token, payload.sealed];
  for (const secret of [...secrets, ...[ALICE, BOB, MALLORY].map((header) => header.slice('Basic '.length))])
    t.false(
      said.some((text) => text.includes(secret)),
      secret,
    );
  t.false(Buffer.from(payload.sealed.split('.').join(''), 'base64url').includes('sesame'));
});

for (const scheme of ['bearer', 'basic'] as const) {
  test(`a push or a deletion without a login is led to one, and not denied, over ${scheme}`, async (t) => {
    const UPLOADS = '/v2/team/app/blobs/uploads/';
    const isAlice = (authorization = '') => authorization === ALICE || authorization === 'Bearer of-alice';
    const upstream = await createPrivateRegistry(t, {
      users: {alice: 'sesame', bob: 'builder'},
      repositories: {'team/app': {readers: ['alice'], tags: {1: image}, manifests: [], blobs: [blob]}},
      scheme,
      before: ({method, url, headers: {authorization}}) =>
        method === 'POST' && url.startsWith(UPLOADS) && isAlice(authorization)
          ? {status: 202, headers: {location: `${UPLOADS}1`}}
          : undefined,
    });
    const server = await startPassthrough(t, upstream, {}, {push: 'through'});
    const put = {method: 'PUT', headers: {'content-type': image.mediaType}, body: image.bytes};
    const requests = [
      [UPLOADS, {method: 'POST'}, 'pull,push'],
      [IMAGE, put, 'pull,push'],
      [IMAGE, {method: 'DELETE'}, 'delete'],
    ] as const;
    for (const [path, request, actions] of requests) {
      const got = await server.as(undefined, path, request);
      t.is(got.status, 401, `${request.method} ${path}`);
      t.is(
        got.headers['www-authenticate'],
        `Bearer realm="http://private.mirror.test/token",service="backref/private.example",scope="repository:team/app:${actions}"`,
      );
    }
    t.is((await server.as(ALICE, UPLOADS, {method: 'POST'})).status, 202);
    t.is((await server.as(BOB, UPLOADS, {method: 'POST'})).status, 403);
    const elsewhere = {method: 'POST', headers: {host: 'other.test'}};
    t.is((await server.as(undefined, `/v2/private.example/team/app/blobs/uploads/`, elsewhere)).status, 403);
  });
}
