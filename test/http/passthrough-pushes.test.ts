import test, {type ExecutionContext} from 'ava';
import {fallbackTag} from '../../src/oci/referrers.ts';
import {attachmentTo, contentOf, imageManifest, plainManifest, randomBlob} from '../support/content.ts';
import {
  basic,
  createPrivateRegistry,
  type PassthroughServer,
  type PrivateRegistry,
  type PrivateRegistryOptions,
  startPassthrough,
} from './private-registry.ts';

const image = plainManifest();
const blob = randomBlob(2000);
const ALICE = basic('alice', 'sesame');
const BOB = basic('bob', 'builder');
const CAROL = basic('carol', 'singer');

const EMPTY = contentOf(Buffer.from('{}'));
const signature = attachmentTo(image);

/** Alice pushes to team/app, Bob to bob/app; Carol only pulls from team/app. */
async function start(
  t: ExecutionContext,
  refusal: 'denied' | 'hidden' = 'denied',
  before: PrivateRegistryOptions['before'] = () => undefined,
): Promise<{upstream: PrivateRegistry; server: PassthroughServer}> {
  const upstream = await createPrivateRegistry(t, {
    users: {alice: 'sesame', bob: 'builder', carol: 'singer'},
    refusal,
    before,
    repositories: {
      'team/app': {
        readers: ['alice', 'carol'],
        writers: ['alice'],
        tags: {1: image},
        manifests: [image, signature],
        blobs: [blob, EMPTY],
      },
      'bob/app': {readers: ['bob'], writers: ['bob'], tags: {}, manifests: [], blobs: []},
    },
  });
  const server = await startPassthrough(t, upstream, {}, {push: 'through'});
  return {upstream, server};
}

const UPLOADS = '/blobs/uploads/';
const put = ({bytes, mediaType}: typeof signature) => ({
  method: 'PUT',
  headers: {'content-type': mediaType},
  body: bytes,
});

test('a push is written with the login of its caller, who must be allowed it by the upstream', async (t) => {
  const {server, upstream} = await start(t);
  const layer = randomBlob(3000);
  const pushed = imageManifest([layer]);
  const push = async (who: string | undefined) => {
    const begun = await server.as(who, `/v2/team/app${UPLOADS}`, {method: 'POST'});
    if (begun.status !== 202) return begun.status;
    const path = new URL(String(begun.headers['location']), server.url).pathname;
    const headers = {'content-type': 'application/octet-stream'};
    const closed = await server.as(who, `${path}?digest=${layer.digest}`, {
      method: 'PUT',
      headers,
      body: layer.bytes,
    });
    t.is(closed.status, 201, String(closed.body));
    return (await server.as(who, '/v2/team/app/manifests/2', put(pushed))).status;
  };
  t.is(await push(ALICE), 201);
  t.is(upstream.options.repositories['team/app']?.tags[2]?.digest, pushed.digest);
  for (const who of [BOB, CAROL]) {
    t.is(await push(who), 403);
    t.is((await server.as(who, '/v2/team/app/manifests/3', put(pushed))).status, 403);
  }
  t.is(upstream.options.repositories['team/app']?.tags[3], undefined);
});

for (const scheme of ['bearer', 'basic'] as const)
  test(`a client that pushes without a login is told where to log in, over ${scheme}`, async (t) => {
    const {server, upstream} = await start(t);
    upstream.options.scheme = scheme;
    const anonymous = await server.as(undefined, '/token?service=backref/private.example');
    const {token} = anonymous.json() as {token: string};
    const requests: [method: string, path: string, scope: string][] = [
      ['HEAD', `/blobs/${blob.digest}`, 'pull'],
      ['HEAD', '/manifests/1', 'pull'],
      ['POST', UPLOADS, 'pull,push'],
      ['PUT', '/manifests/1', 'pull,push'],
      ['DELETE', '/manifests/1', 'delete'],
    ];
    for (const [method, path, scope] of requests) {
      const got = await server.as(undefined, `/v2/team/app${path}`, method === 'PUT' ? put(image) : {method});
      t.is(got.status, 401, `${method} ${path} ${got.body}`);
      const challenge = String(got.headers['www-authenticate']);
      t.true(challenge.includes(`scope="repository:team/app:${scope}"`), challenge);
      t.is((await server.as(`Bearer ${token}`, `/v2/team/app${path}`, {method})).status, 401);
    }
  });

test('a blob is mounted only from where the upstream lets this caller mount it', async (t) => {
  const {server, upstream} = await start(t);
  t.is((await server.as(ALICE, `/v2/team/app/blobs/${blob.digest}`)).status, 200);
  await server.idle();
  const count = upstream.requests.length;
  for (const from of ['', '&from=team/app', '&from=private.example/team/app']) {
    const path = `/v2/bob/app${UPLOADS}?mount=${blob.digest}${from}`;
    t.is((await server.as(BOB, path, {method: 'POST'})).status, 202, from);
  }
  t.false(upstream.since(count).some((line) => /mount=[^&]*$/.test(line) && line.includes('from=team')));
  t.is((await server.as(BOB, `/v2/bob/app/blobs/${blob.digest}`)).status, 404);
  const own = upstream.options.repositories;
  own['team/app']?.readers.push('bob');
  t.is((await server.as(BOB, `/v2/team/app/blobs/${blob.digest}`)).status, 200);
  const mount = `/v2/bob/app${UPLOADS}?mount=${blob.digest}`;
  t.is((await server.as(BOB, mount, {method: 'POST'})).status, 201);
  t.is((await server.as(BOB, `/v2/bob/app/blobs/${blob.digest}`)).status, 200);
});

