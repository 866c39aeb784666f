import {get} from 'node:http';
import test, {type ExecutionContext} from 'ava';
import {fallbackTag} from '../../src/oci/referrers.ts';
import type {BackrefOptions} from '../support/backref.ts';
import {attachmentTo, plainManifest, randomBlob} from '../support/content.ts';
import {createScriptedUpstream, type ScriptedAnswer} from '../support/scripted-upstream.ts';
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
/** Too large to be held back until it is verified. */
const arriving = randomBlob(3 * 2 ** 20);
const ALICE = basic('alice', 'sesame');
const BOB = basic('bob', 'builder');

const signature = attachmentTo(image);
const referrer = {
  mediaType: signature.mediaType,
  digest: signature.digest,
  size: signature.bytes.length,
  artifactType: 'application/x',
};

const repositories = (): PrivateRegistryOptions['repositories'] => ({
  'team/app': {
    readers: ['alice'],
    tags: {1: image, signed: signature},
    manifests: [signature],
    blobs: [blob, arriving],
    referrers: {[image.digest]: [referrer]},
  },
  'bob/app': {readers: ['bob'], tags: {x: plainManifest()}, manifests: [], blobs: [], referrers: {}},
});

/** Every way to read something of a repository. */
const READS: [what: string, path: string, headers?: Record<string, string>][] = [
  ['a manifest by tag', '/manifests/1'],
  ['a manifest by digest', `/manifests/${image.digest}`],
  ['a referrer by digest', `/manifests/${signature.digest}`],
  ['a blob', `/blobs/${blob.digest}`],
  ['a range', `/blobs/${blob.digest}`, {range: 'bytes=0-9'}],
  ['the condition of a blob', `/blobs/${blob.digest}`, {'if-none-match': `"${blob.digest}"`}],
  ['tags', '/tags/list'],
  ['referrers', `/referrers/${image.digest}`],
  ['a fallback tag', `/manifests/${fallbackTag(image.digest)}`],
];

interface Started {
  upstream: PrivateRegistry;
  server: PassthroughServer;
}

async function start(
  t: ExecutionContext,
  changes: Partial<PrivateRegistryOptions> = {},
  options: Partial<BackrefOptions> = {},
): Promise<Started> {
  const upstream = await createPrivateRegistry(t, {
    users: {alice: 'sesame', bob: 'builder'},
    repositories: repositories(),
    ...changes,
  });
  return {upstream, server: await startPassthrough(t, upstream, options)};
}

/** Has Alice read everything, so that it is stored. */
async function cacheAll(t: ExecutionContext, server: PassthroughServer): Promise<void> {
  for (const [what, path, headers = {}] of READS) {
    const got = await server.as(ALICE, `/v2/team/app${path}`, {headers});
    t.true(got.status < 400, `${what}: ${got.status} ${got.body}`);
  }
  await server.idle();
}

/** What differs between any two requests, and any two servers, is left out. */
function comparable({status, headers, body}: Awaited<ReturnType<PassthroughServer['as']>>): string {
  const {date: _, 'x-request-id': id = '', ...rest} = headers;
  return JSON.stringify({status, headers: rest, body: body.toString()}).replaceAll(String(id), 'ID');
}

for (const refusal of ['denied', 'hidden'] as const)
  test(`who may not pull gets the same as if nothing were stored, where the upstream says "${refusal}"`, async (t) => {
    const {server, upstream} = await start(t, {refusal});
    const empty = await startPassthrough(t, upstream);
    await cacheAll(t, server);
    for (const who of [BOB, undefined, basic('alice', 'guess')])
      for (const method of ['GET', 'HEAD'])
        for (const [what, path, headers = {}] of READS) {
          const asked = [who, `/v2/team/app${path}`, {method, headers}] as const;
          const got = await server.as(...asked);
          t.true(got.status >= 400, what);
          if (got.status !== 429) t.is(comparable(got), comparable(await empty.as(...asked)), what);
        }
  });

