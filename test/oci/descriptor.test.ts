import test from 'ava';
import fc from 'fast-check';
import {readDescriptor} from '../../src/oci/descriptor.ts';
import {digestOf, isDigest} from '../../src/oci/digest.ts';

const digest = digestOf(Buffer.from('content'));
const minimal = {mediaType: 'application/x', digest, size: 7};

test('a descriptor keeps what we read and leaves the rest', (t) => {
  const full = {...minimal, artifactType: 'application/sbom', annotations: {a: 'b'}};
  t.deepEqual(
    readDescriptor({...full, data: 'Y29udGVudA==', urls: ['https://example.com'], platform: {}}),
    full,
  );
  t.deepEqual(readDescriptor(minimal), minimal);
});

test('a descriptor of a sha512 digest and one of size zero are descriptors', (t) => {
  const sha512 = digestOf(Buffer.alloc(0), 'sha512');
  t.deepEqual(readDescriptor({...minimal, digest: sha512, size: 0}), {...minimal, digest: sha512, size: 0});
});

test('a missing media type reads as empty; an empty artifact type reads as missing', (t) => {
  t.deepEqual(readDescriptor({digest, size: 7, artifactType: ''}), {mediaType: '', digest, size: 7});
  t.deepEqual(readDescriptor({digest, size: 7, mediaType: 5, artifactType: 5, annotations: []}), {
    mediaType: '',
    digest,
    size: 7,
  });
});

for (const [what, value] of [
  ['null', null],
  ['undefined', undefined],
  ['text', digest],
  ['a list', [minimal]],
  ['an empty object', {}],
  ['without a digest', {mediaType: 'a/b', size: 7}],
  ['with a malformed digest', {...minimal, digest: 'sha256:abc'}],
  ['with an unsupported digest', {...minimal, digest: `md5:${'a'.repeat(32)}`}],
  ['without a size', {mediaType: 'a/b', digest}],
  ['with a size in text', {...minimal, size: '7'}],
  ['with a negative size', {...minimal, size: -1}],
  ['with half a byte', {...minimal, size: 0.5}],
  ['with a size beyond the safe integers', {...minimal, size: 2 ** 53}],
  ['with a size that is not a number', {...minimal, size: Number.NaN}],
] as const) {
  test(`not a descriptor: ${what}`, (t) => {
    t.is(readDescriptor(value), undefined);
  });
}

test('the reader never throws on any JSON value, and gives only complete descriptors', (t) => {
  const near = fc.record(
    {
      mediaType: fc.jsonValue(),
      digest: fc.oneof(fc.constant(digest), fc.jsonValue()),
      size: fc.oneof(fc.nat(), fc.jsonValue()),
      artifactType: fc.jsonValue(),
      annotations: fc.jsonValue(),
    },
    {requiredKeys: []},
  );
  fc.assert(
    fc.property(fc.oneof(fc.jsonValue(), near), (value) => {
      const descriptor = readDescriptor(value);
      if (!descriptor) return true;
      return isDigest(descriptor.digest) && Number.isSafeInteger(descriptor.size) && descriptor.size >= 0;
    }),
    {numRuns: 2_000},
  );
  t.pass();
});
