import {inspect} from 'node:util';
import test from 'ava';
import {createEvents} from '../../src/events.ts';
import {createAttempts} from '../../src/identity/attempts.ts';
import {LoginRefused} from '../../src/identity/authenticator.ts';
import {createLoginSeal} from '../../src/identity/login-seal.ts';
import {createOwnLogins} from '../../src/identity/own-logins.ts';
import {createSigningKeys} from '../../src/identity/signing-keys.ts';
import {createMovableClock} from '../support/backref.ts';
import {createFolder} from '../support/folder.ts';
import type {Lifetime} from '../support/shared.ts';

const GHCR = {name: 'ghcr.io', upstream: {host: 'ghcr.io'}};
const QUAY = {name: 'quay.io', upstream: {host: 'quay.io'}};
const ALICE = {username: 'alice', password: 'open:sesame ü'};

async function start(t: Lifetime, folder?: string) {
  const clock = createMovableClock();
  const events = createEvents();
  const path = folder ?? (await createFolder(t));
  const keys = createSigningKeys({folder: path, supplied: undefined, keptFor: 1000, clock, events});
  const seal = createLoginSeal(keys);
  return {seal, path, logins: createOwnLogins({seal, attempts: createAttempts(clock), clock, events})};
}

test('a login is for one upstream, and nothing prints it', async (t) => {
  const {logins} = await start(t);
  const {key, login} = logins.of(GHCR, ALICE);
  t.deepEqual(login?.for('ghcr.io'), ALICE);
  t.is(login?.for('quay.io'), undefined);
  t.is(login?.for('ghcr.io:8443'), undefined);
  for (const text of [
    inspect({login}, {showHidden: true, depth: 9}),
    JSON.stringify({login, key}),
    `${login}`,
  ])
    t.false(/alice|sesame/.test(text), text);
});

test('its key is the same for the same login at the same registry, and in no other process', async (t) => {
  const {logins} = await start(t);
  const {key} = logins.of(GHCR, ALICE);
  t.is(logins.of(GHCR, {...ALICE}).key, key);
  const others = [
    logins.of(QUAY, ALICE),
    logins.of({...GHCR, upstream: {host: 'ghcr.example'}}, ALICE),
    logins.of(GHCR, {...ALICE, password: 'x'}),
    logins.of(GHCR, {username: 'alice","open', password: 'sesame ü'}),
    (await start(t)).logins.of(GHCR, ALICE),
  ];
  for (const other of others) t.not(other.key, key);
});

test('a sealed login can be read by this server alone, also after a restart, and for its registry alone', async (t) => {
  const {logins, path} = await start(t);
  const sealed = await logins.seal(GHCR, ALICE);
  const restarted = await start(t, path);
  t.deepEqual((await restarted.logins.open(GHCR, sealed)).login?.for('ghcr.io'), ALICE);
  await t.throwsAsync(logins.open(QUAY, sealed), {instanceOf: LoginRefused, message: /another registry/});
  const moved = {...GHCR, upstream: {host: 'ghcr.example'}};
  await t.throwsAsync(logins.open(moved, sealed), {instanceOf: LoginRefused, message: /another upstream/});
  const elsewhere = await start(t);
  await elsewhere.logins.seal(GHCR, ALICE);
  await t.throwsAsync(elsewhere.logins.open(GHCR, sealed), {instanceOf: LoginRefused});
});

test('what was not sealed here is not opened', async (t) => {
  const {logins, seal} = await start(t);
  const sealed = await logins.seal(GHCR, ALICE);
  const [head = '', key, iv, text = '', tag] = sealed.split('.');
  const header = JSON.parse(Buffer.from(head, 'base64url').toString());
  const other = (changes: object) =>
    Buffer.from(JSON.stringify({...header, ...changes})).toString('base64url');
  const forged = [
    '',
    'nonsense',
    text,
    [head, key, iv, `${text.slice(0, -2)}AA`, tag].join('.'),
    [other({alg: 'none'}), key, iv, text, tag].join('.'),
    [other({enc: 'A128CBC-HS256'}), key, iv, text, tag].join('.'),
    [other({kid: 'unknown'}), key, iv, text, tag].join('.'),
  ];
  for (const each of forged) t.is(await seal.open(each), undefined, each);
});

test('what cannot be a login for an upstream is refused', async (t) => {
  const {logins} = await start(t);
  for (const password of ['x'.repeat(5000), `backref_robot_${'0'.repeat(49)}`])
    t.throws(() => logins.of(GHCR, {username: 'ci', password}), {instanceOf: LoginRefused});
});
