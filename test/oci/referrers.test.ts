import test from 'ava';
import fc from 'fast-check';
import {readDescriptor} from '../../src/oci/descriptor.ts';
import {digestOf, isDigest} from '../../src/oci/digest.ts';
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_ARTIFACT_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../src/oci/media-type.ts';
import {isTag, type Tag} from '../../src/oci/name.ts';
import {
  attachedTags,
  EMPTY_INDEX,
  edgeOf,
  extendIndex,
  fallbackTag,
  isAttachedTag,
  subjectPrefix,
} from '../../src/oci/referrers.ts';

const subject = {mediaType: OCI_MANIFEST, digest: digestOf(Buffer.from('subject')), size: 7};
const config = {mediaType: 'application/vnd.example.config', digest: digestOf(Buffer.from('{}')), size: 2};
const TYPE = 'application/vnd.example.sbom';

/** The edge of a manifest with this body, under this media type. */
function edge(body: unknown, mediaType = OCI_MANIFEST) {
  const bytes = Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  return edgeOf({digest: digestOf(bytes), mediaType, bytes});
}

test('the descriptor of an image names its bytes, its artifact type and all its annotations', (t) => {
  const annotations = {'org.opencontainers.image.created': '2026-01-02T03:04:05Z', ünï: '', data: 'x'};
  const bytes = Buffer.from(
    JSON.stringify({schemaVersion: 2, artifactType: TYPE, config, layers: [], subject, annotations}, null, 2),
  );
  for (const digest of [digestOf(bytes), digestOf(bytes, 'sha512')]) {
    t.deepEqual(edgeOf({digest, mediaType: OCI_MANIFEST, bytes}), {
      subject: subject.digest,
      descriptor: {
        mediaType: OCI_MANIFEST,
        digest,
        size: bytes.length,
        artifactType: TYPE,
        annotations,
      },
    });
  }
});

test('an image without an artifact type, or with an empty one, has its config’s media type', (t) => {
  t.is(edge({config, subject})?.descriptor.artifactType, config.mediaType);
  t.is(edge({config, subject, artifactType: ''})?.descriptor.artifactType, config.mediaType);
  t.is(edge({config, subject, artifactType: 7})?.descriptor.artifactType, config.mediaType);
});

test('an image with neither an artifact type nor a config media type has no artifact type', (t) => {
  for (const odd of [undefined, null, 'x', [], {}, {mediaType: ''}, {mediaType: 1}]) {
    const found = edge({config: odd, subject});
    t.truthy(found);
    t.false(found && 'artifactType' in found.descriptor);
  }
});

test('an index has its own artifact type or none', (t) => {
  const own = edge({artifactType: TYPE, manifests: [], subject}, OCI_INDEX);
  t.like(own, {subject: subject.digest, descriptor: {mediaType: OCI_INDEX, artifactType: TYPE}});
  for (const body of [
    {config, subject},
    {config, subject, artifactType: ''},
  ]) {
    const found = edge(body, OCI_INDEX);
    t.truthy(found);
    t.false(found && 'artifactType' in found.descriptor);
  }
});

test('annotations that are not text are left out, and so is the property when none are left', (t) => {
  const odd = {one: 'text', two: 2, three: null, four: ['x'], five: {six: '7'}};
  t.deepEqual(edge({config, subject, annotations: odd})?.descriptor.annotations, {one: 'text'});
  for (const annotations of [undefined, null, 'text', 1, ['text'], {}, {two: 2}]) {
    const found = edge({config, subject, annotations});
    t.truthy(found);
    t.false(found && 'annotations' in found.descriptor);
  }
});

test('an annotation may have the name of a property of every object', (t) => {
  const found = edge(`{"subject":${JSON.stringify(subject)},"annotations":{"__proto__":"a","toString":"b"}}`);
  t.is(JSON.stringify(found?.descriptor.annotations), '{"__proto__":"a","toString":"b"}');
});

test('neither data nor anything else of the body gets into the descriptor', (t) => {
  const found = edge({config, subject, data: 'aGk=', urls: ['https://x.example'], platform: {os: 'linux'}});
  t.deepEqual(Object.keys(found?.descriptor ?? {}), ['mediaType', 'digest', 'size', 'artifactType']);
});

