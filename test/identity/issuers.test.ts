import {createHmac, generateKeyPairSync, sign} from 'node:crypto';
import {once} from 'node:events';
import {rename, writeFile} from 'node:fs/promises';
import {createServer} from 'node:http';
import type {AddressInfo} from 'node:net';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {type CryptoKey, exportJWK, exportSPKI, importJWK, type JWTPayload, SignJWT} from 'jose';
import type {IssuerConfig} from '../../src/config.ts';
import {createEvents, type EventMap} from '../../src/events.ts';
import {createAttempts} from '../../src/identity/attempts.ts';
import {LoginRefused} from '../../src/identity/authenticator.ts';
import {createIssuers} from '../../src/identity/issuers.ts';
import {createSignatureTurns, type Turns} from '../../src/identity/turns.ts';
import {OciError} from '../../src/oci/errors.ts';
import {AUTHORITY} from '../support/certificates.ts';
import {createManualClock} from '../support/clock.ts';
import {createFolder} from '../support/folder.ts';
import {createSigningKey, issuerConfig, NOW, signToken, startIssuer} from '../support/issuer.ts';

const [key, other] = await Promise.all([createSigningKey('one'), createSigningKey('two')]);

const MINUTE_MS = 60_000;
const DAY_MS = 24 * 60 * MINUTE_MS;

/** Issuers with a clock that stands still, and what they report. */
function createTested(given: IssuerConfig[], env: NodeJS.ProcessEnv = {}) {
  const clock = createManualClock(NOW);
  const events = createEvents();
  const failures: EventMap['issuer.failed'][0][] = [];
  events.on('issuer.failed', (event) => failures.push(event));
  let configs = given;
  const signatures = createSignatureTurns();
  let verified = 0;
  const turns: Turns = {
    run(work) {
      verified += 1;
      return signatures.run(work);
    },
  };
  const issuers = createIssuers(() => configs, {
    env,
    attempts: createAttempts(clock),
    turns,
    changed: () => {},
    clock,
    events,
  });
  const replace = (others: IssuerConfig[]) => {
    configs = others;
  };
  const check = (secret: string, scheme: 'basic' | 'bearer' = 'basic') =>
    issuers.check({
      scheme,
      username: scheme === 'basic' ? 'anybody' : undefined,
      secret,
      address: '10.0.0.1',
    });
  return {clock, failures, issuers, check, replace, verified: () => verified};
}

/** An issuer that lists one key, and the login method that knows it. */
async function withIssuer(t: ExecutionContext, changes: Partial<IssuerConfig> = {}) {
  const issuer = await startIssuer(t);
  issuer.answerKeys({keys: [key.jwk]});
  return {issuer, ...createTested([issuerConfig(issuer.url, changes)])};
}

const refused = (message: RegExp) => ({instanceOf: LoginRefused, message});
const unavailable = {
  instanceOf: OciError,
  code: 'UNAVAILABLE',
  message: /keys of the issuer "gha" cannot be read/,
};

test('a token that the issuer signed is a password and a bearer token; its keys are found by discovery, once', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const token = await signToken(key, issuer.url, {ref: 'refs/heads/main'});
  const expected = {names: ['gha:sub=repo:org/app', 'gha:ref=refs/heads/main'], until: NOW + 630_000};
  t.like(await check(token), expected as never);
  t.like(await check(token, 'bearer'), expected as never);
  t.deepEqual(issuer.asked, ['/.well-known/openid-configuration', '/keys']);
});

test('what is not a JWT of a configured issuer is left to other methods', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const token = await signToken(key, 'https://elsewhere.test');
  const tooLong = await signToken(key, issuer.url, {padding: 'x'.repeat(16_384)});
  for (const secret of ['', 'secret', 'a.b.c', 'e30.e30.', token, tooLong])
    t.is(await check(secret), undefined);
  t.deepEqual(issuer.asked, []);
});

