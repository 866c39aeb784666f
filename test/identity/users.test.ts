import {rename, symlink, unlink, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {hashSync} from '@node-rs/bcrypt';
import test, {type ExecutionContext} from 'ava';
import {createEvents} from '../../src/events.ts';
import {createAttempts} from '../../src/identity/attempts.ts';
import {type Identity, LoginRefused} from '../../src/identity/authenticator.ts';
import type {PasswordCheck} from '../../src/identity/bcrypt.ts';
import {createPasswordCheck} from '../../src/identity/bcrypt.ts';
import {createUsers} from '../../src/identity/users.ts';
import {OciError} from '../../src/oci/errors.ts';
import {createMovableClock} from '../support/backref.ts';
import {createFolder} from '../support/folder.ts';

const hashOf = (password: string): string => hashSync(password, 4);
const ALICE: Identity = {names: ['user:alice']};
const WRONG = 'the user name or the password is wrong';

/** Counts what it compares. */
function counting(): PasswordCheck & {hashes: string[]} {
  const {matches} = createPasswordCheck();
  const hashes: string[] = [];
  return {
    hashes,
    matches(password, hash) {
      hashes.push(hash);
      return matches(password, hash);
    },
  };
}

async function start(t: ExecutionContext, text: string) {
  const folder = await createFolder(t);
  const path = join(folder, 'htpasswd');
  await writeFile(path, text);
  const clock = createMovableClock();
  const events = createEvents();
  const rejected: string[] = [];
  events.on('login.users-rejected', ({reason}) => void rejected.push(reason));
  const passwords = counting();
  const users = createUsers({
    htpasswd: path,
    passwords,
    attempts: createAttempts(clock),
    changed: () => {},
    clock,
    events,
  });
  const logIn = (username: string, secret: string, address: string | undefined = '192.0.2.1') =>
    users.check({scheme: 'basic', username, secret, address});
  /** After the time in which a changed file is not looked for. */
  const later = () => clock.move(1000);
  return {folder, path, clock, rejected, passwords, users, logIn, later};
}

test('a user logs in with the right password and no other', async (t) => {
  const {logIn, users} = await start(t, `alice:${hashOf('right')}\n`);
  t.true(users.isOpen());
  t.deepEqual((await logIn('alice', 'right'))?.names, ['user:alice']);
  await t.throwsAsync(logIn('alice', 'wrong'), {instanceOf: LoginRefused, message: WRONG});
  await t.throwsAsync(logIn('bob', 'right'), {instanceOf: LoginRefused, message: WRONG});
  await t.throwsAsync(logIn('', ''), {instanceOf: LoginRefused, message: WRONG});
  t.is(
    await users.check({scheme: 'bearer', username: undefined, secret: 'right', address: undefined}),
    undefined,
  );
});

for (const prefix of ['$2a$', '$2b$', '$2y$'])
  test(`hashes that begin with ${prefix} are compared`, async (t) => {
    const {logIn} = await start(t, `alice:${hashOf('right').replace('$2b$', prefix)}\n`);
    t.truthy(await logIn('alice', 'right'));
  });

test('a right password is compared once in five minutes, equal logins at the same time are compared together', async (t) => {
  const {logIn, passwords, clock} = await start(t, `alice:${hashOf('right')}\n`);
  await Promise.all(Array.from({length: 20}, () => logIn('alice', 'right')));
  await logIn('alice', 'right');
  t.is(passwords.hashes.length, 1);
  clock.move(5 * 60_000);
  await logIn('alice', 'right');
  t.is(passwords.hashes.length, 2);
});

test('a name that is no user’s costs a comparison with a hash of the same cost', async (t) => {
  const {logIn, passwords} = await start(t, `alice:${hashOf('right')}\n`);
  await t.throwsAsync(logIn('nobody', 'right'));
  t.is(passwords.hashes.length, 1);
  t.regex(passwords.hashes[0] ?? '', /^\$2[by]\$04\$.{53}$/);
});

test('a password that bcrypt would cut is refused before it is compared', async (t) => {
  const {logIn, passwords} = await start(t, `alice:${hashOf('a'.repeat(72))}\n`);
  t.truthy(await logIn('alice', 'a'.repeat(72)));
  await t.throwsAsync(logIn('alice', 'a'.repeat(73)), {
    instanceOf: LoginRefused,
    message: /73 bytes.*first 72/,
  });
  await t.throwsAsync(logIn('alice', '\u00e9'.repeat(37)), {message: /74 bytes/});
  await t.throwsAsync(logIn('alice', 'a\0b'), {message: /zero byte/});
  t.is(passwords.hashes.length, 1);
});

test('after ten wrong passwords an address waits a minute, and others do not', async (t) => {
  const {logIn, clock, passwords} = await start(t, `alice:${hashOf('right')}\nbob:${hashOf('other')}\n`);
  await logIn('alice', 'right', '192.0.2.1');
  for (let index = 0; index < 10; index += 1)
    await t.throwsAsync(logIn('bob', `wrong ${index}`, '192.0.2.1'), {message: WRONG});
  const compared = passwords.hashes.length;
  const refused = await t.throwsAsync(logIn('bob', 'other', '192.0.2.1'));
  t.true(refused instanceof OciError && refused.status === 429 && refused.headers['Retry-After'] === '60');
  t.is(passwords.hashes.length, compared, 'nothing more is compared');
  t.truthy(await logIn('alice', 'right', '192.0.2.1'), 'who has logged in already goes on');
  t.truthy(await logIn('bob', 'other', '192.0.2.2'));
  clock.move(60_000);
  t.truthy(await logIn('bob', 'other', '192.0.2.1'));
});

test('passwords that are tried in parallel are no more than those that are tried one after the other', async (t) => {
  const {logIn, passwords} = await start(t, `bob:${hashOf('other')}\n`);
  const tried = await Promise.allSettled(
    Array.from({length: 40}, (_, index) => logIn('bob', `wrong ${index}`, '192.0.2.1')),
  );
  const reasons = tried.map((result) => (result.status === 'rejected' ? result.reason : undefined));
  t.is(reasons.filter((reason) => reason instanceof LoginRefused).length, 10);
  t.is(reasons.filter((reason) => reason instanceof OciError && reason.status === 429).length, 30);
  t.is(passwords.hashes.length, 10);
});

test('many users of one address may log in at the same time', async (t) => {
  const names = Array.from({length: 25}, (_, index) => `user${index}`);
  const {logIn} = await start(t, names.map((name) => `${name}:${hashOf(name)}\n`).join(''));
  const identities = await Promise.all(names.map((name) => logIn(name, name, '192.0.2.1')));
  t.deepEqual(
    identities.map((identity) => identity?.names[0]),
    names.map((name) => `user:${name}`),
  );
});

test('an IPv6 network of 64 bits counts as one address', async (t) => {
  const {logIn} = await start(t, `alice:${hashOf('right')}\n`);
  for (let index = 0; index < 10; index += 1)
    await t.throwsAsync(logIn('alice', 'wrong', `2001:db8:0:1::${index}`), {message: WRONG});
  const refused = await t.throwsAsync(logIn('alice', 'right', '2001:db8::1:2:3:4:5'));
  t.true(refused instanceof OciError && refused.status === 429);
  t.truthy(await logIn('alice', 'right', '2001:db8:0:2::1'));
});

test('a changed file takes effect, and a password that was right before does not count any more', async (t) => {
  const {logIn, path, later, users} = await start(t, `alice:${hashOf('old')}\nbob:${hashOf('bob')}\n`);
  const alice = await logIn('alice', 'old');
  const bob = await logIn('bob', 'bob');
  await writeFile(
    path,
    `alice:${hashOf('a newer one')}\nbob:${(await import('node:fs')).readFileSync(path, 'utf8').split('bob:')[1]}`,
  );
  later();
  await t.throwsAsync(logIn('alice', 'old'), {message: WRONG});
  t.truthy(await logIn('alice', 'a newer one'));
  t.is(users.recall?.(ALICE, alice?.source?.id ?? ''), undefined);
  t.deepEqual(users.recall?.({names: ['user:bob']}, bob?.source?.id ?? ''), bob);
});

test('a user that is removed logs in no more, and neither does what was issued for its password', async (t) => {
  const {logIn, path, later, users} = await start(t, `alice:${hashOf('right')}\nbob:${hashOf('bob')}\n`);
  const alice = await logIn('alice', 'right');
  await writeFile(path, `bob:${hashOf('bob')}\n`);
  later();
  await users.refresh();
  t.is(users.recall?.(ALICE, alice?.source?.id ?? ''), undefined);
  const refused = await t.throwsAsync(logIn('alice', 'right'), {message: WRONG});
  t.is((refused as LoginRefused).claimed, undefined, 'who does not exist is not named');
  t.is(((await t.throwsAsync(logIn('bob', 'wrong'))) as LoginRefused).claimed, 'user:bob');
});

test('a link that is replaced, as Kubernetes replaces that of a ConfigMap, is a change', async (t) => {
  const {folder, path, logIn, later} = await start(t, '');
  await writeFile(join(folder, 'v1'), `alice:${hashOf('one')}\n`);
  await writeFile(join(folder, 'v2'), `alice:${hashOf('two')}\n`);
  await unlink(path);
  await symlink('v1', path);
  t.truthy(await logIn('alice', 'one'));
  await symlink('v2', join(folder, 'next'));
  await rename(join(folder, 'next'), path);
  later();
  t.truthy(await logIn('alice', 'two'));
});

test('a file with faults, or a missing one, is reported once, and its users stay', async (t) => {
  const {path, logIn, later, rejected} = await start(t, `alice:${hashOf('right')}\n`);
  t.truthy(await logIn('alice', 'right'));
  await writeFile(path, 'alice:plain text\n');
  for (let index = 0; index < 3; index += 1) {
    later();
    t.truthy(await logIn('alice', 'right'));
  }
  t.is(rejected.length, 1);
  t.regex(rejected[0] ?? '', /^line 1 has no bcrypt hash for alice/);
  await unlink(path);
  later();
  t.truthy(await logIn('alice', 'right'));
  t.regex(rejected[1] ?? '', /ENOENT/);
});

test('a file that was never good is refused', async (t) => {
  const {users} = await start(t, 'alice:{SHA}x\n');
  await t.throwsAsync(users.refresh(), {message: /htpasswd cannot be used: line 1 .*SHA-1/});
});

test('more logins than can wait are answered at once', async (t) => {
  const {matches} = createPasswordCheck();
  const hash = hashOf('x');
  const results = await Promise.allSettled(
    Array.from({length: 150}, (_, index) => matches(String(index), hash)),
  );
  const refused = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
  t.is(refused.length, 48);
  t.true(refused.every((error) => error instanceof OciError && error.status === 503));
  t.true(await matches('x', hash));
});
