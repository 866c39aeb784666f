import {createHash} from 'node:crypto';
import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {hashSync} from '@node-rs/bcrypt';
import test, {type ExecutionContext} from 'ava';
import {decodeJwt} from 'jose';
import {type Backref, LIMITS, NO_LOGINS, type ProxyAnswer, startBackref} from '../support/backref.ts';
import {createFolder} from '../support/folder.ts';
import {errorOf} from '../support/pusher.ts';

const basic = (username: string, password: string) => ({
  Authorization: `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`,
});
const bearer = (token: string) => ({Authorization: `Bearer ${token}`});
const FORM = {'Content-Type': 'application/x-www-form-urlencoded'};

/** A hosted registry with one user, alice, whose password is "right". */
async function start(t: ExecutionContext, tokens: Partial<typeof NO_LOGINS.tokens> = {}): Promise<Backref> {
  const htpasswd = join(await createFolder(t), 'htpasswd');
  await writeFile(htpasswd, `alice:${hashSync('right', 4)}\n`);
  const access = {users: {htpasswd}, tokens: {...NO_LOGINS.tokens, ...tokens}};
  return startBackref(t, {registries: [{}], config: {access}});
}

const post = ({ask}: Backref, form: Record<string, string>, headers = {}): Promise<ProxyAnswer> =>
  ask('/token', {method: 'POST', headers: {...FORM, ...headers}, body: new URLSearchParams(form).toString()});

interface TokenBody {
  token: string;
  access_token: string;
  expires_in: number;
  issued_at: string;
  refresh_token?: string;
}
const bodyOf = (answer: ProxyAnswer) => answer.json() as TokenBody;
const messageIn = (answer: ProxyAnswer) =>
  (answer.json() as {errors: {message: string; code: string}[]}).errors[0]?.message ?? '';

test('a client follows the challenge: it gets a token with its password, and its request is answered', async (t) => {
  const {ask, port, clock} = await start(t);
  const challenged = await ask('/v2/');
  t.is(challenged.status, 401);
  t.is(
    challenged.headers['www-authenticate'],
    `Bearer realm="http://127.0.0.1:${port}/token",service="backref"`,
  );
  const path = '/token?account=alice&client_id=docker&service=backref&scope=repository%3Aapp%3Apull%2Cpush';
  const answer = await ask(path, {headers: basic('alice', 'right')});
  t.is(answer.status, 200);
  t.is(answer.headers['cache-control'], 'no-store');
  const {token, access_token, expires_in, issued_at, refresh_token} = bodyOf(answer);
  t.is(access_token, token);
  t.is(expires_in, 300);
  t.is(Date.parse(issued_at), clock.now());
  t.is(refresh_token, undefined);
  t.is((await ask('/v2/', {headers: bearer(token)})).status, 200);
  const began = await ask('/v2/library/app/blobs/uploads/', {method: 'POST', headers: bearer(token)});
  t.is(began.status, 401, 'the scope names the repository as the client does');
  t.is((await ask('/v2/app/blobs/uploads/', {method: 'POST', headers: bearer(token)})).status, 202);
  clock.move(300_000);
  const expired = await ask('/v2/', {headers: bearer(token)});
  t.is(expired.status, 401);
  t.regex(expired.headers['www-authenticate'] ?? '', /error="invalid_token"$/);
});

test('unsolicited Basic works without a token', async (t) => {
  const {ask} = await start(t);
  t.is((await ask('/v2/', {headers: basic('alice', 'right')})).status, 200);
  t.is((await ask('/v2/app/tags/list', {headers: basic('alice', 'right')})).status, 404);
  const wrong = await ask('/v2/app/tags/list', {headers: basic('alice', 'wrong')});
  t.is(wrong.status, 401);
  t.regex(wrong.headers['www-authenticate'] ?? '', /^Bearer .*scope="repository:app:pull"$/);
});

test('without credentials there is a token for nobody, which satisfies the ping', async (t) => {
  const {ask} = await start(t);
  const {token, refresh_token} = bodyOf(
    await ask(
      '/token?scope=repository:app:pull&scope=repository:b:pull%20repository:c:pull&offline_token=true',
    ),
  );
  t.is(refresh_token, undefined);
  const {names, access} = decodeJwt(token);
  t.deepEqual(names, ['anonymous']);
  t.deepEqual(
    (access as {name: string}[]).map(({name}) => name),
    ['app', 'b', 'c'],
  );
  t.is((await ask('/v2/', {headers: bearer(token)})).status, 200);
  t.is((await ask('/v2/app/tags/list', {headers: bearer(token)})).status, 404);
});

