import {once} from 'node:events';
import {Agent, type IncomingMessage, request} from 'node:http';
import test, {type ExecutionContext} from 'ava';
import type {EventMap} from '../../src/events.ts';
import {createEvents} from '../../src/events.ts';
import type {Verbs} from '../../src/http/routes.ts';
import {createAuthenticator, type Identity, type LoginMethod} from '../../src/identity/authenticator.ts';
import {digestOf} from '../../src/oci/digest.ts';
import {parseName} from '../../src/oci/name.ts';
import {HIT} from '../../src/registry/freshness.ts';
import {createGenerations} from '../../src/registry/generations.ts';
import type {Manifests} from '../../src/registry/manifests/manifests.ts';
import type {Decision} from '../../src/registry/place-access.ts';
import {hitReport} from '../../src/registry/quota.ts';
import type {Repeat} from '../../src/registry/repeat.ts';
import {OPEN_DOOR, startHttpServer} from './http-server.ts';

const bytes = Buffer.from('{"schemaVersion":2}');
const digest = digestOf(bytes);
const PATH = `/v2/app/manifests/${digest}`;

type Changes = Partial<Repeat> & Pick<Parameters<typeof startHttpServer>[1], 'access' | 'authenticator'>;

/** A server whose one manifest may be given again, and which counts how often it is asked for, and how often it is given. */
async function start(t: ExecutionContext, {access, authenticator, ...changes}: Changes = {}) {
  const meanwhile = {happens: () => {}};
  const counts = {asked: 0, again: 0};
  const repeat: Repeat = {
    from: Number.NEGATIVE_INFINITY,
    until: Number.POSITIVE_INFINITY,
    generations: [],
    served: {kind: 'manifest', registry: 'docker.io', repository: parseName('app'), digest, isUse: true},
    ...changes,
  };
  const found = {digest, mediaType: 'application/json', size: bytes.length, bytes, report: HIT, repeat};
  const get = async () => {
    counts.asked += 1;
    meanwhile.happens();
    return found;
  };
  const manifests: Manifests = {get, head: get};
  const door = {
    ...(access ? {access} : {}),
    ...(authenticator ? {authenticator} : {}),
  };
  const generations = createGenerations();
  const servedAgain = {
    count: () => {
      counts.again += 1;
    },
    report() {},
  };
  const verbs = {manifests} as unknown as Verbs;
  const server = await startHttpServer(t, {verbs, generations, servedAgain, ...door});
  const agent = new Agent({keepAlive: true});
  t.teardown(() => agent.destroy());
  const send = async (headers = {}, method = 'GET', path = PATH) => {
    const asked = request({host: '127.0.0.1', port: server.port, method, path, headers, agent}).end();
    const [message] = (await once(asked, 'response')) as [IncomingMessage];
    const {statusCode: status, headers: received} = message;
    return {status, headers: received, body: Buffer.concat(await message.toArray())};
  };
  return {...server, counts, repeat, found, meanwhile, generations, get: send};
}

const own = ({id, ms, ...facts}: EventMap['request.end'][0]) => facts;

test('an equal request is answered without asking for its answer, and is reported like the first', async (t) => {
  const {get, counts, requests} = await start(t);
  const headers = {'user-agent': 'containerd/2', accept: 'application/json'};
  const [first, second] = [await get(headers), await get(headers)];
  t.deepEqual(counts, {asked: 1, again: 1});
  const {'x-request-id': firstId, date: _, ...firstHeaders} = first.headers;
  const {'x-request-id': secondId, date: __, ...secondHeaders} = second.headers;
  t.deepEqual(secondHeaders, firstHeaders);
  t.deepEqual(second.body, bytes);
  t.not(secondId, firstId);
  const [one, other] = requests;
  if (!one || !other) return t.fail('a request was not reported');
  t.deepEqual(own(other), own(one));
  t.is(other.id, String(secondId));
});