test('keys are found at a URL over HTTPS that a private authority vouches for', async (t) => {
  const issuer = await startIssuer(t, {tls: true});
  issuer.answerKeys({keys: [key.jwk]});
  const token = await signToken(key, 'urn:cluster');
  const config = issuerConfig('urn:cluster', {jwks: `${issuer.url}/keys`});
  const trusting = createTested([{...config, ca: [AUTHORITY]}]);
  t.is((await trusting.check(token))?.names[0], 'gha:sub=repo:org/app');
  const wary = createTested([config]);
  await t.throwsAsync(wary.check(token), unavailable);
  t.regex(wary.failures[0]?.reason ?? '', /cannot be read: unable to verify/);
});

test('keys in a file are read again when it changes, by a swap as well; a bad file leaves the old ones', async (t) => {
  const folder = await createFolder(t);
  const jwks = join(folder, 'jwks.json');
  const write = async (text: string) => {
    await writeFile(`${jwks}.new`, text);
    await rename(`${jwks}.new`, jwks);
  };
  const {clock, check, failures} = createTested([issuerConfig('urn:cluster', {jwks})]);
  const [first, second] = await Promise.all([signToken(key, 'urn:cluster'), signToken(other, 'urn:cluster')]);
  await write(JSON.stringify({keys: [key.jwk]}));
  t.truthy(await check(first));
  await write('{"keys": [');
  await clock.advance(10_001);
  t.truthy(await check(first));
  t.regex(failures[0]?.reason ?? '', /jwks.json is not JSON/);
  await write(JSON.stringify({keys: [other.jwk]}));
  await clock.advance(10_001);
  t.truthy(await check(second));
  await t.throwsAsync(check(first), refused(/signed with a key that its issuer does not list/));
});

const WRONG: [what: string, changes: {[claim: string]: unknown}, message: RegExp][] = [
  ['for another audience', {aud: 'somebody-else'}, /is for another audience: request it for backref/],
  ['for no audience', {aud: undefined}, /has no claim "aud"/],
  ['that has expired', {exp: NOW / 1000 - 31}, /has expired/],
  ['without an expiry', {exp: undefined}, /has no claim "exp"/],
  ['that is not valid yet', {nbf: NOW / 1000 + 31}, /is not valid yet/],
  ['from the future', {iat: NOW / 1000 + 31}, /was issued in the future/],
  ['without a subject', {sub: undefined}, /has no claim "sub"/],
  ['whose subject is not a text', {sub: 1}, /"sub" that is not/],
  ['whose expiry is not a number', {exp: 'tomorrow'}, /has a claim "exp" that is not valid/],
  ['with a line break in a claim', {ref: 'a\nb'}, /control character/],
];

for (const [what, changes, message] of WRONG)
  test(`a token ${what} is refused`, async (t) => {
    const {issuer, check} = await withIssuer(t);
    await t.throwsAsync(check(await signToken(key, issuer.url, changes as JWTPayload)), refused(message));
  });

test('clocks may differ by half a minute', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const now = NOW / 1000;
  t.truthy(await check(await signToken(key, issuer.url, {exp: now - 29, iat: now + 29, nbf: now + 29})));
});

test('a list of audiences is enough if it has one that is configured', async (t) => {
  const {issuer, check} = await withIssuer(t, {audience: ['backref', 'registry.example']});
  t.truthy(await check(await signToken(key, issuer.url, {aud: ['other', 'registry.example']})));
});

test('a token without a claim that is required is refused', async (t) => {
  const {issuer, check} = await withIssuer(t, {require: {repository_owner: 'org'}});
  t.truthy(await check(await signToken(key, issuer.url, {repository_owner: 'org'})));
  await t.throwsAsync(
    check(await signToken(key, issuer.url, {repository_owner: 'stranger'})),
    refused(/does not have the claim "repository_owner" that is required here/),
  );
});

test('a token that was issued longer ago than maxAge is refused', async (t) => {
  const {issuer, check} = await withIssuer(t, {maxAge: 5 * MINUTE_MS});
  const issued = (seconds: number) => signToken(key, issuer.url, {iat: NOW / 1000 - seconds});
  t.truthy(await check(await issued(300)));
  await t.throwsAsync(check(await issued(331)), refused(/is too old/));
});

const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
const claims = (iss: string) => ({iss, sub: 'root', aud: 'backref', exp: NOW / 1000 + 600});