test('a wrong password gets 401 and no token, by GET and by POST', async (t) => {
  const backref = await start(t);
  for (const answer of [
    await backref.ask('/token', {headers: basic('alice', 'wrong')}),
    await backref.ask('/token', {headers: basic('nobody', 'right')}),
    await backref.ask('/token', {headers: {Authorization: 'Negotiate abc'}}),
    await post(backref, {grant_type: 'password', username: 'alice', password: 'wrong'}),
    await post(backref, {grant_type: 'password', username: 'alice'}),
    await post(backref, {grant_type: 'refresh_token', refresh_token: 'abc'}),
    await post(backref, {grant_type: 'refresh_token'}),
  ]) {
    t.is(answer.status, 401);
    t.is(answer.headers['www-authenticate'], 'Basic realm="backref", charset="UTF-8"');
    t.notRegex(answer.body.toString(), /"token"|access_token/);
  }
});

test('an unknown user and a wrong password get the same answer', async (t) => {
  const {ask} = await start(t);
  const [wrong, unknown] = [
    await ask('/token', {headers: basic('alice', 'wrong')}),
    await ask('/token', {headers: basic('nobody', 'wrong')}),
  ];
  t.is(messageIn(wrong), messageIn(unknown));
});

test('after too many wrong passwords the answer is 429 with Retry-After', async (t) => {
  const {ask} = await start(t);
  for (let index = 0; index < 10; index += 1)
    await ask('/token', {headers: basic('alice', `wrong ${index}`)});
  const answer = await ask('/token', {headers: basic('alice', 'right')});
  t.is(answer.status, 429);
  t.is(answer.headers['retry-after'], '60');
});

test('POST gives a token for a password, and a refresh token that gets the next one', async (t) => {
  const backref = await start(t);
  const form = {service: 'backref', client_id: 'docker', scope: 'repository:app:pull'};
  const password = {grant_type: 'password', username: 'alice', password: 'right', access_type: 'offline'};
  const first = bodyOf(await post(backref, {...form, ...password}));
  t.truthy(first.refresh_token);
  t.is((await backref.ask('/v2/app/tags/list', {headers: bearer(first.access_token)})).status, 404);
  const refresh = {grant_type: 'refresh_token', refresh_token: first.refresh_token ?? ''};
  const next = bodyOf(await post(backref, {...form, ...refresh}));
  t.is(next.refresh_token, undefined);
  t.is((await backref.ask('/v2/app/tags/list', {headers: bearer(next.access_token)})).status, 404);
  const abused = await backref.ask('/v2/', {headers: bearer(first.refresh_token ?? '')});
  t.is(abused.status, 401, 'a refresh token is good for nothing else');
});

test('docker login gets a refresh token by GET when it asks for one', async (t) => {
  const {ask} = await start(t);
  const answer = await ask('/token?offline_token=true', {headers: basic('alice', 'right')});
  t.truthy(bodyOf(answer).refresh_token);
});

test('a blob is mounted only from a repository that the token is for as well', async (t) => {
  const {ask} = await start(t);
  const scope = (names: string[]) => names.map((name) => `scope=repository:${name}:pull,push`).join('&');
  const tokenFor = async (...names: string[]) =>
    bearer(bodyOf(await ask(`/token?${scope(names)}`, {headers: basic('alice', 'right')})).token);
  const body = Buffer.from('a layer');
  const digest = `sha256:${createHash('sha256').update(body).digest('hex')}`;
  const one = await tokenFor('one');
  const put = await ask(`/v2/one/blobs/uploads/?digest=${digest}`, {method: 'POST', headers: one, body});
  t.is(put.status, 201);
  const mount = async (query: string, headers: {Authorization: string}) =>
    (await ask(`/v2/two/blobs/uploads/?mount=${digest}${query}`, {method: 'POST', headers})).status;
  t.is(await mount('&from=one', await tokenFor('two')), 202, 'an upload begins');
  t.is(await mount('', await tokenFor('one', 'two')), 202);
  t.is(await mount('&from=one', await tokenFor('one', 'two')), 201);
  t.is(await mount('', basic('alice', 'right')), 201);
});

test('a token of ours does not get another one: it would never end', async (t) => {
  const {ask} = await start(t);
  const {token} = bodyOf(await ask('/token', {headers: basic('alice', 'right')}));
  t.is((await ask('/token', {headers: bearer(token)})).status, 401);
});