test('what one repository has is not served from another one that the caller may pull from', async (t) => {
  const {server} = await start(t);
  await cacheAll(t, server);
  for (const path of [`/manifests/${image.digest}`, `/blobs/${blob.digest}`, `/blobs/${arriving.digest}`]) {
    t.is((await server.as(BOB, `/v2/bob/app${path}`)).status, 404, path);
    t.is((await server.as(BOB, `/v2/bob/app${path}`, {method: 'HEAD'})).status, 404, path);
  }
  const listed = await server.as(BOB, `/v2/bob/app/referrers/${image.digest}`);
  t.false(listed.body.includes(signature.digest));
  t.is(listed.status, 404);
});

test('a running download is joined only by who may pull it', async (t) => {
  const {promise: mayEnd, resolve: end} = Promise.withResolvers<void>();
  t.teardown(end);
  const slow: ScriptedAnswer = {
    headers: {
      'content-type': 'application/octet-stream',
      'content-length': String(arriving.bytes.length),
    },
    body: [arriving.bytes.subarray(0, 1000), {wait: mayEnd}, arriving.bytes.subarray(1000)],
  };
  const path = `/v2/team/app/blobs/${arriving.digest}`;
  const {server} = await start(t, {
    before: ({method, url, headers}) =>
      method === 'GET' && url === path && headers.authorization === 'Bearer of-alice' ? slow : undefined,
  });
  const first = await new Promise<Buffer>((resolve, reject) => {
    const headers = {host: 'private.mirror.test', authorization: ALICE};
    get({host: '127.0.0.1', port: server.port, path, headers, agent: false}, (message) => {
      message.once('data', resolve);
      message.once('error', () => {});
      message.resume();
    }).once('error', reject);
  });
  t.true(first.length > 0);
  t.is((await server.as(BOB, path)).status, 403);
  t.is((await server.as(BOB, path, {headers: {range: 'bytes=0-9'}})).status, 403);
  t.is((await server.as(BOB, path, {method: 'HEAD'})).status, 403);
  t.is((await server.as(undefined, path)).status, 401);
  t.is((await server.as(BOB, `/v2/bob/app/blobs/${arriving.digest}`)).status, 404);
  const range = await server.as(ALICE, path, {headers: {range: 'bytes=0-9'}});
  t.deepEqual(range.body, arriving.bytes.subarray(0, 10));
  end();
  await server.idle();
});

test('the catalogue shows a caller what it was approved for', async (t) => {
  const {server} = await start(t);
  await cacheAll(t, server);
  t.is((await server.as(BOB, '/v2/bob/app/manifests/x')).status, 200);
  const listed = async (who: string | undefined, host = 'private.mirror.test') =>
    ((await server.as(who, '/v2/_catalog', {headers: {host}})).json() as {repositories: string[]})
      .repositories;
  t.deepEqual(await listed(ALICE), ['team/app']);
  t.deepEqual(await listed(BOB), ['bob/app']);
  t.deepEqual(await listed(undefined), []);
  t.deepEqual(await listed(undefined, 'elsewhere.test'), []);
  t.deepEqual(await listed(ALICE, 'elsewhere.test'), []);
  server.clock.move(60_000);
  t.deepEqual(await listed(ALICE), []);
});

test('in an outage, only those are served whom the upstream has approved, and only within maxStale', async (t) => {
  const {server, upstream} = await start(t);
  await cacheAll(t, server);
  t.is((await server.as(BOB, '/v2/bob/app/manifests/x')).status, 200);
  upstream.fail(true);
  server.clock.move(60 * 60_000);
  for (const [what, path, headers = {}] of READS) {
    const got = await server.as(ALICE, `/v2/team/app${path}`, {headers});
    t.true(got.status < 400, `${what}: ${got.status} ${got.body}`);
    t.is((await server.as(BOB, `/v2/team/app${path}`, {headers})).status, 503, what);
    t.is((await server.as(undefined, `/v2/team/app${path}`, {headers})).status, 503, what);
  }
  t.regex(String((await server.as(ALICE, '/v2/team/app/manifests/1')).headers['warning']), /^299 /);
  server.clock.move(7 * 24 * 60 * 60_000);
  for (const [what, path, headers = {}] of READS)
    t.is((await server.as(ALICE, `/v2/team/app${path}`, {headers})).status, 503, what);
});