test('a token without a signature is refused', async (t) => {
  const {issuer, check} = await withIssuer(t);
  for (const alg of ['none', 'None', 'NONE'])
    await t.throwsAsync(
      check(`${part({alg, kid: 'one'})}.${part(claims(issuer.url))}.`),
      refused(/cannot be verified|not allowed here/),
    );
});

test('a token that is signed by HMAC with the public key is refused', async (t) => {
  const rsa = await createSigningKey('rsa', 'RS256');
  const {issuer, check} = await withIssuer(t);
  issuer.answerKeys({keys: [rsa.jwk]});
  const publicKey = (await importJWK(rsa.jwk, 'RS256', {extractable: true})) as CryptoKey;
  const input = `${part({alg: 'HS256', kid: 'rsa'})}.${part(claims(issuer.url))}`;
  for (const secret of [await exportSPKI(publicKey), JSON.stringify(rsa.jwk)]) {
    const signature = createHmac('sha256', secret).update(input).digest('base64url');
    await t.throwsAsync(check(`${input}.${signature}`), refused(/an algorithm that is not allowed here/));
  }
  t.truthy(await check(await signToken(rsa, issuer.url)), 'the key itself is good');
});

test('a symmetric key that an issuer lists verifies nothing', async (t) => {
  const {issuer, check} = await withIssuer(t);
  issuer.answerKeys({keys: [{kty: 'oct', k: 'c2VjcmV0', kid: 'one', alg: 'HS256'}]});
  const input = `${part({alg: 'HS256', kid: 'one'})}.${part(claims(issuer.url))}`;
  const signature = createHmac('sha256', 'secret').update(input).digest('base64url');
  await t.throwsAsync(check(`${input}.${signature}`), refused(/an algorithm that is not allowed here/));
});

test('a token that brings its own key, or says where to find it, is refused', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const evil = await startIssuer(t);
  evil.answerKeys({keys: [other.jwk]});
  const header = {alg: 'ES256', jwk: other.jwk, jku: `${evil.url}/keys`, x5u: `${evil.url}/keys`};
  const sign = (kid: string) =>
    new SignJWT(claims(issuer.url)).setProtectedHeader({...header, kid}).sign(other.privateKey);
  await t.throwsAsync(check(await sign('one')), refused(/has a signature that does not match/));
  for (const kid of ['two', '../../../../dev/null', "' or 1=1 --", `${evil.url}/keys`])
    await t.throwsAsync(check(await sign(kid)), refused(/a key that its issuer does not list/));
  t.deepEqual(evil.asked, []);
});

test('a token whose claims were changed is refused', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const [header, , signature] = (await signToken(key, issuer.url)).split('.');
  await t.throwsAsync(
    check(`${header}.${part(claims(issuer.url))}.${signature}`),
    refused(/has a signature that does not match/),
  );
});

test('a token of one issuer that names another one is refused', async (t) => {
  const [first, second] = await Promise.all([startIssuer(t), startIssuer(t)]);
  first.answerKeys({keys: [key.jwk]});
  second.answerKeys({keys: [{...other.jwk, kid: 'one'}]});
  const {check} = createTested([issuerConfig(first.url), issuerConfig(second.url, {name: 'idp'})]);
  await t.throwsAsync(
    check(await signToken(key, second.url)),
    refused(/issuer "idp" has a signature that does not match/),
  );
  t.is((await check(await signToken({...other, kid: 'one'}, second.url)))?.names[0], 'idp:sub=repo:org/app');
});

test('an RSA key of fewer than 2048 bits verifies nothing', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const {privateKey, publicKey} = generateKeyPairSync('rsa', {modulusLength: 1024});
  issuer.answerKeys({keys: [{...(await exportJWK(publicKey)), kid: 'weak', alg: 'RS256'}]});
  const input = `${part({alg: 'RS256', kid: 'weak'})}.${part(claims(issuer.url))}`;
  const signature = sign('sha256', Buffer.from(input), privateKey).toString('base64url');
  await t.throwsAsync(
    check(`${input}.${signature}`),
    refused(/cannot be verified with the keys of its issuer/),
  );
});

