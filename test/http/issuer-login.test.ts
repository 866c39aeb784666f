import {inspect} from 'node:util';
import test, {type ExecutionContext} from 'ava';
import {credentialProvider} from '../../src/cli/credential-provider.ts';
import type {Config} from '../../src/config.ts';
import {createMovableClock, startBackref, waiting} from '../support/backref.ts';
import {createSigningKey, issuerConfig, signToken, startIssuer} from '../support/issuer.ts';
import {errorOf} from './spec-codes.ts';

const key = await createSigningKey('one');

const basic = (secret: string, username = 'anybody'): string =>
  `Basic ${Buffer.from(`${username}:${secret}`).toString('base64')}`;

/** Allowed, this is 404, because nothing was pushed. */
const TAGS = '/v2/app/tags/list';

/** Lets the test read the metrics. */
const OPERATOR = {who: ['anonymous'], where: ['**'], may: ['admin' as const]};

/** A server that lets tokens of one organization pull, and the issuer of such tokens. */
async function start(
  t: ExecutionContext,
  access: Partial<Config['access']> = {},
  clock = createMovableClock(),
) {
  const issuer = await startIssuer(t);
  issuer.answerKeys({keys: [key.jwk]});
  const rule = {who: ['gha:repository=org/*'], where: ['docker.io/**'], may: ['pull' as const]};
  const proxy = await startBackref(t, {
    clock,
    registries: [{}],
    config: {access: {rules: [rule, OPERATOR], issuers: [issuerConfig(issuer.url)], ...access}},
  });
  const now = proxy.clock.now() / 1000;
  const tokenOf = (claims: object) =>
    signToken(key, issuer.url, {iat: now, nbf: now, exp: now + 600, ...claims});
  const ask = (authorization?: string, path = TAGS) =>
    proxy.ask(path, {headers: authorization === undefined ? {} : {authorization}});
  return {issuer, proxy, now, tokenOf, ask};
}

test('a token is a password with any user name and a bearer token, and rules name its claims', async (t) => {
  const {tokenOf, ask} = await start(t);
  const token = await tokenOf({repository: 'org/app'});
  t.is((await ask()).status, 401);
  for (const authorization of [basic(token), basic(token, ''), `Bearer ${token}`]) {
    t.is((await ask(authorization, '/v2/')).status, 200);
    t.is((await ask(authorization)).status, 404);
  }
  const stranger = await tokenOf({repository: 'elsewhere/app'});
  t.is(errorOf(await ask(basic(stranger))).code, 'DENIED');
});

test('a token that is refused is 401, with the reason', async (t) => {
  const {now, tokenOf, ask} = await start(t);
  const expired = await tokenOf({repository: 'org/app', exp: now - 31});
  t.regex(errorOf(await ask(basic(expired))).message, /token of the issuer "gha" has expired/);
  const answer = await ask(`Bearer ${expired}`);
  t.regex(String(answer.headers['www-authenticate']), /error="invalid_token"/);
});

test('Docker gets a token of ours for it, which ends no later and is good for what it was asked for', async (t) => {
  const {now, proxy, tokenOf, ask} = await start(t);
  const authorization = basic(await tokenOf({repository: 'org/app', exp: now + 60}));
  const path = '/token?service=backref&scope=repository:app:pull&offline_token=true';
  const {token, expires_in, refresh_token} = (await ask(authorization, path)).json() as Record<
    string,
    unknown
  >;
  t.true(Number(expires_in) <= 90);
  t.is(refresh_token, undefined, 'nothing outlives the token');
  t.is((await ask(`Bearer ${token}`)).status, 404);
  t.is((await ask(`Bearer ${token}`, '/v2/other/tags/list')).status, 401);
  proxy.clock.move(91_000);
  t.is((await ask(`Bearer ${token}`)).status, 401);
});

test('a token that cannot be verified is 503', async (t) => {
  const {issuer, tokenOf, ask} = await start(t);
  issuer.answerKeys((_request, response) => void response.writeHead(500).end());
  const answer = await ask(basic(await tokenOf({repository: 'org/app'})));
  t.is(answer.status, 503);
  t.is(errorOf(answer).code, 'UNAVAILABLE');
  t.is(answer.headers['retry-after'], '10');
});

