import test from 'ava';
import fc from 'fast-check';
import {etagOf, ifRangeHolds, noneMatch} from '../../src/http/answer.ts';
import {digestOf} from '../../src/oci/digest.ts';

const digest = digestOf(Buffer.from('a'));
const other = digestOf(Buffer.from('b'));
const etag = etagOf(digest);

for (const [field, matches] of [
  [undefined, false],
  ['', false],
  [etag, true],
  [`W/${etag}`, true],
  [`  ${etag}  `, true],
  [`"x", ${etag}`, true],
  [`"x",W/${etag},"y"`, true],
  ['*', true],
  [digest, true],
  [etagOf(other), false],
  [`"${digest}x"`, false],
  [etag.slice(0, -1), false],
  [etag.toUpperCase(), false],
  [',,,', false],
] as const) {
  test(`If-None-Match ${JSON.stringify(field) ?? 'absent'} ${matches ? 'is met: 304' : 'asks for the content'}`, (t) => {
    t.is(noneMatch(field, digest), matches);
  });
}

test('the validator of the content is found among any others, and nothing is found without it', (t) => {
  const member = fc.string().map((text) => `"${text.replaceAll(/[",*]/g, '')}"`);
  fc.assert(
    fc.property(fc.array(member), fc.array(member), (before, after) => {
      const withIt = [...before, etag, ...after].join(', ');
      const without = [...before, ...after].join(', ');
      return noneMatch(withIt, digest) && !noneMatch(without, digest);
    }),
  );
  t.pass();
});

test('no text makes it throw', (t) => {
  fc.assert(fc.property(fc.string({unit: 'binary'}), (text) => typeof noneMatch(text, digest) === 'boolean'));
  t.pass();
});

test('a range counts while the strong validator is the same', (t) => {
  t.true(ifRangeHolds(undefined, digest));
  t.true(ifRangeHolds(etag, digest));
  t.false(ifRangeHolds(`W/${etag}`, digest));
  t.false(ifRangeHolds(etagOf(other), digest));
  t.false(ifRangeHolds('Tue, 01 Jan 2030 00:00:00 GMT', digest));
});
