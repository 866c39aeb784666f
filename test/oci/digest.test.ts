import {createHash} from 'node:crypto';
import test from 'ava';
import fc from 'fast-check';
import {
  algorithmOf,
  createDigester,
  digestOf,
  encodedOf,
  isDigest,
  parseDigest,
} from '../../src/oci/digest.ts';
import {OciError} from '../../src/oci/errors.ts';

const hex = (length: number) =>
  fc
    .array(fc.constantFrom(...'0123456789abcdef'), {minLength: length, maxLength: length})
    .map((digits) => digits.join(''));
const valid = fc.oneof(
  hex(64).map((encoded) => `sha256:${encoded}`),
  hex(128).map((encoded) => `sha512:${encoded}`),
);

test('a digest of either registered algorithm is accepted as it is written', (t) => {
  fc.assert(
    fc.property(valid, (text) => {
      const digest = parseDigest(text);
      return digest === text && isDigest(text) && `${algorithmOf(digest)}:${encodedOf(digest)}` === text;
    }),
  );
  t.pass();
});

const A64 = 'a'.repeat(64);
for (const [what, text] of [
  ['nothing', ''],
  ['no algorithm', A64],
  ['an empty algorithm', `:${A64}`],
  ['no encoded part', 'sha256:'],
  ['too few digits', `sha256:${'a'.repeat(63)}`],
  ['too many digits', `sha256:${'a'.repeat(65)}`],
  ['the length of the other algorithm', `sha512:${A64}`],
  ['upper-case digits', `sha256:${'A'.repeat(64)}`],
  ['an upper-case algorithm', `SHA256:${A64}`],
  ['letters beyond f', `sha256:${'g'.repeat(64)}`],
  ['an unsupported algorithm', `md5:${'a'.repeat(32)}`],
  ['a registered algorithm that is not supported', `blake3:${A64}`],
  ['a name that every object has', `constructor:${A64}`],
  ['a line break at the end', `sha256:${A64}\n`],
  ['a line break in the place of a digit', `sha256:${'a'.repeat(63)}\n`],
  ['a NUL', `sha256:${'a'.repeat(63)}\0`],
  ['a path', `sha256:../../${'a'.repeat(58)}`],
  ['a second colon', `sha256:${'a'.repeat(31)}:${'a'.repeat(32)}`],
  ['digits of another script', `sha256:${'٣'.repeat(64)}`],
  ['spaces around it', ` sha256:${A64}`],
] as const) {
  test(`a digest with ${what} is DIGEST_INVALID`, (t) => {
    t.false(isDigest(text));
    const error = t.throws(() => parseDigest(text), {instanceOf: OciError});
    t.like(error, {code: 'DIGEST_INVALID', status: 400});
  });
}

test('the parser throws only OciErrors, and accepts only complete digests', (t) => {
  const near = fc
    .tuple(
      fc.constantFrom('sha256', 'sha512', 'sha384', 'SHA256'),
      fc.string({unit: 'binary', maxLength: 140}),
    )
    .map(([algorithm, rest]) => `${algorithm}:${rest}`);
  fc.assert(
    fc.property(fc.oneof(fc.string({unit: 'binary'}), near, valid), (text) => {
      try {
        return parseDigest(text) === text && /^(?:sha256:[a-f0-9]{64}|sha512:[a-f0-9]{128})$/.test(text);
      } catch (error) {
        return error instanceof OciError && error.code === 'DIGEST_INVALID' && !isDigest(text);
      }
    }),
    {numRuns: 2_000},
  );
  t.pass();
});

test('the message of a refused digest stays short, however long the text', (t) => {
  const error = t.throws(() => parseDigest(`sha256:${'x'.repeat(100_000)}`), {instanceOf: OciError});
  t.true((error?.message.length ?? 0) < 500);
});

test('the digest of bytes is that of the algorithm, sha256 where none is named', (t) => {
  const empty = 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855';
  t.is(digestOf(Buffer.alloc(0)), parseDigest(`sha256:${empty}`));
  const bytes = Buffer.from('hello');
  t.is<string, string>(
    digestOf(bytes, 'sha512'),
    `sha512:${createHash('sha512').update(bytes).digest('hex')}`,
  );
});

test('a running digest does not depend on where the chunks are cut', (t) => {
  fc.assert(
    fc.property(
      fc.array(fc.uint8Array({maxLength: 50}), {maxLength: 20}),
      fc.constantFrom('sha256' as const, 'sha512' as const),
      (chunks, algorithm) => {
        const digester = createDigester(algorithm);
        for (const chunk of chunks) digester.update(chunk);
        return digester.digest() === digestOf(Buffer.concat(chunks), algorithm);
      },
    ),
  );
  t.pass();
});
