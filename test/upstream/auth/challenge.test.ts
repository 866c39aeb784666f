import test from 'ava';
import fc from 'fast-check';
import {parseChallenges} from '../../../src/upstream/auth/challenge.ts';

const read = (field: string) =>
  parseChallenges(field).map(({scheme, token68, params}) => ({
    scheme,
    token68,
    params: Object.fromEntries(params),
  }));

test('a quoted value keeps its commas', (t) => {
  t.deepEqual(read('Bearer realm="https://auth.example/token",service="s",scope="repository:a:pull,push"'), [
    {
      scheme: 'bearer',
      token68: undefined,
      params: {realm: 'https://auth.example/token', service: 's', scope: 'repository:a:pull,push'},
    },
  ]);
});

test('several challenges in one field are separated', (t) => {
  t.deepEqual(read('Newauth realm="apps", type=1, title="Login to \\"apps\\"", Basic realm="simple"'), [
    {scheme: 'newauth', token68: undefined, params: {realm: 'apps', type: '1', title: 'Login to "apps"'}},
    {scheme: 'basic', token68: undefined, params: {realm: 'simple'}},
  ]);
});

test('token68 and bare schemes are challenges too', (t) => {
  t.deepEqual(read('Negotiate YII+/==, NTLM , Basic realm = "x"'), [
    {scheme: 'negotiate', token68: 'YII+/==', params: {}},
    {scheme: 'ntlm', token68: undefined, params: {}},
    {scheme: 'basic', token68: undefined, params: {realm: 'x'}},
  ]);
});

test('empty list elements are skipped', (t) => {
  t.deepEqual(read(', ,Bearer ,realm=a,, service=b,'), [
    {scheme: 'bearer', token68: undefined, params: {realm: 'a', service: 'b'}},
  ]);
});

test('everything after a malformed part is ignored', (t) => {
  t.deepEqual(read('Bearer realm="open, Basic realm=x'), [
    {scheme: 'bearer', token68: undefined, params: {}},
  ]);
  t.deepEqual(read('"'), []);
  t.deepEqual(read(''), []);
});

const TOKEN_CHARACTERS = [..."!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCXYZ"];
const token = fc.string({unit: fc.constantFrom(...TOKEN_CHARACTERS), minLength: 1, maxLength: 12});
const value = fc.string({
  unit: fc.constantFrom(...TOKEN_CHARACTERS, ' ', '"', '\\', ',', '=', ':', '/', 'é'),
  maxLength: 30,
});
const challenge = fc.record({
  scheme: token,
  params: fc.uniqueArray(fc.tuple(token, value), {
    selector: ([name]) => name.toLowerCase(),
    minLength: 1,
    maxLength: 5,
  }),
});
const space = fc.constantFrom('', ' ', '\t', '  ');

test('every field that follows the grammar is parsed back', (t) => {
  const quoted = (text: string) => `"${text.replace(/["\\]/g, '\\$&')}"`;
  fc.assert(
    fc.property(fc.array(challenge, {maxLength: 4}), space, space, (challenges, before, after) => {
      const field = challenges
        .map(({scheme, params}) => {
          const written = params.map(([name, text]) => `${name}${before}=${after}${quoted(text)}`);
          return `${scheme} ${written.join(`${before},${after}`)}`;
        })
        .join(`${before},${after}`);
      const expected = challenges.map(({scheme, params}) => ({
        scheme: scheme.toLowerCase(),
        params: params.map(([name, text]) => [name.toLowerCase(), text]),
      }));
      const actual = parseChallenges(field).map(({scheme, params}) => ({scheme, params: [...params]}));
      t.deepEqual(actual, expected);
    }),
  );
});

test('no input makes it throw or hang', (t) => {
  const parts = fc.constantFrom('Bearer', 'Basic', ' ', ',', '=', '"', '\\', 'realm', '\t', 'a', '==', '/');
  fc.assert(
    fc.property(fc.oneof(fc.string({maxLength: 200}), fc.string({unit: parts, maxLength: 60})), (field) => {
      t.true(Array.isArray(parseChallenges(field)));
    }),
  );
});