test('a token is got during an outage, and opens what was approved before', async (t) => {
  const {server, upstream} = await start(t);
  await cacheAll(t, server);
  server.clock.move(60 * 60_000);
  const {headers} = await server.as(undefined, '/v2/');
  t.regex(String(headers['www-authenticate']), /service="backref\/private.example"/);
  upstream.fail(true);
  const query = 'service=backref/private.example&scope=repository:team/app:pull';
  const issued = await server.as(ALICE, `/token?${query}`);
  t.is(issued.status, 200);
  const {token} = issued.json() as {token: string};
  t.is((await server.as(`Bearer ${token}`, '/v2/team/app/manifests/1')).status, 200);
  const forged = (await server.as(basic('alice', 'guess'), `/token?${query}`)).json() as {token: string};
  t.is((await server.as(`Bearer ${forged.token}`, '/v2/team/app/manifests/1')).status, 503);
});

test('a refusal ends an approval at once, also for the next outage', async (t) => {
  const {server, upstream} = await start(t);
  await cacheAll(t, server);
  upstream.options.repositories['team/app']?.readers.splice(0);
  server.clock.move(60_000);
  t.is((await server.as(ALICE, `/v2/team/app/blobs/${blob.digest}`)).status, 403);
  upstream.fail(true);
  t.is((await server.as(ALICE, `/v2/team/app/blobs/${blob.digest}`)).status, 503);
});

for (const path of ['/manifests/1', '/tags/list', `/referrers/${image.digest}`])
  test(`one caller whom a repository is hidden from does not take ${path} away from the others`, async (t) => {
    const all = repositories();
    all['team/app']?.readers.push('bob');
    const {server, upstream} = await start(t, {refusal: 'hidden', repositories: all});
    await cacheAll(t, server);
    t.is((await server.as(BOB, `/v2/team/app${path}`)).status, 200);
    server.clock.move(59_000);
    // Bob is approved still, when the upstream no longer lets him in.
    upstream.options.repositories['team/app']?.readers.splice(1);
    const headers = {'cache-control': 'no-cache'};
    t.is((await server.as(BOB, `/v2/team/app${path}`, {headers})).status, 403);
    t.is((await server.as(BOB, `/v2/team/app${path}`)).status, 404);
    const count = upstream.requests.length;
    const got = await server.as(ALICE, `/v2/team/app${path}`);
    t.is(got.status, 200);
    if (path.startsWith('/referrers')) t.true(got.body.includes(signature.digest));
    t.deepEqual(upstream.since(count), []);
  });

test('a login goes to no other host: not with a redirect, and not to a token service elsewhere', async (t) => {
  const storage = await createScriptedUpstream(t, [
    {
      request: /^(GET|HEAD) \/storage$/,
      sends: {authorization: undefined},
      answer: ({method}) => ({
        headers: {'content-type': 'application/octet-stream', 'content-length': String(blob.bytes.length)},
        body: method === 'HEAD' ? [] : blob.bytes,
      }),
      always: true,
    },
  ]);
  const redirecting = await start(t, {
    before: ({method, url, headers}) =>
      method === 'GET' && url.includes('/blobs/') && headers.authorization === 'Bearer of-alice'
        ? {status: 307, headers: {location: `http://localhost:${storage.port}/storage`}}
        : undefined,
  });
  t.deepEqual((await redirecting.server.as(ALICE, `/v2/team/app/blobs/${blob.digest}`)).body, blob.bytes);
  const thief = await createScriptedUpstream(t, []);
  const lured = await start(t, {realm: `http://localhost:${thief.port}/token`});
  t.true((await lured.server.as(ALICE, '/v2/team/app/manifests/1')).status >= 400);
  await lured.server.login(ALICE, '/v2/');
  t.is(thief.requests.length, 0);
});

