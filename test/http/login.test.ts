import test, {type ExecutionContext} from 'ava';
import type {Action, Caller} from '../../src/caller.ts';
import {createEvents} from '../../src/events.ts';
import type {DoorParts} from '../../src/http/door.ts';
import type {Verbs} from '../../src/http/routes.ts';
import {createAuthenticator, type Identity, LoginRefused} from '../../src/identity/authenticator.ts';
import {parseScope} from '../../src/identity/scopes.ts';
import {ask, OPEN_DOOR, startHttpServer} from './http-server.ts';
import {errorOf} from './spec-codes.ts';

const scopes = (text: string) => text.split(' ').flatMap((part) => parseScope(part) ?? []);

/** Who has which bearer token. */
const TOKENS: Record<string, Identity> = {
  alice: {names: ['user:alice']},
  robot: {names: ['robot:ci'], bound: {may: ['pull'], on: ['docker.io/app']}},
  'pull-app': {names: ['user:alice'], scopes: scopes('repository:app:pull')},
  'push-app': {names: ['user:alice'], scopes: scopes('repository:app:pull,push')},
  catalog: {names: ['user:alice'], scopes: scopes('registry:catalog:*')},
  nobody: {names: ['anonymous'], scopes: []},
};

const authenticator = createAuthenticator(
  [
    {
      name: 'test',
      isOpen: () => true,
      async check({secret, scheme}) {
        const identity = TOKENS[secret];
        if (!identity) throw new LoginRefused('that is wrong', {isToken: scheme === 'bearer'});
        return identity;
      },
    },
  ],
  createEvents(),
);

interface Started {
  get(
    path: string,
    options?: {method?: string; token?: string; authorization?: string},
  ): ReturnType<typeof ask>;
  /** Who reached the rules, and to do what. */
  asked: [names: readonly string[], action: Action][];
}

/** @param denies whose first name is denied everything */
async function start(t: ExecutionContext, denies: string[], door: Partial<DoorParts> = {}): Promise<Started> {
  const asked: Started['asked'] = [];
  const decide = (caller: Caller, action: Action) => {
    asked.push([caller.names, action]);
    return denies.includes(caller.names[0])
      ? ({verdict: 'denied', failure: undefined, reason: 'no rule allows it'} as const)
      : ({verdict: 'allowed'} as const);
  };
  const access: DoorParts['access'] = {
    ...OPEN_DOOR.access,
    registry: (_registry, caller, action) => decide(caller, action),
    repository: (_route, caller, action) => decide(caller, action),
  };
  const verbs = {
    tagLists: {list: async () => ({entries: [], next: undefined, report: {how: 'hit'}})},
    catalog: {ofAll: async () => ({entries: [], next: undefined})},
  } as unknown as Verbs;
  const {port} = await startHttpServer(t, {verbs, access, authenticator, ...door});
  return {
    asked,
    get: (path, {method = 'GET', token, authorization = token && `Bearer ${token}`} = {}) =>
      ask(port, method, path, undefined, {
        Host: 'registry.test:5000',
        ...(authorization === undefined ? {} : {Authorization: authorization}),
      }),
  };
}

const TAGS = '/v2/app/tags/list';

test('anonymous callers that are denied learn where to log in, and for what', async (t) => {
  const {get} = await start(t, ['anonymous']);
  const got = await get(TAGS);
  t.is(got.status, 401);
  t.is(errorOf(got).code, 'UNAUTHORIZED');
  t.regex(errorOf(got).message, /authentication required: no rule allows it/);
  t.is(
    got.headers['www-authenticate'],
    'Bearer realm="http://registry.test:5000/token",service="registry.test",scope="repository:app:pull"',
  );
});

test('HEAD is challenged as GET is, and the scope names the repository as its client does', async (t) => {
  const {get} = await start(t, ['anonymous']);
  const got = await get('/v2/ghcr.io/org/app/tags/list', {method: 'HEAD'});
  t.is(got.status, 401);
  t.regex(got.headers['www-authenticate'] ?? '', /scope="repository:ghcr.io\/org\/app:pull"$/);
});

test('a client that pushes is told to get a token for pulls and pushes, one that deletes for deletions', async (t) => {
  const {get} = await start(t, ['anonymous']);
  const push = await get('/v2/app/blobs/uploads/', {method: 'POST'});
  t.regex(push.headers['www-authenticate'] ?? '', /scope="repository:app:pull,push"$/);
  const remove = await get('/v2/app/manifests/1', {method: 'DELETE'});
  t.regex(remove.headers['www-authenticate'] ?? '', /scope="repository:app:delete"$/);
  const catalog = await get('/v2/_catalog');
  t.regex(catalog.headers['www-authenticate'] ?? '', /scope="registry:catalog:\*"$/);
});

test('a caller that has logged in and is denied gets 403 with the reason and no challenge', async (t) => {
  const {get} = await start(t, ['user:alice']);
  const got = await get(TAGS, {token: 'alice'});
  t.is(got.status, 403);
  t.is(errorOf(got).code, 'DENIED');
  t.is(errorOf(got).message, 'no rule allows it');
  t.is(got.headers['www-authenticate'], undefined);
});