for (const mediaType of [
  DOCKER_MANIFEST,
  DOCKER_LIST,
  OCI_ARTIFACT_MANIFEST,
  'application/vnd.example.manifest',
  '',
]) {
  test(`a manifest of the type "${mediaType}" with a subject makes an edge`, (t) => {
    t.like(edge({mediaType, subject, artifactType: TYPE, annotations: {a: 'b'}}, mediaType), {
      subject: subject.digest,
      descriptor: {mediaType, artifactType: TYPE, annotations: {a: 'b'}},
    });
  });
}

test('a Docker image without an artifact type has its config’s media type, a Docker list none', (t) => {
  t.is(edge({config, subject}, DOCKER_MANIFEST)?.descriptor.artifactType, config.mediaType);
  const list = edge({config, subject}, DOCKER_LIST);
  t.truthy(list);
  t.false(list && 'artifactType' in list.descriptor);
});

test('the media type is the one that the repository holds the manifest under', (t) => {
  t.is(edge({config, subject})?.descriptor.mediaType, OCI_MANIFEST);
  t.is(
    edge({mediaType: OCI_MANIFEST, config, subject}, DOCKER_MANIFEST)?.descriptor.mediaType,
    DOCKER_MANIFEST,
  );
});

for (const [what, body] of [
  ['a manifest with no subject', {config}],
  ['a manifest with a subject that is null', {config, subject: null}],
  ['a manifest with a subject that is no descriptor', {config, subject: {digest: 'sha256:x', size: 1}}],
  ['a manifest with a subject of an unsupported algorithm', {subject: {...subject, digest: 'md5:0123'}}],
  ['a list', [{subject}]],
  ['bytes that are no JSON', '<html>'],
  ['null', 'null'],
] as const) {
  test(`no edge is made by ${what}`, (t) => {
    t.is(edge(body), undefined);
  });
}

test('only the digest of the subject is needed', (t) => {
  t.is(edge({config, subject: {digest: subject.digest}})?.subject, subject.digest);
});

test('the subject need not be of any known type, nor be here', (t) => {
  const digest = digestOf(Buffer.from('elsewhere'), 'sha512');
  t.is(edge({config, subject: {digest, size: 0}})?.subject, digest);
});

test('every edge is complete and its descriptor survives JSON', (t) => {
  const descriptor = fc.oneof(fc.constant(subject), fc.constant(config), fc.jsonValue());
  const body = fc.record(
    {
      subject: descriptor,
      config: descriptor,
      artifactType: fc.oneof(fc.string(), fc.jsonValue()),
      annotations: fc.oneof(fc.dictionary(fc.string(), fc.string()), fc.jsonValue()),
      data: fc.string(),
    },
    {requiredKeys: []},
  );
  fc.assert(
    fc.property(body, fc.constantFrom(OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST), (value, mediaType) => {
      const bytes = Buffer.from(JSON.stringify(value));
      const found = edgeOf({digest: digestOf(bytes), mediaType, bytes});
      if (!found) return mediaType === DOCKER_MANIFEST || readDescriptor(value.subject) === undefined;
      const {descriptor: given} = found;
      t.deepEqual(readDescriptor(JSON.parse(JSON.stringify(given))), given);
      return (
        isDigest(found.subject) &&
        given.size === bytes.length &&
        given.artifactType !== '' &&
        !('data' in given) &&
        Object.values(given.annotations ?? {}).every((text) => typeof text === 'string')
      );
    }),
    {numRuns: 2_000},
  );
});

test('the reader of edges never throws', (t) => {
  fc.assert(
    fc.property(fc.uint8Array(), (bytes) => {
      edgeOf({digest: digestOf(bytes), mediaType: OCI_MANIFEST, bytes});
    }),
  );
  t.pass();
});