test('a login reaches no other registry, and a password for another host does not reach this one', async (t) => {
  const other = await createPrivateRegistry(t, {users: {}, repositories: {}});
  const {server, upstream} = await start(
    t,
    {},
    {
      registries: [
        {
          name: 'other.example',
          library: false,
          hosts: ['other.mirror.test'],
          url: other.url,
          upstream: {credentials: {kind: 'passthrough'}},
          tags: {keepDeleted: 0},
        },
      ],
    },
  );
  const image1 = '/v2/team/app/manifests/1';
  const issued = (await server.login(ALICE, image1)).json() as {token: string};
  const bearer = `Bearer ${issued.token}`;
  t.is((await server.as(bearer, image1)).status, 200);
  const replayed = await server.as(bearer, image1, {headers: {host: 'other.mirror.test'}});
  t.is(replayed.status, 401);
  t.is(errorOf(replayed).message, 'the token is for another registry');
  const elsewhere = ['/v2/other.example/team/app/manifests/1', `${image1}?ns=other.example`];
  for (const path of elsewhere) for (const login of [ALICE, bearer]) await server.as(login, path);
  const sent = () => other.requests.flatMap(({headers}) => headers.authorization ?? []);
  t.deepEqual(
    sent().filter((text) => text !== 'Bearer of-anonymous'),
    [],
  );
  const count = upstream.requests.length;
  for (const path of ['/v2/private.example/team/app/manifests/1', `${image1}?ns=private.example`])
    for (const host of ['mirror.test', '127.0.0.1', 'other.mirror.test'])
      t.true((await server.as(ALICE, path, {headers: {host}})).status >= 400);
  const logins = upstream.requests.slice(count).flatMap(({headers}) => headers.authorization ?? []);
  t.deepEqual(
    logins.filter((text) => text !== 'Bearer of-anonymous'),
    [],
  );
});

test('a token opens the repositories that it was issued for, and no others', async (t) => {
  const {server} = await start(t);
  const {token} = (await server.login(BOB, '/v2/bob/app/manifests/x')).json() as {token: string};
  t.is((await server.as(`Bearer ${token}`, '/v2/bob/app/manifests/x')).status, 200);
  const got = await server.as(`Bearer ${token}`, '/v2/team/app/manifests/1');
  t.is(got.status, 401);
  t.regex(String(got.headers['www-authenticate']), /error="insufficient_scope"$/);
  const [head, payload = '', sign] = token.split('.');
  const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
  claims.access = [{type: 'repository', name: 'team/app', actions: ['pull']}];
  const forged = [head, Buffer.from(JSON.stringify(claims)).toString('base64url'), sign].join('.');
  t.is((await server.as(`Bearer ${forged}`, '/v2/team/app/manifests/1')).status, 401);
  for (const foreign of ['of-alice', 'nonsense', payload])
    t.is((await server.as(`Bearer ${foreign}`, '/v2/bob/app/manifests/x')).status, 401);
});

test('guessing is limited for each address, and does not hold up who is known to be right', async (t) => {
  const {server, upstream} = await start(t);
  t.is((await server.as(ALICE, '/v2/team/app/manifests/1')).status, 200);
  for (let guess = 1; guess <= 10; guess += 1)
    t.is((await server.as(basic('alice', `guess ${guess}`), '/v2/team/app/manifests/1')).status, 401);
  const count = upstream.requests.length;
  const limited = await server.as(basic('alice', 'one more'), '/v2/team/app/manifests/1');
  t.is(limited.status, 429);
  t.truthy(limited.headers['retry-after']);
  t.is(upstream.requests.length, count);
  server.clock.move(59_000);
  t.is((await server.as(ALICE, `/v2/team/app/blobs/${blob.digest}`)).status, 200);
});