test('anonymous callers get 403 as well where nobody can log in', async (t) => {
  const {get} = await start(t, ['anonymous'], {authenticator: createAuthenticator([], createEvents())});
  t.is((await get(TAGS)).status, 403);
  t.is((await get(TAGS, {authorization: 'Basic nonsense'})).status, 403);
  t.is((await get('/v2/')).status, 200);
});

test('the ping is 401 without a credential once somebody can log in, and 200 with one', async (t) => {
  const {get} = await start(t, []);
  const got = await get('/v2/');
  t.is(got.status, 401);
  t.is(
    got.headers['www-authenticate'],
    'Bearer realm="http://registry.test:5000/token",service="registry.test"',
  );
  t.is((await get('/v2/', {token: 'alice'})).status, 200);
  t.is((await get('/v2/', {token: 'nobody'})).status, 200);
  t.is((await get('/v2/', {token: 'unknown'})).status, 401);
});

test('what is open to everybody needs no credential, but a wrong one is refused there, too', async (t) => {
  const {get, asked} = await start(t, []);
  t.is((await get(TAGS)).status, 200);
  const wrong = await get(TAGS, {authorization: `Basic ${Buffer.from('a:b').toString('base64')}`});
  t.is(wrong.status, 401);
  t.is(errorOf(wrong).message, 'that is wrong');
  t.notRegex(wrong.headers['www-authenticate'] ?? '', /error=/);
  const expired = await get(TAGS, {token: 'unknown'});
  t.regex(expired.headers['www-authenticate'] ?? '', /scope="repository:app:pull",error="invalid_token"$/);
  t.deepEqual(asked, [[['anonymous'], 'pull']]);
});

test('probes need no credential and read none', async (t) => {
  const {get} = await start(t, ['anonymous']);
  t.is((await get('/healthz', {token: 'unknown'})).status, 200);
});

test('a token that is for something else is refused, so that its client gets a wider one', async (t) => {
  const {get, asked} = await start(t, []);
  t.is((await get(TAGS, {token: 'pull-app'})).status, 200);
  t.is((await get('/v2/_catalog', {token: 'catalog'})).status, 200);
  asked.length = 0;
  for (const [path, token, method] of [
    ['/v2/other/tags/list', 'push-app', 'GET'],
    ['/v2/app/manifests/1', 'pull-app', 'PUT'],
    ['/v2/app/manifests/1', 'push-app', 'DELETE'],
    ['/v2/_catalog', 'pull-app', 'GET'],
    [TAGS, 'catalog', 'GET'],
    [TAGS, 'nobody', 'GET'],
  ] as const) {
    const got = await get(path, {token, method});
    t.is(got.status, 401, path);
    t.regex(got.headers['www-authenticate'] ?? '', /,error="insufficient_scope"$/, path);
  }
  t.deepEqual(asked, [], 'nothing reached the rules');
});

test('the rules get the names and the bound of the caller', async (t) => {
  const seen: Caller[] = [];
  const access: DoorParts['access'] = {
    ...OPEN_DOOR.access,
    registry: () => ({verdict: 'allowed'}),
    repository(_route, caller) {
      seen.push(caller);
      return {verdict: 'allowed'};
    },
  };
  const {get} = await start(t, [], {access});
  await get(TAGS, {token: 'robot'});
  t.deepEqual(seen[0]?.names, ['robot:ci']);
  t.deepEqual(seen[0]?.bound, {may: ['pull'], on: ['docker.io/app']});
  t.is(seen[0]?.key, 'anonymous', 'upstreams cannot tell it from others');
});

test('headers that name a user are not believed', async (t) => {
  const {port} = await startHttpServer(t, {verbs: {} as Verbs, authenticator});
  for (const name of [
    'X-Forwarded-User',
    'X-Remote-User',
    'Remote-User',
    'X-Auth-Request-User',
    'From',
    'Cookie',
  ])
    for (const value of ['alice', 'user:alice', 'Bearer alice'])
      t.is((await ask(port, 'GET', '/v2/', undefined, {[name]: value})).status, 401, name);
});

test('of two Authorization headers the first one counts, whatever the second one says', async (t) => {
  const {port} = await startHttpServer(t, {verbs: {} as Verbs, authenticator});
  const both = (...tokens: string[]) => tokens.flatMap((token) => ['Authorization', `Bearer ${token}`]);
  const status = async (...tokens: string[]) =>
    (await ask(port, 'GET', '/v2/', undefined, ['Host', 'registry.test', ...both(...tokens)])).status;
  t.is(await status('alice', 'unknown'), 200);
  t.is(await status('unknown', 'alice'), 401);
});

test('the realm is the configured one, where one is configured', async (t) => {
  const loginPlace = {service: 'registry.test', realm: 'https://login.test/token'};
  const {get} = await start(t, [], {loginPlace});
  t.regex(
    (await get('/v2/')).headers['www-authenticate'] ?? '',
    /^Bearer realm="https:\/\/login.test\/token",/,
  );
});

test('a name that no quoted string can hold does not break the challenge', async (t) => {
  const {get} = await start(t, []);
  const got = await get('/v2/a%22%2Cx=%22%0Ab/tags/list', {token: 'unknown'});
  t.regex(
    got.headers['www-authenticate'] ?? '',
    /^Bearer [^"]*"[^"]*",service="registry.test",scope="[^"]*"/,
  );
});