test('a private key that an issuer lists by mistake verifies nothing', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const jwk = {...(await exportJWK(key.privateKey as CryptoKey)), kid: 'one', alg: 'ES256'};
  issuer.answerKeys({keys: [jwk]});
  await t.throwsAsync(check(await signToken(key, issuer.url)), refused(/cannot be verified with the keys/));
});

test('a bearer token that is refused is told apart from a password', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const token = await signToken(key, issuer.url, {aud: 'other'});
  t.true((await t.throwsAsync<LoginRefused>(check(token, 'bearer'), refused(/audience/)))?.isToken);
  t.false((await t.throwsAsync<LoginRefused>(check(token, 'basic'), refused(/audience/)))?.isToken);
});

test('a token that names a new key has the keys read again, and many such tokens at most every ten seconds', async (t) => {
  const {issuer, check, clock} = await withIssuer(t);
  const [old, rotated] = await Promise.all([signToken(key, issuer.url), signToken(other, issuer.url)]);
  t.truthy(await check(old));
  const asked = issuer.asked.length;
  const unknown = refused(/a key that its issuer does not list/);
  for (let count = 0; count < 5; count++) await t.throwsAsync(check(rotated), unknown);
  t.is(issuer.asked.length, asked, 'the last look was a moment ago');
  await clock.advance(10_000);
  issuer.answerKeys({keys: [key.jwk, other.jwk]});
  await Promise.all(Array.from({length: 5}, async () => t.truthy(await check(rotated))));
  t.is(issuer.asked.length, asked + 2, 'one look, with its discovery');
});

test('while the issuer is down, known keys work for a day, a new one is 503, and so is every token after that', async (t) => {
  const {issuer, issuers, check, clock, failures} = await withIssuer(t);
  const lasting = (signer: typeof key) => signToken(signer, issuer.url, {exp: NOW / 1000 + 10 * 86_400});
  const [known, unknown] = await Promise.all([lasting(key), lasting(other)]);
  t.truthy(await check(known));
  issuer.answerKeys((_request, response) => void response.writeHead(500).end());
  await clock.advance(10 * MINUTE_MS);
  await issuers.refresh();
  t.truthy(await check(known));
  await t.throwsAsync(check(unknown), unavailable);
  t.deepEqual(failures, [
    {
      issuer: 'gha',
      reason: `${issuer.url}/keys answered 500 instead of 200`,
      age: 10 * MINUTE_MS,
      left: DAY_MS - 10 * MINUTE_MS,
    },
  ]);
  await clock.advance(DAY_MS);
  await t.throwsAsync(check(known), unavailable);
  issuer.answerKeys({keys: [key.jwk]});
  await clock.advance(10_000);
  t.truthy(await check(known), 'it recovers');
});

test('a key that the issuer no longer lists is refused after the next refresh', async (t) => {
  const {issuer, issuers, check, clock} = await withIssuer(t);
  const token = await signToken(key, issuer.url);
  t.truthy(await check(token));
  issuer.answerKeys({keys: [other.jwk]});
  await clock.advance(10_000);
  await issuers.refresh();
  await t.throwsAsync(check(token), refused(/a key that its issuer does not list/));
});

test('an issuer that never answers does not stall tokens whose key is known, and the first waits for 5 seconds', async (t) => {
  const {issuer, issuers, check, clock} = await withIssuer(t);
  const [known, unknown] = await Promise.all([signToken(key, issuer.url), signToken(other, issuer.url)]);
  t.truthy(await check(known));
  const {promise: reached, resolve} = Promise.withResolvers<void>();
  issuer.answerKeys(() => resolve());
  await clock.advance(10_000);
  const refreshing = issuers.refresh();
  await reached;
  t.truthy(await check(known), 'while keys are being read');
  const waiting = t.throwsAsync(check(unknown), unavailable);
  await clock.advance(5000);
  await Promise.all([refreshing, waiting]);
  t.truthy(await check(known));
});

test('an issuer whose answer begins and never ends is given up after 5 seconds', async (t) => {
  const {issuer, check, clock, failures} = await withIssuer(t);
  const {promise: reached, resolve} = Promise.withResolvers<void>();
  issuer.answerKeys((_request, response) => {
    response.write('{"keys": [');
    resolve();
  });
  const waiting = t.throwsAsync(check(await signToken(key, issuer.url)), unavailable);
  await reached;
  await clock.advance(5000);
  await waiting;
  t.regex(failures[0]?.reason ?? '', /\/keys did not answer within 5 s/);
});