const DIFFERENT: [title: string, headers: Record<string, string>, method?: string, path?: string][] = [
  ['another method', {}, 'HEAD'],
  ['another target', {}, 'GET', `${PATH}?ns=ghcr.io`],
  ['another host', {host: 'ghcr.io'}],
  ['a condition', {'if-none-match': '"sha256:0"'}],
  ['a range', {range: 'bytes=0-1'}],
  ['a wish for a newer answer', {'cache-control': 'no-cache'}],
  ['a proxy that names itself', {via: '1.1 proxy'}],
  ['a client that a proxy names', {'x-forwarded-for': '192.0.2.1'}],
  ['a credential', {authorization: 'Basic YTpi'}],
  ['a field that is not known', {'x-anything': '1'}],
  ['the end of the connection', {connection: 'close'}],
];
for (const [title, headers, method, path] of DIFFERENT) {
  test(`${title} makes another request`, async (t) => {
    const {get, counts} = await start(t);
    await get();
    await get(headers, method, path);
    t.deepEqual(counts, {asked: 2, again: 0});
  });
}

test('what a client accepts, and what it is called, makes no difference', async (t) => {
  const {get, counts, requests} = await start(t);
  await get({accept: 'a/b', 'accept-encoding': 'gzip', 'user-agent': 'one'});
  await get({accept: 'c/d', 'user-agent': 'two', connection: 'keep-alive'});
  t.deepEqual(counts, {asked: 1, again: 1});
  t.deepEqual(
    requests.map(({userAgent}) => userAgent),
    ['one', 'two'],
  );
});

test('an answer is given again only between the times that it names, also when the clock is set back', async (t) => {
  const now = Date.now();
  const {get, counts, clock} = await start(t, {from: now - 5000, until: now + 5000});
  await get();
  await get();
  t.deepEqual(counts, {asked: 1, again: 1});
  clock.moveWall(10_000);
  await get();
  await get();
  t.deepEqual(counts, {asked: 3, again: 1});
  clock.moveWall(-30_000);
  await get();
  t.deepEqual(counts, {asked: 4, again: 1});
});

test('an answer is asked for once what it depends on has changed', async (t) => {
  const {get, counts, generations, repeat} = await start(t, {generations: []});
  const blob = generations.ofBlob(digest);
  Object.assign(repeat, {generations: [blob]});
  await get();
  await get();
  t.deepEqual(counts, {asked: 1, again: 1});
  generations.endBlob(digest);
  await get();
  // What changes while an answer is made is not given again.
  await get();
  t.deepEqual(counts, {asked: 3, again: 1});
});

test('an answer that ages is given again with its age, until the upstream has to be asked', async (t) => {
  const {get, counts, requests, clock, found, repeat} = await start(t);
  const times = {checkedAt: clock.now() - 500, now: clock.now()};
  const report = hitReport(times, {ttl: 60_000, configuredTtl: 10_000, lasts: 30_000});
  Object.assign(found, {report, repeat: {...repeat, ...report.steady}});
  const shownAfter = async (ms: number) => {
    clock.moveWall(ms);
    const {headers} = await get();
    t.is(requests.at(-1)?.cache, String(headers['cache-status']));
    return [headers.age, headers['cache-status']];
  };
  t.deepEqual(await shownAfter(0), ['0', 'backref;hit;ttl=60']);
  t.deepEqual(await shownAfter(499), ['0', 'backref;hit;ttl=60']);
  t.deepEqual(await shownAfter(1), ['1', 'backref;hit;ttl=59']);
  t.deepEqual(await shownAfter(8999), ['9', 'backref;hit;ttl=51']);
  t.deepEqual(await shownAfter(1), ['10', 'backref;hit;ttl=50;detail=quota']);
  t.deepEqual(await shownAfter(20_499), ['30', 'backref;hit;ttl=30;detail=quota']);
  t.deepEqual(counts, {asked: 1, again: 5});
  await shownAfter(1);
  t.deepEqual(counts, {asked: 2, again: 5});
});

test('a credential that expires ends an answer that ages', async (t) => {
  const login = withLogin();
  const started = await start(t, {authenticator: login.authenticator});
  const {clock, found, repeat} = started;
  const report = hitReport(
    {checkedAt: clock.now(), now: clock.now()},
    {ttl: 60_000, configuredTtl: 60_000, lasts: Number.POSITIVE_INFINITY},
  );
  Object.assign(found, {report, repeat: {...repeat, ...report.steady}});
  await expire(t, login, started);
});

test('another configuration ends all answers', async (t) => {
  const {get, counts, generations} = await start(t);
  await get();
  generations.end('configuration');
  await get();
  await get();
  t.deepEqual(counts, {asked: 2, again: 1});
});

