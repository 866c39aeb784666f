import test from 'ava';
import fc from 'fast-check';
import {digestOf} from '../../src/oci/digest.ts';
import {OciError} from '../../src/oci/errors.ts';
import {isDigestReference, isRepositoryName, isTag, parseName, parseReference} from '../../src/oci/name.ts';

// Copied from the distribution-spec 1.1, section "Pulling Manifests".
const SPEC_NAME = /^[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*$/;
const SPEC_TAG = /^[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}$/;

const LIMIT = 255;

for (const text of [
  'a',
  '0',
  'library/alpine',
  'a.b',
  'a_b',
  'a__b',
  'a-b',
  'a---b',
  'a/b/c/d/e/f/g',
  'ghcr.io/org/app',
  'a'.repeat(LIMIT),
  `${'a/'.repeat(127)}a`,
]) {
  test(`the name ${text.length > 40 ? `of ${text.length} characters (${text.slice(0, 4)}…)` : text} is accepted`, (t) => {
    t.true(isRepositoryName(text));
    t.is<string, string>(parseName(text), text);
  });
}

for (const [what, text] of [
  ['nothing', ''],
  ['a path upwards', 'a/../b'],
  ['a path upwards alone', '..'],
  ['a dot as a component', 'a/./b'],
  ['an empty component', 'a//b'],
  ['a slash in front', '/a'],
  ['a slash at the end', 'a/'],
  ['an upper-case letter', 'Library/alpine'],
  ['a separator in front', '-a'],
  ['a separator at the end of a component', 'a_/b'],
  ['three underscores', 'a___b'],
  ['two dots', 'a..b'],
  ['mixed separators', 'a._b'],
  ['a NUL', 'a\0b'],
  ['a line break at the end', 'a\n'],
  ['a space', 'a b'],
  ['a percent sign', 'a%2Fb'],
  ['a backslash', 'a\\b'],
  ['a colon', 'localhost:5000/a'],
  ['an at sign', 'a@b'],
  ['a letter outside of ASCII', 'café'],
  ['a digit of another script', 'a٣'],
  ['half of a surrogate pair', 'a\ud800'],
  ['one character too many', 'a'.repeat(LIMIT + 1)],
  ['a great many characters', 'a/'.repeat(50_000)],
] as const) {
  test(`a name with ${what} is NAME_INVALID`, (t) => {
    t.false(isRepositoryName(text));
    const error = t.throws(() => parseName(text), {instanceOf: OciError});
    t.like(error, {code: 'NAME_INVALID', status: 400});
    t.true((error?.message.length ?? 0) < 500);
  });
}

const alphabet = fc.string({unit: fc.constantFrom(...'ab09._-/AZ\0 %é'), maxLength: 30});
const component = fc.stringMatching(/^[a-z0-9]{1,5}(?:(?:\.|_|__|-{1,3})[a-z0-9]{1,5}){0,3}$/);
const anyText = fc.string({unit: 'binary', maxLength: 300});

test('a name is accepted exactly where the specification’s expression and the limit accept it', (t) => {
  fc.assert(
    fc.property(
      fc.oneof(
        alphabet,
        anyText,
        fc.array(component, {minLength: 1, maxLength: 6}).map((parts) => parts.join('/')),
      ),
      (text) => {
        const expected = SPEC_NAME.test(text) && text.length <= LIMIT;
        try {
          return parseName(text) === text && expected;
        } catch (error) {
          return error instanceof OciError && error.code === 'NAME_INVALID' && !expected;
        }
      },
    ),
    {numRuns: 5_000},
  );
  t.pass();
});

test('a tag is accepted exactly where the specification’s expression accepts it', (t) => {
  fc.assert(
    fc.property(
      fc.oneof(alphabet, anyText, fc.stringMatching(/^[a-zA-Z0-9_.-]{0,129}$/)),
      (text) => isTag(text) === SPEC_TAG.test(text),
    ),
    {numRuns: 5_000},
  );
  t.pass();
});

test('names that would make a careless regular expression run forever are decided at once', (t) => {
  const started = process.cpuUsage().user;
  for (const text of [
    `${'a-'.repeat(126)}!`,
    `${'a'.repeat(254)}!`,
    `${'-'.repeat(254)}`,
    `a${'-'.repeat(253)}!`,
  ]) {
    t.false(isRepositoryName(text));
  }
  t.true(process.cpuUsage().user - started < 1_000_000);
});

for (const tag of ['latest', 'v1.0', '_', 'A', 'a'.repeat(128), 'sha256-abc', '1.0_rc-1']) {
  test(`the tag ${tag.slice(0, 20)} is a reference`, (t) => {
    const reference = parseReference(tag);
    t.is<string, string>(reference, tag);
    t.false(isDigestReference(reference));
  });
}

for (const [what, text] of [
  ['is empty', ''],
  ['begins with a dot', '.hidden'],
  ['begins with a dash', '-flag'],
  ['is a path upwards', '..'],
  ['has 129 characters', 'a'.repeat(129)],
  ['has a slash', 'a/b'],
  ['has a NUL', 'a\0'],
  ['ends with a line break', 'a\n'],
  ['has a letter outside of ASCII', 'ä'],
  ['has a plus', '1.0+build'],
] as const) {
  test(`a reference that ${what} is MANIFEST_INVALID`, (t) => {
    const error = t.throws(() => parseReference(text), {instanceOf: OciError});
    t.like(error, {code: 'MANIFEST_INVALID', status: 400});
  });
}

test('a reference with a colon is a digest or DIGEST_INVALID', (t) => {
  for (const algorithm of ['sha256', 'sha512'] as const) {
    const digest = digestOf(Buffer.from('x'), algorithm);
    const reference = parseReference(digest);
    t.is(reference, digest);
    t.true(isDigestReference(reference));
  }
  const error = t.throws(() => parseReference('latest:1'), {instanceOf: OciError});
  t.like(error, {code: 'DIGEST_INVALID', status: 400});
});

test('the reference parser throws only OciErrors', (t) => {
  fc.assert(
    fc.property(fc.oneof(alphabet, anyText), (text) => {
      try {
        return parseReference(text) === text && (isTag(text) || text.includes(':'));
      } catch (error) {
        return error instanceof OciError && error.status === 400;
      }
    }),
    {numRuns: 2_000},
  );
  t.pass();
});
