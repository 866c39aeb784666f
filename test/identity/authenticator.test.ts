import test from 'ava';
import {createEvents} from '../../src/events.ts';
import {
  createAuthenticator,
  type Identity,
  type LoginMethod,
  LoginRefused,
  NOBODY,
  parseAuthorization,
} from '../../src/identity/authenticator.ts';

const basic = (text: string): string => `Basic ${Buffer.from(text).toString('base64')}`;

/** Knows the secrets that begin with its name. */
const method = (name: string, identity: Identity | Error, isOpen = true): LoginMethod => ({
  name,
  isOpen: () => isOpen,
  async check({secret}) {
    if (!secret.startsWith(name)) return undefined;
    if (identity instanceof Error) throw identity;
    return identity;
  },
});

const ALICE: Identity = {names: ['user:alice', 'group:dev']};
const address = '192.0.2.1';

test('a request without a credential is from nobody', async (t) => {
  const {identify, isOpen} = createAuthenticator([method('a', ALICE)], createEvents());
  t.true(isOpen());
  t.is(await identify({authorization: undefined, address}), NOBODY);
});

test('the first method that knows the kind of a credential decides about it', async (t) => {
  const refused = new LoginRefused('wrong');
  const {identify} = createAuthenticator([method('bad', refused), method('b', ALICE)], createEvents());
  t.is(await identify({authorization: basic('x:b-secret'), address}), ALICE);
  t.is(await identify({authorization: 'bearer b-token', address}), ALICE);
  t.is(await t.throwsAsync(identify({authorization: basic('x:bad-secret'), address})), refused);
});

test('a credential that no method knows is refused, and its sender does not become anonymous', async (t) => {
  const {identify} = createAuthenticator([method('a', ALICE)], createEvents());
  const password = await t.throwsAsync(identify({authorization: basic('x:other'), address}));
  t.true(password instanceof LoginRefused && !password.isToken);
  const token = await t.throwsAsync(identify({authorization: 'Bearer other', address}));
  t.true(token instanceof LoginRefused && token.isToken);
});

test('while nobody can log in, credentials are not read: Docker sends those of Docker Hub to a mirror', async (t) => {
  const {identify, isOpen} = createAuthenticator([method('a', ALICE, false)], createEvents());
  t.false(isOpen());
  t.is(await identify({authorization: basic('x:a-secret'), address}), NOBODY);
  t.is(await createAuthenticator([], createEvents()).identify({authorization: 'nonsense', address}), NOBODY);
});

test('a password may have colons, and a user name may be empty', (t) => {
  t.deepEqual(parseAuthorization(basic('alice:a:b')), {scheme: 'basic', username: 'alice', secret: 'a:b'});
  t.deepEqual(parseAuthorization(basic(':a')), {scheme: 'basic', username: '', secret: 'a'});
  t.deepEqual(parseAuthorization('BEARER  x.y '), {scheme: 'bearer', username: undefined, secret: 'x.y'});
});

for (const header of ['', 'Basic', 'Bearer ', 'Digest username="x"', basic('no colon'), 'Basic !!', 'a b c'])
  test(`"${header}" is not a credential`, (t) => {
    t.throws(() => parseAuthorization(header), {instanceOf: LoginRefused, message: /cannot be read/});
  });
