import test from 'ava';
import {OciError} from '../../../src/oci/errors.ts';
import {
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_ARTIFACT_MANIFEST,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../../src/oci/media-type.ts';
import {parseReference} from '../../../src/oci/name.ts';
import {checkManifest} from '../../../src/registry/push/validate.ts';
import {contentOf, randomBlob} from '../../support/content.ts';

const latest = parseReference('latest');
const {digest} = randomBlob(10);
const descriptor = {mediaType: 'application/x', digest, size: 10};
const image = {schemaVersion: 2, config: descriptor, layers: [descriptor]};
const index = {schemaVersion: 2, manifests: [descriptor]};

const check = (
  body: object | string | Buffer,
  mediaType: string | undefined = OCI_MANIFEST,
  reference = latest,
) => {
  const bytes = Buffer.isBuffer(body)
    ? body
    : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
  return checkManifest(reference, {bytes, mediaType, tags: []});
};

function refusal(work: () => unknown): OciError {
  try {
    work();
  } catch (error) {
    if (error instanceof OciError) return error;
    throw error;
  }
  throw new Error('expected an OciError');
}

test('a valid manifest yields its digest, media type and references', (t) => {
  const checked = check(image);
  t.is(checked.mediaType, OCI_MANIFEST);
  t.is(checked.digest, contentOf(Buffer.from(JSON.stringify(image))).digest);
  t.is(checked.facts.blobs.length, 2);
  t.is(checked.edge, undefined);
  t.true(checked.known);
  t.is(check(index, OCI_INDEX).facts.manifests.length, 1);
});

test('the digest uses the algorithm of the reference', (t) => {
  const bytes = Buffer.from(JSON.stringify(image));
  const {digest: long} = contentOf(bytes, 'sha512');
  t.is(check(image, OCI_MANIFEST, long).digest, long);
});

test('a wrong digest is refused with both digests', (t) => {
  const {code, status, detail} = refusal(() => check(image, OCI_MANIFEST, digest));
  t.is(code, 'DIGEST_INVALID');
  t.is(status, 400);
  t.is(detail?.['expected'], digest);
});

for (const [title, body] of [
  ['text that is not JSON', 'manifest'],
  ['a JSON list', '[]'],
  ['a JSON text', '"x"'],
  ['null', 'null'],
  ['nothing', ''],
  ['bytes that are not text', Buffer.from([0x7b, 0xff, 0x7d])],
  ['a key twice', '{"schemaVersion":2,"subject":{},"subject":{}}'],
  ['endless nesting', `{"a":${'['.repeat(1000)}${']'.repeat(1000)}}`],
] as const) {
  test(`refuses ${title}`, (t) => {
    const {code, status} = refusal(() => check(body));
    t.is(code, 'MANIFEST_INVALID');
    t.is(status, 400);
  });
}

for (const [number, [wrong, body, mediaType = OCI_MANIFEST]] of (
  [
    ['config', {schemaVersion: 2, layers: []}],
    ['config.digest', {...image, config: {...descriptor, digest: 'sha256:abc'}}],
    ['config.digest', {...image, config: {...descriptor, digest: undefined}}],
    ['config.size', {...image, config: {...descriptor, size: -1}}],
    ['config.size', {...image, config: {...descriptor, size: '10'}}],
    ['config.size', {...image, config: {...descriptor, size: 1.5}}],
    ['config.size', {...image, config: {...descriptor, size: 2 ** 53}}],
    ['config.mediaType', {...image, config: {...descriptor, mediaType: 3}}],
    ['layers', {...image, layers: {}}],
    ['layers[1]', {...image, layers: [descriptor, 'x']}],
    ['layers[1].digest', {...image, layers: [descriptor, {...descriptor, digest: 'x'}]}],
    ['manifests[0].size', {...index, manifests: [{...descriptor, size: null}]}, OCI_INDEX],
    ['subject.digest', {...image, subject: {...descriptor, digest: 'sha512:ab'}}],
    ['subject', {...index, subject: 'x'}, OCI_INDEX],
    ['schemaVersion', {...image, schemaVersion: 1}],
    ['manifests', {...image, manifests: []}],
    ['layers', {...index, layers: []}, OCI_INDEX],
    ['config', {...index, config: descriptor}, DOCKER_LIST],
  ] as const
).entries()) {
  test(`refuses a fault and names it: ${wrong} (${number})`, (t) => {
    const {code, message} = refusal(() => check(body, mediaType));
    t.is(code, 'MANIFEST_INVALID');
    t.true(message.includes(wrong), message);
  });
}

for (const [title, body, mediaType = OCI_MANIFEST] of [
  ['lists that Go writes as null', {...image, layers: null, subject: null}],
  ['a manifest without layers', {schemaVersion: 2, config: descriptor}],
  ['an index without manifests', {schemaVersion: 2}, OCI_INDEX],
  [
    'a digest of an algorithm that is not supported',
    {...image, layers: [{...descriptor, digest: 'blake3:abc'}]},
  ],
  ['unknown fields', {...image, 'org.example': {layers: 3}}],
  ['an unknown format with any content', {layers: 'x', manifests: 3}, 'application/vnd.x+json'],
  ["Docker's formats", image, DOCKER_MANIFEST],
] as const) {
  test(`accepts ${title}`, (t) => {
    t.notThrows(() => check(body, mediaType));
  });
}

test('the header and the manifest must agree on the type; one of them is enough', (t) => {
  t.is(check({...image, mediaType: OCI_MANIFEST}, undefined).mediaType, OCI_MANIFEST);
  t.is(check(image, OCI_MANIFEST).mediaType, OCI_MANIFEST);
  t.is(check({...image, mediaType: OCI_MANIFEST}, OCI_MANIFEST.toUpperCase()).mediaType, OCI_MANIFEST);
  const {code, message} = refusal(() => check({...image, mediaType: OCI_MANIFEST}, OCI_INDEX));
  t.is(code, 'MANIFEST_INVALID');
  t.true(message.includes(OCI_INDEX) && message.includes(OCI_MANIFEST));
});

test('a manifest without any media type is refused', (t) => {
  const bytes = Buffer.from(JSON.stringify(image));
  const {message} = refusal(() => checkManifest(latest, {bytes, mediaType: undefined, tags: []}));
  t.regex(message, /Content-Type/);
});

test('a media type that no header can carry is refused', (t) => {
  for (const mediaType of ['x', 'a/b\r\nc: d', 'a/b; c=d', `a/${'b'.repeat(300)}`]) {
    const bytes = Buffer.from(JSON.stringify({...image, mediaType}));
    t.is(
      refusal(() => checkManifest(latest, {bytes, mediaType: undefined, tags: []})).code,
      'MANIFEST_INVALID',
    );
  }
});

test('a subject makes an edge in the formats of OCI and of Docker', (t) => {
  const attached = {...image, subject: descriptor};
  t.is(check(attached).edge?.subject, digest);
  t.is(check(attached, DOCKER_MANIFEST).edge?.subject, digest);
});

test('a million entries, and a megabyte of nesting, are refused', (t) => {
  const wide = `{"layers":[${'{},'.repeat(1_000_000)}{}]}`;
  const deep = `{"a":${'['.repeat(2_000_000)}`;
  for (const body of [wide, deep]) t.is(refusal(() => check(body)).code, 'MANIFEST_INVALID');
});

test('an OCI artifact manifest is checked: descriptors as blobs and subject, no properties of other formats', (t) => {
  const artifact = {
    mediaType: OCI_ARTIFACT_MANIFEST,
    artifactType: 'a/b',
    blobs: [descriptor],
    subject: descriptor,
  };
  const checked = check(artifact, OCI_ARTIFACT_MANIFEST);
  t.true(checked.known);
  t.is(checked.facts.blobs.length, 1);
  t.is(checked.edge?.subject, digest);
  for (const fault of [
    {blobs: [{}]},
    {blobs: {}},
    {subject: {digest: 'sha256:x'}},
    {subject: 'text'},
    {manifests: []},
    {layers: []},
    {config: descriptor},
  ]) {
    const {code} = refusal(() => check({...artifact, ...fault}, OCI_ARTIFACT_MANIFEST));
    t.is(code, 'MANIFEST_INVALID');
  }
});