test('what is not a request for a token here is refused with the reason', async (t) => {
  const backref = await start(t);
  const {ask} = backref;
  const other = await ask('/token?service=other', {headers: basic('alice', 'right')});
  t.is(other.status, 400);
  t.regex(messageIn(other), /for the service "backref", not for "other"/);
  const grant = await post(backref, {grant_type: 'client_credentials'});
  t.is(grant.status, 400);
  t.regex(messageIn(grant), /must be password or refresh_token/);
  t.is((await post(backref, {}, {'Content-Type': 'application/json'})).status, 415);
  const many = Array.from({length: 101}, (_, index) => `scope=repository:a${index}:pull`).join('&');
  t.is((await ask(`/token?${many}`)).status, 400);
  const long = Array.from({length: 20}, () => `scope=repository:${'a'.repeat(250)}:pull`).join('&');
  t.is((await ask(`/token?${long}`)).status, 400);
  t.is((await ask('/token', {method: 'DELETE'})).status, 405);
});

test('a form of as many bytes as limits.bodies.maxForm allows is read, and one of more is 413', async (t) => {
  const backref = await start(t);
  const {maxForm} = LIMITS.bodies;
  const ofLength = (length: number) => ({
    grant_type: 'none',
    p: 'x'.repeat(length - 'grant_type=none&p='.length),
  });
  t.is((await post(backref, ofLength(maxForm))).status, 400);
  const refused = await post(backref, ofLength(maxForm + 1));
  t.is(refused.status, 413);
  t.is(errorOf(refused).detail?.['limit'], 'limits.bodies.maxForm');
});

test('where nobody can log in, credentials are ignored, as Docker sends those of Docker Hub', async (t) => {
  const backref = await startBackref(t, {registries: [{}]});
  t.is((await backref.ask('/v2/', {headers: basic('hub', 'secret')})).status, 200);
  const {token} = bodyOf(await backref.ask('/token', {headers: basic('hub', 'secret')}));
  t.deepEqual(decodeJwt(token)['names'], ['anonymous']);
  const posted = await post(backref, {grant_type: 'password', username: 'hub', password: 'secret'});
  t.deepEqual(decodeJwt(bodyOf(posted).token)['names'], ['anonymous']);
});

test('a reload changes neither the file of users nor the settings of tokens: they wait for a restart', async (t) => {
  const {ask, reload} = await start(t);
  const users = {htpasswd: '/nowhere'};
  const access = {users, tokens: {...NO_LOGINS.tokens, service: 'other'}};
  t.deepEqual(reload({config: {access}}).left, ['access.users.htpasswd', 'access.tokens.service']);
  t.is((await ask('/v2/', {headers: basic('alice', 'right')})).status, 200);
  t.is((await ask('/token?service=backref', {headers: basic('alice', 'right')})).status, 200);
});

test('tokens survive a restart', async (t) => {
  const backref = await start(t);
  const {token} = bodyOf(await backref.ask('/token', {headers: basic('alice', 'right')}));
  const restarted = await backref.restart();
  t.is((await restarted.ask('/v2/', {headers: bearer(token)})).status, 200);
});

test('logins are counted by their kind and outcome', async (t) => {
  const {ask} = await start(t);
  await ask('/token', {headers: basic('alice', 'right')});
  await ask('/token', {headers: basic('alice', 'wrong')});
  await ask('/v2/', {headers: bearer('abc')});
  const metrics = (await ask('/metrics')).body.toString();
  t.regex(metrics, /backref_logins_total\{method="password",outcome="accepted"\} 1\n/);
  t.regex(metrics, /backref_logins_total\{method="password",outcome="refused"\} 1\n/);
  t.regex(metrics, /backref_logins_total\{method="unknown",outcome="refused"\} 1\n/);
});

test('the log names who gets a token, and whose login fails if there is such a user', async (t) => {
  const backref = await start(t);
  const callers: [path: string, caller: string, status: number][] = [];
  backref.server.events.on('request.end', ({url, caller, status}) => {
    if (url !== '/metrics') callers.push([url.split('?')[0] ?? '', caller, status]);
  });
  const password = {grant_type: 'password', username: 'alice', password: 'right', access_type: 'offline'};
  await backref.ask('/token', {headers: basic('alice', 'right')});
  await backref.ask('/token');
  const {refresh_token = ''} = bodyOf(await post(backref, password));
  await post(backref, {grant_type: 'refresh_token', refresh_token});
  await backref.ask('/token', {headers: basic('alice', 'wrong')});
  await post(backref, {...password, password: 'wrong'});
  await backref.ask('/v2/app/tags/list', {headers: basic('alice', 'wrong')});
  await backref.ask('/token', {headers: basic('a secret in the wrong field', 'wrong')});
  t.deepEqual(callers, [
    ['/token', 'user:alice', 200],
    ['/token', 'anonymous', 200],
    ['/token', 'user:alice', 200],
    ['/token', 'user:alice', 200],
    ['/token', 'user:alice', 401],
    ['/token', 'user:alice', 401],
    ['/v2/app/tags/list', 'user:alice', 401],
    ['/token', 'anonymous', 401],
  ]);
});