test('no token appears in an event, in a metric or in an answer, whether it is accepted, refused or cannot be verified', async (t) => {
  const {issuer, now, proxy, tokenOf, ask} = await start(t);
  const {events} = proxy.server;
  const seen: string[] = [];
  const emit = events.emit.bind(events);
  events.emit = (name, ...facts) => {
    seen.push(inspect([name, ...facts], {depth: 10}));
    return emit(name, ...facts);
  };
  const answer = async (token: string, authorization: string) => {
    const {headers, body} = await ask(authorization);
    seen.push(inspect(headers), body.toString());
    return token;
  };
  issuer.answerKeys((_request, response) => void response.writeHead(500).end());
  const tokens = [];
  for (const claims of [{}, {repository: 'org/app'}, {exp: now - 60}, {aud: 'other'}]) {
    const token = await tokenOf(claims);
    tokens.push(await answer(token, basic(token)), await answer(token, `Bearer ${token}`));
    issuer.answerKeys({keys: [key.jwk]});
    proxy.clock.move(10_000);
  }
  const metrics = await proxy.ask('/metrics');
  t.is(metrics.status, 200);
  const written = [...seen, metrics.body.toString()].join('\n');
  t.regex(written, /issuer\.failed[\s\S]*login\.refused/);
  for (const token of tokens)
    for (const part of [token, basic(token), token.split('.')[1] ?? '', token.split('.')[2] ?? ''])
      t.false(written.includes(part));
});

test('a reload adopts and drops issuers', async (t) => {
  const {issuer, proxy, tokenOf, ask} = await start(t, {issuers: []});
  const token = basic(await tokenOf({repository: 'org/app'}));
  t.is((await ask(token)).status, 403);
  const rules = [{who: ['gha:**'], where: ['**'], may: ['pull' as const]}];
  const {left} = proxy.reload({config: {access: {rules, issuers: [issuerConfig(issuer.url)]}}});
  t.deepEqual(left, []);
  t.is((await ask(token)).status, 404);
  proxy.reload({config: {access: {rules, issuers: []}}});
  t.is((await ask(token)).status, 403);
});

test('a token of ours for a JWT ends with the reload that removes its issuer, and stays when another one changes', async (t) => {
  const rules = [{who: ['gha:**'], where: ['**'], may: ['pull' as const]}];
  const {issuer, proxy, tokenOf, ask} = await start(t, {rules});
  const jwt = basic(await tokenOf({}));
  const path = '/token?service=backref&scope=repository:app:pull';
  const {token} = (await ask(jwt, path)).json() as {token: string};
  t.is((await ask(`Bearer ${token}`)).status, 404);
  const gha = issuerConfig(issuer.url);
  const gitlab = issuerConfig('https://gitlab.test', {name: 'gitlab'});
  proxy.reload({config: {access: {rules, issuers: [gha, gitlab]}}});
  t.is((await ask(`Bearer ${token}`)).status, 404);
  proxy.reload({config: {access: {rules, issuers: [gitlab]}}});
  const refused = await ask(`Bearer ${token}`);
  t.is(refused.status, 401);
  t.regex(errorOf(refused).message, /was issued for a login that is no longer valid/);
});

test('keys are read again every ten minutes once a token has come, so that a withdrawn one is refused', async (t) => {
  const clock = waiting(createMovableClock(), (ms) => (ms === 10 * 60_000 ? 5 : ms));
  const {issuer, tokenOf, ask} = await start(t, {}, clock);
  const token = basic(await tokenOf({repository: 'org/app'}));
  t.is((await ask(token)).status, 404);
  const {promise: read, resolve} = Promise.withResolvers<void>();
  issuer.answerKeys((_request, response) => void response.end('{"keys": []}', resolve));
  clock.move(10_000);
  await read;
  while ((await ask(token)).status === 404);
  t.is((await ask(token)).status, 401);
});

test('what the credential provider answers to a kubelet is a login', async (t) => {
  const {now, tokenOf, ask} = await start(t, {
    rules: [{who: ['gha:namespace=team'], where: ['docker.io/**'], may: ['pull']}],
  });
  const serviceAccountToken = await tokenOf({
    'kubernetes.io': {namespace: 'team', serviceaccount: {name: 'app'}},
  });
  const request = JSON.stringify({
    apiVersion: 'credentialprovider.kubelet.k8s.io/v1',
    kind: 'CredentialProviderRequest',
    image: 'registry.example/docker.io/app',
    serviceAccountToken,
  });
  let written = '';
  const io = {
    env: {},
    stdin: (async function* () {
      yield request;
    })(),
    stdout: {
      write(text: string) {
        written += text;
      },
    },
    stderr: {write: (text: string) => t.fail(text)},
  };
  t.is(await credentialProvider({image: []}, io, now * 1000), 0);
  const {username, password} = JSON.parse(written).auth['registry.example'];
  t.is((await ask(basic(password, username))).status, 404);
});