test('a forward proxy that never opens its tunnel is given up after 5 seconds', async (t) => {
  const {promise: reached, resolve} = Promise.withResolvers<void>();
  const proxy = createServer().on('connect', (_request, socket) => {
    t.teardown(() => socket.destroy());
    resolve();
  });
  await once(proxy.listen(0, '127.0.0.1'), 'listening');
  t.teardown(() => void proxy.close());
  const {port} = proxy.address() as AddressInfo;
  const env = {HTTPS_PROXY: `http://127.0.0.1:${port}`};
  const {clock, check, failures} = createTested([issuerConfig('https://idp.test')], env);
  const waiting = t.throwsAsync(check(await signToken(key, 'https://idp.test')), unavailable);
  await reached;
  await clock.advance(5000);
  await waiting;
  t.regex(failures[0]?.reason ?? '', /did not answer within 5 s/);
});

const BAD_ANSWERS: [
  what: string,
  answer: Parameters<Awaited<ReturnType<typeof startIssuer>>['answerKeys']>[0],
  reason: RegExp,
][] = [
  ['is huge', (_request, response) => void response.end(' '.repeat(600 * 1024)), /more than the limit/],
  ['is HTML', (_request, response) => void response.end('<html>'), /is not JSON/],
  ['is nested deeply', (_request, response) => void response.end('['.repeat(5000)), /nested deeper than/],
  ['is a list', [], /is not a JSON Web Key Set/],
  ['has keys that are not objects', {keys: ['one']}, /is not a JSON Web Key Set/],
  ['has too many keys', {keys: Array.from({length: 101}, () => key.jwk)}, /has 101 keys/],
  [
    'is a redirect',
    (_request, response) => void response.writeHead(302, {location: 'http://127.0.0.1:1/'}).end(),
    /answered 302 instead of 200/,
  ],
];

for (const [what, answer, reason] of BAD_ANSWERS)
  test(`an answer that ${what} is reported, and no reason to refuse a token`, async (t) => {
    const {issuer, check, failures} = await withIssuer(t);
    issuer.answerKeys(answer);
    await t.throwsAsync(check(await signToken(key, issuer.url)), unavailable);
    t.regex(failures[0]?.reason ?? '', reason);
    t.is(failures[0]?.left, undefined);
  });

const BAD_DISCOVERIES: [what: string, document: (url: string) => object, reason: RegExp][] = [
  ['another issuer', (url) => ({issuer: `${url}/`, jwks_uri: `${url}/keys`}), /is of the issuer .*, not of/],
  ['no issuer', (url) => ({jwks_uri: `${url}/keys`}), /is of the issuer undefined/],
  ['no keys', (url) => ({issuer: url}), /has no jwks_uri that begins with https/],
  ['keys over plain HTTP', (url) => ({issuer: url, jwks_uri: 'http://keys.test/'}), /has no jwks_uri that/],
  ['keys in a file', (url) => ({issuer: url, jwks_uri: 'file:///etc/keys'}), /has no jwks_uri that/],
];

for (const [what, document, reason] of BAD_DISCOVERIES)
  test(`a discovery document with ${what} is not followed`, async (t) => {
    const {issuer, check, failures} = await withIssuer(t);
    issuer.answerDiscovery(document(issuer.url));
    await t.throwsAsync(check(await signToken(key, issuer.url)), unavailable);
    t.regex(failures[0]?.reason ?? '', reason);
    t.deepEqual(issuer.asked, ['/.well-known/openid-configuration']);
  });

test('another configuration keeps the keys of the issuers that stay as they are', async (t) => {
  const {issuer, issuers, check, replace} = await withIssuer(t);
  const token = await signToken(key, issuer.url);
  t.truthy(await check(token));
  issuer.asked.length = 0;
  replace([issuerConfig('urn:new', {name: 'new', jwks: '/keys'}), issuerConfig(issuer.url)]);
  t.truthy(await check(token));
  t.deepEqual(issuer.asked, []);
  replace([issuerConfig(issuer.url, {name: 'renamed'})]);
  t.is((await check(token))?.names[0], 'renamed:sub=repo:org/app');
  t.is(issuer.asked.length, 2);
  replace([]);
  t.false(issuers.isOpen());
  t.is(await check(token), undefined);
});