for (const refusal of ['denied', 'hidden'] as const)
  test(`who may not delete takes nothing away from the others, where the upstream says "${refusal}"`, async (t) => {
    const {server} = await start(t, refusal);
    const paths = [`/manifests/${signature.digest}`, `/blobs/${blob.digest}`, '/manifests/1'];
    for (const path of paths) t.is((await server.as(ALICE, `/v2/team/app${path}`)).status, 200);
    await server.idle();
    for (const path of paths)
      for (const who of [BOB, CAROL, undefined]) {
        const got = await server.as(who, `/v2/team/app${path}`, {method: 'DELETE'});
        t.true(got.status >= 400, path);
        const seen = await server.as(ALICE, `/v2/team/app${path}`);
        t.is(seen.status, 200);
        t.regex(String(seen.headers['cache-status']), /hit/);
      }
  });

test('the fallback tag of an upstream is written with the login of who attached', async (t) => {
  const {server, upstream} = await start(t);
  const attached = await server.as(ALICE, `/v2/team/app/manifests/${signature.digest}`, put(signature));
  t.is(attached.status, 201, String(attached.body));
  const tag = fallbackTag(image.digest);
  const written = upstream.requests.filter(({method, url}) => method === 'PUT' && url.endsWith(tag));
  t.deepEqual(
    written.map(({headers}) => headers.authorization),
    ['Bearer of-alice'],
  );
  t.regex(String(upstream.options.repositories['team/app']?.tags[tag]?.bytes), new RegExp(signature.digest));
});

test('a fallback tag that could not be written waits for the next push, without the login', async (t) => {
  const {server, upstream} = await start(t);
  const tag = fallbackTag(image.digest);
  const before = (request: {method: string; url: string}) =>
    request.method === 'PUT' && request.url.endsWith(tag) ? {status: 503} : undefined;
  Object.assign(upstream.options, {before});
  t.is((await server.as(ALICE, `/v2/team/app/manifests/${signature.digest}`, put(signature))).status, 201);
  const next = await server.restart();
  Object.assign(upstream.options, {before: undefined});
  const count = upstream.requests.length;
  const headers = {host: 'private.mirror.test', authorization: ALICE};
  t.is((await next.ask('/v2/team/app/manifests/1', {headers})).status, 200);
  t.deepEqual(
    upstream.since(count).filter((line) => line.includes(tag)),
    [],
  );
  const again = await next.ask(`/v2/team/app/manifests/${signature.digest}`, {
    ...put(signature),
    headers: {...headers, 'content-type': signature.mediaType},
  });
  t.is(again.status, 201);
  t.regex(String(upstream.options.repositories['team/app']?.tags[tag]?.bytes), new RegExp(signature.digest));
});

test('guessing by pushes is limited for each address', async (t) => {
  const {server, upstream} = await start(t);
  const push = (who: string) => server.as(who, `/v2/team/app${UPLOADS}`, {method: 'POST'});
  t.is((await push(ALICE)).status, 202);
  for (let guess = 1; guess <= 10; guess += 1) {
    const got = await push(basic('alice', `guess ${guess}`));
    t.is(got.status, 401);
    t.regex(String(got.headers['www-authenticate']), /error="invalid_token"$/);
  }
  const count = upstream.requests.length;
  t.is((await push(basic('alice', 'one more'))).status, 429);
  t.is(upstream.requests.length, count);
  t.is((await push(ALICE)).status, 202);
});

test('an upload stays for its caller when others ask about it, from whom the upstream hides it', async (t) => {
  const location = '/v2/team/app/blobs/uploads/1';
  const {server} = await start(t, 'hidden', ({method, url, headers}) =>
    method === 'GET' && url === location && headers.authorization === 'Bearer of-alice'
      ? {status: 204, headers: {location, range: '0-0'}}
      : undefined,
  );
  const begun = await server.as(ALICE, `/v2/team/app${UPLOADS}`, {method: 'POST'});
  const path = new URL(String(begun.headers['location']), server.url).pathname;
  const headers = {'content-type': 'application/octet-stream'};
  const layer = randomBlob(100);
  for (const method of ['GET', 'DELETE', 'PATCH', 'PUT']) {
    const more = method.startsWith('P') ? {headers, body: 'not of Alice'} : {};
    const query = method === 'PUT' ? `?digest=${layer.digest}` : '';
    t.is((await server.as(BOB, `${path}${query}`, {method, ...more})).status, 404, method);
    t.is((await server.as(ALICE, path)).status, 204, method);
  }
  const ended = await server.as(ALICE, `${path}?digest=${layer.digest}`, {
    method: 'PUT',
    headers,
    body: layer.bytes,
  });
  t.is(ended.status, 201, String(ended.body));
  t.deepEqual((await server.as(ALICE, `/v2/team/app/blobs/${layer.digest}`)).body, layer.bytes);
});
