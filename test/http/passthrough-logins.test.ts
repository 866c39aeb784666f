import {setTimeout as pause} from 'node:timers/promises';
import test, {type ExecutionContext} from 'ava';
import {type BackrefOptions, createClockWithoutPauses} from '../support/backref.ts';
import {plainManifest} from '../support/content.ts';
import type {ReceivedRequest} from '../support/scripted-upstream.ts';
import {
  basic,
  createPrivateRegistry,
  type PassthroughServer,
  type PrivateRegistryOptions,
  startPassthrough,
} from './private-registry.ts';
import {errorOf} from './spec-codes.ts';

const image = plainManifest();
const ALICE = basic('alice', 'sesame');
const BOB = basic('bob', 'builder');
const ALICES = '/v2/team/app/manifests/1';
const OPEN = '/v2/open/app/manifests/1';

const repositories = (): PrivateRegistryOptions['repositories'] => ({
  'team/app': {readers: ['alice'], tags: {1: image, 2: image}, manifests: [], blobs: []},
  'open/app': {readers: ['anonymous'], tags: {1: image}, manifests: [], blobs: []},
  login: {readers: ['alice'], tags: {1: image}, manifests: [], blobs: []},
});

async function start(
  t: ExecutionContext,
  changes: Partial<PrivateRegistryOptions> = {},
  options: Partial<BackrefOptions> = {},
) {
  const users = {alice: 'sesame', bob: 'builder'};
  const upstream = await createPrivateRegistry(t, {users, repositories: repositories(), ...changes});
  return {upstream, server: await startPassthrough(t, upstream, options)};
}

const isFrom = ({headers}: ReceivedRequest, user: string): boolean => {
  const [, text = ''] = /^Basic (.+)$/.exec(String(headers.authorization)) ?? [];
  return Buffer.from(text, 'base64').toString().startsWith(`${user}:`);
};

/** What comes of so many wrong passwords of Alice's, each for these paths in turn: how often each of their last statuses. */
async function guesses(server: PassthroughServer, count: number, ...paths: string[]) {
  const statuses: Record<number, number> = {};
  for (let guess = 0; guess < count; guess += 1) {
    let status = 0;
    for (const path of paths) ({status} = await server.as(basic('alice', `guess ${guess}`), path));
    statuses[status] = (statuses[status] ?? 0) + 1;
  }
  return statuses;
}

test('a login is not right because the upstream answered without asking for one', async (t) => {
  const open = await start(t, {scheme: 'basic'});
  t.deepEqual(await guesses(open.server, 15, OPEN, ALICES), {401: 10, 429: 5});
  const unasked = await start(t, {before: ({url}) => (url === '/v2/' ? {body: '{}'} : undefined)});
  t.deepEqual(await guesses(unasked.server, 15, '/token?service=backref/private.example', ALICES), {
    401: 10,
    429: 5,
  });
});

test('a password that was right counts as a guess once the upstream refuses it', async (t) => {
  const {server, upstream} = await start(t);
  t.is((await server.as(ALICE, ALICES)).status, 200);
  upstream.options.users['alice'] = 'changed';
  server.clock.move(400_000);
  for (let count = 0; count < 10; count += 1) t.is((await server.as(ALICE, ALICES)).status, 401);
  t.is((await server.as(ALICE, ALICES)).status, 429);
});

test('right logins that may not pull do not lock out their address', async (t) => {
  for (const scheme of ['bearer', 'basic'] as const) {
    const {server} = await start(t, {scheme});
    for (let count = 0; count < 12; count += 1) t.is((await server.as(BOB, ALICES)).status, 403);
    t.is((await server.as(ALICE, ALICES)).status, 200);
  }
});

test('guesses that a slow upstream has not answered do not hold up the others of their address', async (t) => {
  const {promise: mayAnswer, resolve: answer} = Promise.withResolvers<void>();
  t.teardown(answer);
  const before: PrivateRegistryOptions['before'] = (request) =>
    isFrom(request, 'mallory') ? {before: mayAnswer, status: 401} : undefined;
  const {server} = await start(t, {before}, {clock: createClockWithoutPauses()});
  const slow = Array.from({length: 10}, (_, guess) => server.as(basic('mallory', `${guess}`), ALICES));
  await pause(100);
  t.is((await server.as(ALICE, ALICES)).status, 200);
  answer();
  for (const {status} of await Promise.all(slow)) t.is(status, 401);
  t.is((await server.as(basic('mallory', 'one more'), ALICES)).status, 429);
});

test("a token service that fails for one caller's login is asked for the others", async (t) => {
  const before: PrivateRegistryOptions['before'] = (request) =>
    isFrom(request, 'mallory') ? {status: 500} : undefined;
  const {server} = await start(t, {before}, {clock: createClockWithoutPauses()});
  for (const path of [ALICES, '/v2/'])
    for (let count = 0; count < 12; count += 1) await server.as(basic('mallory', `${count}`), path);
  t.is((await server.as(ALICE, ALICES)).status, 200);
  t.is((await server.as(basic('alice', 'wrong'), '/v2/')).status, 401);
});

test('logins that cannot be checked say nothing about a repository, whatever its name', async (t) => {
  const before: PrivateRegistryOptions['before'] = ({url}) => (url === '/v2/' ? {status: 500} : undefined);
  const {server} = await start(t, {before}, {clock: createClockWithoutPauses()});
  for (let count = 0; count < 10; count += 1) await server.as(basic('mallory', `${count}`), '/v2/');
  t.is((await server.as(ALICE, '/v2/login/manifests/1')).status, 200);
});

test('a login in a token does not follow the registry to another upstream', async (t) => {
  const {server} = await start(t);
  const {token} = (await server.login(ALICE, ALICES)).json() as {token: string};
  t.is((await server.as(`Bearer ${token}`, ALICES)).status, 200);
  const other = await createPrivateRegistry(t, {users: {}, repositories: {}});
  server.reload({
    registries: [
      {
        name: 'private.example',
        library: false,
        hosts: ['private.mirror.test'],
        url: other.url,
        upstream: {credentials: {kind: 'passthrough'}},
        tags: {keepDeleted: 0},
      },
    ],
  });
  const refused = await server.as(`Bearer ${token}`, ALICES);
  t.is(refused.status, 401);
  t.is(errorOf(refused).message, 'the token is for another upstream of this registry');
  t.false(other.requests.some((request) => isFrom(request, 'alice')));
});