test('nothing is asked of an issuer before its first token', async (t) => {
  const {issuer, issuers} = await withIssuer(t);
  await issuers.refresh();
  t.deepEqual(issuer.asked, []);
});

test('a token is verified once, while its issuer’s keys and settings stay the same, and not after it has ended', async (t) => {
  const {issuer, clock, issuers, check, replace, verified} = await withIssuer(t, {maxAge: 2 * MINUTE_MS});
  const long = await signToken(key, issuer.url, {exp: NOW / 1000 + 10_000, padding: 'x'.repeat(8000)});
  const first = await check(long);
  t.is(await check(long), first);
  t.is(await check(long, 'bearer'), first);
  t.is(verified(), 1);
  const forged = `${long.slice(0, -10)}${'A'.repeat(10)}`;
  await t.throwsAsync(check(forged), refused(/signature that does not match/));
  t.is(verified(), 2);
  await clock.advance(10_000);
  await issuers.refresh();
  t.truthy(await check(long));
  t.is(verified(), 2, 'the keys are the same');
  issuer.answerKeys({keys: [key.jwk, (await createSigningKey('another')).jwk]});
  await clock.advance(10_000);
  await issuers.refresh();
  t.truthy(await check(long));
  t.is(verified(), 3, 'there are other keys');
  replace([issuerConfig(issuer.url, {maxAge: 3 * MINUTE_MS})]);
  t.truthy(await check(long));
  t.is(verified(), 4, 'the settings have changed');
  await clock.advance(3 * MINUTE_MS + 11_000);
  await t.throwsAsync(check(long), refused(/is too old/));
});

test('after ten refused tokens an address waits a minute, and a token that was accepted before does not', async (t) => {
  const {issuer, clock, check, verified} = await withIssuer(t);
  const good = await signToken(key, issuer.url, {exp: NOW / 1000 + 10_000});
  t.truthy(await check(good));
  const strange = await createSigningKey('three');
  for (let index = 0; index < 10; index += 1) {
    const forged = await signToken({...(index % 2 === 0 ? other : strange), kid: 'one'}, issuer.url);
    await t.throwsAsync(check(forged), {instanceOf: LoginRefused});
  }
  const before = verified();
  const unknown = await signToken(key, issuer.url, {exp: NOW / 1000 + 10_000, nonce: 1});
  const waits = await t.throwsAsync(check(unknown), {instanceOf: OciError});
  t.like(waits, {status: 429, headers: {'Retry-After': '60'}});
  t.is(verified(), before, 'nothing more is verified');
  t.truthy(await check(good));
  await clock.advance(MINUTE_MS);
  t.truthy(await check(unknown));
});

test('a refused token names its subject to the log only if its signature is right', async (t) => {
  const {issuer, check} = await withIssuer(t);
  const claimedBy = async (token: string) => (await t.throwsAsync<LoginRefused>(check(token)))?.claimed;
  t.is(await claimedBy(await signToken(key, issuer.url, {aud: 'other'})), 'gha:sub=repo:org/app');
  t.is(await claimedBy(await signToken({...other, kid: 'one'}, issuer.url)), undefined);
  t.is(await claimedBy(await signToken(key, issuer.url, {aud: 'other', sub: 'a\nb'})), undefined);
});

test('what was issued for a token ends when its issuer is removed or its settings change', async (t) => {
  const {issuer, issuers, check, replace} = await withIssuer(t);
  const own = await check(await signToken(key, issuer.url));
  if (!own) return t.fail();
  const id = own.source?.id ?? '';
  t.is(issuers.recall?.(own, id), own);
  replace([issuerConfig(issuer.url)]);
  t.is(issuers.recall?.(own, id), own, 'a reload that leaves it as it is');
  replace([issuerConfig(issuer.url, {require: {repository_owner: 'org'}})]);
  t.is(issuers.recall?.(own, id), undefined);
  replace([]);
  t.is(issuers.recall?.(own, id), undefined);
});