// The three rows of dist-spec, Referrers Tag Schema.
for (const [digest, tag] of [
  [`sha256:${'a'.repeat(64)}`, `sha256-${'a'.repeat(64)}`],
  [`sha512:${'a'.repeat(128)}`, `sha512-${'a'.repeat(64)}`],
  [
    'test+algorithm+using+algorithm+separators+and+lots+of+characters+to+excercise+overall+truncation:alsoSome=InTheEncodedSectionToShowHyphenReplacementAndLotsAndLotsOfCharactersToExcerciseEncodedTruncation',
    'test-algorithm-using-algorithm-s-alsoSome-InTheEncodedSectionToShowHyphenReplacementAndLotsAndLot',
  ],
] as const) {
  test(`the fallback tag of ${digest.slice(0, 24)}… is ${tag.slice(0, 24)}…`, (t) => {
    t.is(fallbackTag(digest), tag as Tag);
  });
}

test('the fallback tag of any digest of the image-spec’s grammar is a tag', (t) => {
  const component = fc.stringMatching(/^[a-z0-9]+$/);
  const algorithm = fc
    .array(fc.tuple(fc.constantFrom('+', '.', '_', '-'), component), {maxLength: 12})
    .chain((rest) => component.map((first) => first + rest.flat().join('')));
  const encoded = fc.stringMatching(/^[a-zA-Z0-9=_-]+$/);
  fc.assert(
    fc.property(algorithm, encoded, (one, other) => isTag(fallbackTag(`${one}:${other}`))),
    {numRuns: 1_000},
  );
  t.pass();
});

test("the beginning of a subject's digest can be read from its fallback tag", (t) => {
  const content = fc.uint8Array({maxLength: 8});
  fc.assert(
    fc.property(content, fc.constantFrom('sha256', 'sha512'), (bytes, algorithm) => {
      const digest = digestOf(bytes, algorithm);
      const prefix = subjectPrefix(fallbackTag(digest));
      return prefix !== undefined && prefix.length === 7 + 64 && digest.startsWith(prefix);
    }),
  );
  const digest = digestOf(Buffer.from('x'));
  t.is(subjectPrefix(fallbackTag(digest)), digest, 'the whole digest of sha256');
});

for (const tag of [
  'latest',
  'sha256-',
  `sha256-${'a'.repeat(63)}`,
  `sha256-${'a'.repeat(65)}`,
  `sha256-${'A'.repeat(64)}`,
  `sha256-${'g'.repeat(64)}`,
  `sha256-${'a'.repeat(64)}.sig`,
  `sha384-${'a'.repeat(64)}`,
  `sha256_${'a'.repeat(64)}`,
  `xsha256-${'a'.repeat(64)}`,
]) {
  test(`${tag.slice(0, 12)}… of ${tag.length} characters is not a fallback tag`, (t) => {
    t.is(subjectPrefix(tag as Tag), undefined);
  });
}

test("cosign's tags of attached content are recognized", (t) => {
  const hex = 'a1'.repeat(32);
  for (const tag of [`sha256-${hex}.sig`, `sha256-${hex}.att`, `sha256-${hex}.sbom`]) {
    t.true(isAttachedTag(tag as Tag), tag);
  }
  for (const tag of [`sha256-${hex}`, `sha256-${hex}.`, 'sha256-a1.sig', `v-sha256-${hex}.sig`, '1.2.sig']) {
    t.false(isAttachedTag(tag as Tag), tag);
  }
});

test("a manifest has three of cosign's tags, unless its digest is too long for a tag", (t) => {
  const digest = digestOf(Buffer.from('x'));
  const hex = digest.slice('sha256:'.length);
  t.deepEqual(attachedTags(digest) as string[], [
    `sha256-${hex}.sig`,
    `sha256-${hex}.att`,
    `sha256-${hex}.sbom`,
  ]);
  t.true(attachedTags(digest).every(isAttachedTag));
  t.deepEqual(attachedTags(digestOf(Buffer.from('x'), 'sha512')), []);
});

test('an extended index keeps no memory but its own', (t) => {
  const pieces = ['{"size":1}', '', '{"size":2},{"size":3}'].map((text) => Buffer.from(text));
  const index = extendIndex(EMPTY_INDEX, pieces);
  t.deepEqual(JSON.parse(index.toString()).manifests, [{size: 1}, {size: 2}, {size: 3}]);
  t.true(index.buffer.byteLength <= index.length + 1, `${index.buffer.byteLength} for ${index.length}`);
});