test('an answer that the rules in audit mode would deny is never given again', async (t) => {
  const decision: Decision = {verdict: 'allowed', isAudited: true};
  const access = {...OPEN_DOOR.access, repository: () => decision};
  const {get, counts} = await start(t, {access});
  await get();
  await get();
  t.deepEqual(counts, {asked: 2, again: 0});
});

/** Somebody who shows a credential, for as long as the login method remembers it. */
function withLogin() {
  const shown = {identity: {names: ['user:alice']} as Identity | undefined, until: Number.POSITIVE_INFINITY};
  const method: LoginMethod = {
    name: 'token',
    isOpen: () => true,
    check: async () => shown.identity,
    remembered: () => shown.identity && {identity: shown.identity, until: shown.until},
  };
  return {shown, authenticator: createAuthenticator([method], createEvents())};
}

const CREDENTIAL = {authorization: 'Bearer secret'};

/** Asks until the credential expires, and once more: the answer is given again in that time, and not afterwards. */
async function expire(
  t: ExecutionContext,
  {shown}: ReturnType<typeof withLogin>,
  {get, counts, clock}: Awaited<ReturnType<typeof start>>,
): Promise<void> {
  shown.until = clock.now() + 5000;
  await get(CREDENTIAL);
  clock.moveWall(4999);
  await get(CREDENTIAL);
  t.deepEqual(counts, {asked: 1, again: 1});
  clock.moveWall(1);
  await get(CREDENTIAL);
  t.deepEqual(counts, {asked: 2, again: 1});
}

test('a credential is not looked at again while what logins depend on stays as it is', async (t) => {
  const login = withLogin();
  const {get, counts, requests, generations} = await start(t, {authenticator: login.authenticator});
  await get(CREDENTIAL);
  await get(CREDENTIAL);
  t.deepEqual(counts, {asked: 1, again: 1});
  t.is(requests[1]?.caller, 'user:alice');
  login.shown.identity = undefined;
  generations.end('logins');
  t.is((await get(CREDENTIAL)).status, 401);
  t.deepEqual(counts, {asked: 1, again: 1});
});

test('a request without a credential is looked at again when what logins depend on changes', async (t) => {
  const {get, counts, generations} = await start(t);
  await get();
  generations.end('logins');
  await get();
  t.deepEqual(counts, {asked: 2, again: 0});
});

test('an answer is not kept if what logins depend on has changed while it was made', async (t) => {
  const login = withLogin();
  const {get, counts, generations, meanwhile} = await start(t, {authenticator: login.authenticator});
  meanwhile.happens = () => generations.end('logins');
  await get(CREDENTIAL);
  meanwhile.happens = () => {};
  await get(CREDENTIAL);
  t.deepEqual(counts, {asked: 2, again: 0});
});

test('an answer is not given again once its credential has expired', async (t) => {
  const login = withLogin();
  const started = await start(t, {authenticator: login.authenticator});
  await expire(t, login, started);
});

test('an answer that belongs to somebody else by now is not kept', async (t) => {
  const login = withLogin();
  const {get, counts, meanwhile} = await start(t, {authenticator: login.authenticator});
  meanwhile.happens = () => {
    // Equal names may have other rights, as those of a robot that was made anew.
    login.shown.identity = {names: ['user:alice']};
  };
  await get(CREDENTIAL);
  await get(CREDENTIAL);
  t.deepEqual(counts, {asked: 2, again: 0});
});

test('an answer that node would not write is not kept', async (t) => {
  const {get, counts, requests, found} = await start(t);
  found.mediaType = 'application/json\r\nX-Forged: 1';
  t.is((await get()).status, 500);
  t.is((await get()).status, 500);
  t.is(requests.length, 2);
  t.deepEqual(counts, {asked: 2, again: 0});
});

test('a credential that its login method does not remember is never answered for again', async (t) => {
  const identity = {names: ['user:alice']} as const;
  const method: LoginMethod = {name: 'password', isOpen: () => true, check: async () => identity};
  const authenticator = createAuthenticator([method], createEvents());
  const {get, counts} = await start(t, {authenticator});
  const headers = {authorization: 'Basic YTpi'};
  await get(headers);
  await get(headers);
  t.deepEqual(counts, {asked: 2, again: 0});
});
