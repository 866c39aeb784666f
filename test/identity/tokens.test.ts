import {createHmac, createPrivateKey, createPublicKey, generateKeyPairSync} from 'node:crypto';
import {mkdir, readFile, stat, unlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {decodeJwt, decodeProtectedHeader, SignJWT} from 'jose';
import {createEvents} from '../../src/events.ts';
import {
  type Identity,
  type LoginMethod,
  LoginRefused,
  type TokenSource,
} from '../../src/identity/authenticator.ts';
import {parseScope} from '../../src/identity/scopes.ts';
import {createSigningKeys} from '../../src/identity/signing-keys.ts';
import {createTokens, REFRESH_TTL_MS, type Tokens} from '../../src/identity/tokens.ts';
import {createSignatureTurns} from '../../src/identity/turns.ts';
import {createMovableClock, type MovableClock} from '../support/backref.ts';
import {createFolder} from '../support/folder.ts';

const DAY = 24 * 60 * 60_000;
const TTL = 5 * 60_000;
const ALICE: Identity = {names: ['user:alice', 'group:dev'], source: {method: 'password', id: 'v1'}};
const SCOPES = [parseScope('repository:app:pull')].flatMap((scope) => scope ?? []);

interface Started {
  tokens: Tokens;
  clock: MovableClock;
  folder: string;
  failures: string[];
  /** Who can still log in, by the version of the password. */
  valid: Map<string, Identity>;
  check(token: string): Promise<Identity | undefined>;
  /** The same keys, service and methods in another process. */
  again(differences?: {service?: string; folder?: string; supplied?: string}): Started;
}

function startIn(folder: string, clock: MovableClock, service = 'backref', supplied?: string): Started {
  const events = createEvents();
  const failures: string[] = [];
  events.on('background.failed', ({task}) => void failures.push(task));
  const valid = new Map([['v1', ALICE]]);
  const method: LoginMethod = {
    name: 'password',
    isOpen: () => true,
    check: async () => undefined,
    recall: (_own, id) => valid.get(id),
  };
  const once: TokenSource = {
    name: 'issuer',
    isCheckedOnce: true,
    recall: (own, id) => (valid.has(id) ? own : undefined),
  };
  const keys = createSigningKeys({folder, supplied, keptFor: REFRESH_TTL_MS, clock, events});
  const tokens = createTokens({
    keys,
    service,
    ttl: TTL,
    sources: [method, once],
    turns: createSignatureTurns(),
    clock,
  });
  return {
    tokens,
    clock,
    folder,
    failures,
    valid,
    check: (secret) => tokens.check({scheme: 'bearer', username: undefined, secret, address: undefined}),
    again: (differences = {}) =>
      startIn(
        differences.folder ?? folder,
        clock,
        differences.service ?? service,
        differences.supplied ?? supplied,
      ),
  };
}

const start = async (t: ExecutionContext): Promise<Started> =>
  startIn(await createFolder(t), createMovableClock());

const keyFile = ({folder}: Started) => join(folder, 'token-keys.json');

async function storedKeys(started: Started): Promise<{createdAt: number; pem: string}[]> {
  return JSON.parse(await readFile(keyFile(started), 'utf8')).keys;
}

const isRefused = (t: ExecutionContext, got: Promise<unknown>, message?: RegExp) =>
  t.throwsAsync(got, {instanceOf: LoginRefused, ...(message ? {message} : {})});

test('a token says who its bearer is and what it is for, until it expires', async (t) => {
  const {tokens, check, clock} = await start(t);
  const {token, expiresIn, issuedAt} = await tokens.issue(ALICE, SCOPES);
  t.is(expiresIn, 300);
  t.is(issuedAt, clock.now());
  t.deepEqual(await check(token), {...ALICE, scopes: SCOPES});
  clock.move(TTL - 2000);
  t.truthy(await check(token));
  clock.move(2000);
  await isRefused(t, check(token), /expired/);
});

test('another process of the same data folder verifies it', async (t) => {
  const started = await start(t);
  const {token} = await started.tokens.issue(ALICE, SCOPES);
  t.deepEqual((await started.again().check(token))?.names, ALICE.names);
});

test('a token carries no more than its protocol needs', async (t) => {
  const {tokens} = await start(t);
  const {token} = await tokens.issue(ALICE, SCOPES);
  const {iss, aud, sub, access, ...times} = decodeJwt(token);
  t.deepEqual([iss, aud, sub, access], ['backref', 'backref', 'user:alice', SCOPES]);
  t.deepEqual(Object.keys(times).sort(), ['exp', 'iat', 'names', 'nbf', 'source']);
  t.like(decodeProtectedHeader(token), {alg: 'EdDSA', typ: 'backref-access+jwt'});
});

test('a token ends with the password that it was issued for', async (t) => {
  const {tokens, check, valid} = await start(t);
  const {token} = await tokens.issue(ALICE, SCOPES);
  t.truthy(await check(token));
  valid.delete('v1');
  await isRefused(t, check(token), /no longer valid/);
});

test('the names of its bearer are those of now', async (t) => {
  const {tokens, check, valid} = await start(t);
  const {token} = await tokens.issue(ALICE, SCOPES);
  await check(token);
  valid.set('v1', {...ALICE, names: ['user:alice', 'group:ops']});
  t.deepEqual((await check(token))?.names, ['user:alice', 'group:ops']);
});

test('a token for a credential that is checked once ends with the settings that it was accepted by', async (t) => {
  const {tokens, check, valid} = await start(t);
  valid.set('settings', {names: ['anonymous']});
  const build: Identity = {names: ['gha:sub=1', 'gha:ref=main'], source: {method: 'issuer', id: 'settings'}};
  const {token} = await tokens.issue(build, SCOPES);
  t.deepEqual((await check(token))?.names, build.names);
  t.is(await tokens.issueRefresh(build), undefined);
  valid.delete('settings');
  await isRefused(t, check(token), /no longer valid/);
});

test('a token does not outlive the credential that it was issued for', async (t) => {
  const {tokens, clock, check} = await start(t);
  const until = clock.now() + 60_000;
  const {token, expiresIn} = await tokens.issue({names: ['gha:repository=org/app'], until}, SCOPES);
  t.true(expiresIn <= 60);
  t.truthy(await check(token));
  clock.move(60_000);
  await isRefused(t, check(token));
  t.is(await tokens.issueRefresh({names: ['gha:repository=org/app'], until}), undefined);
});

/** Tokens that were not issued here for this, each made from a valid one. */
const FORGERIES: Record<string, (started: Started) => Promise<string>> = {
  'for another service, signed with the same key': async (started) =>
    (await started.again({service: 'other'}).tokens.issue(ALICE, SCOPES)).token,
  'signed by another key': async (started) => {
    const {token} = await started.tokens.issue(ALICE, SCOPES);
    return new SignJWT(decodeJwt(token))
      .setProtectedHeader({...decodeProtectedHeader(token), alg: 'EdDSA'})
      .sign(generateKeyPairSync('ed25519').privateKey);
  },
  'with alg none': async (started) => {
    const {token} = await started.tokens.issue(ALICE, SCOPES);
    const {kid, typ} = decodeProtectedHeader(token);
    const header = Buffer.from(JSON.stringify({alg: 'none', kid, typ})).toString('base64url');
    return `${header}.${token.split('.')[1]}.`;
  },
  'with HS256 and the public key as its secret': async (started) => {
    const {token} = await started.tokens.issue(ALICE, SCOPES);
    const [stored] = await storedKeys(started);
    const secret = createPublicKey(createPrivateKey(stored?.pem ?? '')).export({type: 'spki', format: 'pem'});
    const header = Buffer.from(JSON.stringify({...decodeProtectedHeader(token), alg: 'HS256'})).toString(
      'base64url',
    );
    const signed = `${header}.${token.split('.')[1]}`;
    return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
  },
  'with a changed name': async (started) => {
    const {token} = await started.tokens.issue(ALICE, SCOPES);
    const [header, , signature] = token.split('.');
    const payload = Buffer.from(JSON.stringify({...decodeJwt(token), names: ['user:root']})).toString(
      'base64url',
    );
    return [header, payload, signature].join('.');
  },
  'without a key’s id': async (started) => {
    const {token} = await started.tokens.issue(ALICE, SCOPES);
    const [stored] = await storedKeys(started);
    return new SignJWT(decodeJwt(token))
      .setProtectedHeader({alg: 'EdDSA', typ: 'backref-access+jwt'})
      .sign(createPrivateKey(stored?.pem ?? ''));
  },
  'that is a refresh token': async ({tokens}) => (await tokens.issueRefresh(ALICE)) ?? '',
  'that is too long': async (started) => {
    const {token} = await started.tokens.issue(ALICE, SCOPES);
    const [stored] = await storedKeys(started);
    return new SignJWT({...decodeJwt(token), more: 'x'.repeat(20_000)})
      .setProtectedHeader({...decodeProtectedHeader(token), alg: 'EdDSA'})
      .sign(createPrivateKey(stored?.pem ?? ''));
  },
};

for (const [what, forge] of Object.entries(FORGERIES))
  test(`a token ${what} is refused`, async (t) => {
    const started = await start(t);
    const forged = await forge(started);
    await isRefused(t, started.check(forged));
    await isRefused(t, started.check(forged), /./);
  });

test('a token for many repositories is as good as any other', async (t) => {
  const {tokens, check} = await start(t);
  const scopes = Array.from({length: 100}, (_, index) => ({
    type: 'repository',
    name: `team-${index}/app/with/a/longer/name`,
    actions: ['pull', 'push'],
  }));
  const {token} = await tokens.issue(ALICE, scopes);
  t.true(token.length > 2048);
  t.deepEqual((await check(token))?.scopes, scopes);
  t.deepEqual((await check(token))?.scopes, scopes);
});

test('what is not a token of ours is left to others', async (t) => {
  const {check, tokens} = await start(t);
  t.is(await check('abc'), undefined);
  t.is(
    await check(
      await new SignJWT({iss: 'https://other.test'})
        .setProtectedHeader({alg: 'HS256'})
        .sign(Buffer.alloc(32)),
    ),
    undefined,
  );
  const {token} = await tokens.issue(ALICE, SCOPES);
  t.is(
    await tokens.check({scheme: 'basic', username: 'alice', secret: token, address: undefined}),
    undefined,
  );
});

test('a refresh token names its user while the password is the same', async (t) => {
  const {tokens, clock, valid} = await start(t);
  const refresh = (await tokens.issueRefresh(ALICE)) ?? '';
  clock.move(60 * DAY);
  t.deepEqual((await tokens.refresh(refresh)).names, ALICE.names);
  const {token} = await tokens.issue(ALICE, SCOPES);
  await isRefused(t, tokens.refresh(token));
  await isRefused(t, tokens.refresh('nonsense'));
  valid.delete('v1');
  await isRefused(t, tokens.refresh(refresh));
  valid.set('v1', ALICE);
  clock.move(31 * DAY);
  await isRefused(t, tokens.refresh(refresh));
});

test('keys are written for this user alone, when the first token is issued', async (t) => {
  const started = await start(t);
  await isRefused(
    t,
    started.check((await startIn(await createFolder(t), started.clock).tokens.issue(ALICE, [])).token),
  );
  await t.throwsAsync(stat(keyFile(started)), {code: 'ENOENT'});
  await started.tokens.issue(ALICE, []);
  t.is((await stat(keyFile(started))).mode & 0o777, 0o600);
});

test('a key signs for thirty days, and verifies for as long as its tokens live', async (t) => {
  const started = await start(t);
  const {clock, tokens} = started;
  const refresh = (await tokens.issueRefresh(ALICE)) ?? '';
  clock.move(30 * DAY);
  await Promise.all([tokens.issue(ALICE, []), tokens.issue(ALICE, [])]);
  t.is((await storedKeys(started)).length, 2);
  clock.move(59 * DAY);
  await tokens.issue(ALICE, []);
  t.truthy(await started.again().tokens.refresh(refresh));
  clock.move(32 * DAY);
  await tokens.issue(ALICE, []);
  t.true((await storedKeys(started)).every(({createdAt}) => clock.now() - createdAt < 121 * DAY));
});

test('keys that cannot be read or written are reported, and tokens are issued all the same', async (t) => {
  const started = await start(t);
  await writeFile(keyFile(started), 'not JSON');
  const {token} = await started.tokens.issue(ALICE, []);
  t.truthy(await started.check(token));
  t.regex(started.failures.join(), /^read the keys of tokens in /);
  await unlink(keyFile(started));
  await mkdir(keyFile(started));
  const unreadable = started.again();
  t.truthy(await unreadable.check((await unreadable.tokens.issue(ALICE, [])).token));
  t.deepEqual(unreadable.failures.length, 1, 'what cannot be read is not replaced');
  const absent = startIn(join(started.folder, 'absent'), started.clock);
  t.truthy(await absent.check((await absent.tokens.issue(ALICE, [])).token));
  t.regex(absent.failures.join(), /^write the keys of tokens in /);
});

for (const [kind, algorithm, {privateKey}] of [
  ['Ed25519', 'EdDSA', generateKeyPairSync('ed25519')],
  ['P-256', 'ES256', generateKeyPairSync('ec', {namedCurve: 'P-256'})],
] as const)
  test(`a supplied key of the kind ${kind} is used alone, and no key is written`, async (t) => {
    const supplied = privateKey.export({type: 'pkcs8', format: 'pem'}).toString();
    const started = (await start(t)).again({supplied});
    const {token} = await started.tokens.issue(ALICE, SCOPES);
    t.is(decodeProtectedHeader(token).alg, algorithm);
    t.truthy(await started.check(token));
    await t.throwsAsync(stat(keyFile(started)), {code: 'ENOENT'});
  });