test("one caller's exhausted rate limit is not that of the others", async (t) => {
  const {server} = await start(t, {
    before: ({headers}) =>
      headers.authorization === 'Bearer of-bob' ? {status: 429, headers: {'retry-after': '3600'}} : undefined,
  });
  t.is((await server.as(BOB, '/v2/bob/app/manifests/x')).status, 503);
  t.is((await server.as(ALICE, '/v2/team/app/manifests/1')).status, 200);
});

test('the token of a robot is not sent to an upstream', async (t) => {
  const {server, upstream} = await start(t);
  const got = await server.as(basic('ci', `backref_robot_${'0'.repeat(49)}`), '/v2/team/app/manifests/1');
  t.is(got.status, 401);
  t.is(upstream.requests.length, 0);
});

test('a wrong login does not pass for none where the catalogue is asked for', async (t) => {
  const {server} = await start(t);
  const got = await server.as(basic('alice', 'guess'), '/v2/_catalog');
  t.is(got.status, 401);
  t.regex(String(got.headers['www-authenticate']), /error="invalid_token"$/);
});

for (const tags of [[], ['1']])
  test(`who is shown ${tags.length === 0 ? 'an empty list of tags' : 'tags'} alone gets no content`, async (t) => {
    const {server} = await start(t, {
      refusal: 'hidden',
      before: ({url, headers}) =>
        url.startsWith('/v2/team/app/tags/list') && headers.authorization === 'Bearer of-bob'
          ? {headers: {'content-type': 'application/json'}, body: JSON.stringify({name: 'team/app', tags})}
          : undefined,
    });
    await cacheAll(t, server);
    t.is((await server.as(BOB, '/v2/team/app/tags/list')).status, tags.length === 0 ? 404 : 200);
    for (const [what, path, headers = {}] of READS.filter(([, asked]) => asked !== '/tags/list'))
      t.is((await server.as(BOB, `/v2/team/app${path}`, {headers})).status, 404, what);
  });

const REVOKED: Record<string, ScriptedAnswer> = {
  ...Object.fromEntries([400, 402, 405, 410, 423, 429, 451].map((status) => [String(status), {status}])),
  'a page': {headers: {'content-type': 'text/html'}, body: '<html></html>'},
};
for (const [how, answer] of Object.entries(REVOKED))
  test(`a permission that is withdrawn with ${how} ends with the approval`, async (t) => {
    let isRevoked = false;
    const {server} = await start(t, {
      before: ({headers}) => (isRevoked && headers.authorization === 'Bearer of-alice' ? answer : undefined),
    });
    const paths = ['/manifests/1', `/blobs/${blob.digest}`];
    for (const path of paths) t.is((await server.as(ALICE, `/v2/team/app${path}`)).status, 200);
    await server.idle();
    isRevoked = true;
    server.clock.move(60_000);
    for (const path of paths) t.true((await server.as(ALICE, `/v2/team/app${path}`)).status >= 400, path);
  });

for (const refusal of ['denied', 'hidden'] as const)
  test(`what an operator is not shown for want of a login is not taken away from callers, where the upstream says "${refusal}"`, async (t) => {
    const {server, upstream} = await start(t, {refusal});
    await cacheAll(t, server);
    const commands = await server.server.commands();
    const {signal} = new AbortController();
    const options = {images: ['private.example/team/app:1'], platforms: [], referrers: true};
    for (const _ of [1, 2]) {
      const {failed} = await commands.warm({...options, signal, progress() {}});
      t.is(failed, 1);
    }
    const count = upstream.requests.length;
    t.is((await server.as(ALICE, '/v2/team/app/manifests/1')).status, 200);
    t.deepEqual(upstream.since(count), []);
  });
