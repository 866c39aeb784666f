import test from 'ava';
import fc from 'fast-check';
import {digestOf} from '../../src/oci/digest.ts';
import {readManifest} from '../../src/oci/manifest.ts';
import {DOCKER_LIST, OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';

const descriptor = (text: string, mediaType = 'application/x') => ({
  mediaType,
  digest: digestOf(Buffer.from(text)),
  size: text.length,
});
const read = (value: unknown) => readManifest(Buffer.from(JSON.stringify(value)));
const nothing = {blobs: [], foreign: [], manifests: []};

test('an image names its config first, then its layers in their order', (t) => {
  const [config, one, two] = [descriptor('config'), descriptor('one'), descriptor('two')];
  t.deepEqual(read({schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: [one, two, one]}), {
    mediaType: OCI_MANIFEST,
    blobs: [config, one, two, one],
    foreign: [],
    manifests: [],
  });
});

for (const mediaType of [OCI_INDEX, DOCKER_LIST]) {
  test(`an index names manifests (${mediaType})`, (t) => {
    const manifests = [descriptor('amd64', OCI_MANIFEST), descriptor('arm64', OCI_MANIFEST)];
    t.deepEqual(read({schemaVersion: 2, mediaType, manifests}), {
      mediaType,
      blobs: [],
      foreign: [],
      manifests,
    });
  });
}

test('an artifact manifest names its blobs and its subject', (t) => {
  const [subject, blob] = [descriptor('subject', OCI_MANIFEST), descriptor('blob')];
  t.deepEqual(read({blobs: [blob], subject}), {subject, blobs: [blob], foreign: [], manifests: []});
});

test('foreign layers are separate from those that a registry must have', (t) => {
  const layer = descriptor('layer');
  const foreign = [
    'vnd.oci.image.layer.nondistributable.v1.tar',
    'vnd.docker.image.rootfs.foreign.diff.tar.gzip',
  ].map((type) => descriptor(type, `application/${type}`));
  t.deepEqual(read({layers: [...foreign, layer]}), {blobs: [layer], foreign, manifests: []});
});

test('an index may have a subject too', (t) => {
  const subject = descriptor('subject');
  t.deepEqual(read({mediaType: OCI_INDEX, manifests: [], subject}).subject, subject);
});

test('the media type in the body is optional, and an empty one reads as missing', (t) => {
  t.deepEqual(read({schemaVersion: 2}), nothing);
  t.deepEqual(read({mediaType: ''}), nothing);
  t.deepEqual(read({mediaType: 7}), nothing);
});

test('entries that are not descriptors are skipped', (t) => {
  const layer = descriptor('layer');
  t.deepEqual(
    read({
      config: null,
      layers: [null, 1, {}, {digest: 'sha256:x', size: 1}, layer],
      manifests: {0: layer},
      subject: 'x',
    }),
    {blobs: [layer], foreign: [], manifests: []},
  );
});

for (const [what, bytes] of [
  ['nothing', ''],
  ['no JSON', '<html>'],
  ['a text', '"manifest"'],
  ['a number', '1'],
  ['null', 'null'],
  ['a list', '[{"layers":[]}]'],
  ['half of a manifest', '{"layers":['],
] as const) {
  test(`bytes that are ${what} are a manifest without facts`, (t) => {
    t.deepEqual(readManifest(Buffer.from(bytes)), nothing);
  });
}

test('bytes within a larger buffer are read', (t) => {
  const whole = Buffer.from(`xxx{"mediaType":"a/b"}yyy`);
  t.is(readManifest(whole.subarray(3, -3)).mediaType, 'a/b');
  t.is(readManifest(new Uint8Array(whole.buffer, whole.byteOffset + 3, whole.length - 6)).mediaType, 'a/b');
});

test('one reading does not change the result of the next', (t) => {
  const facts = readManifest(Buffer.from('not JSON'));
  facts.blobs.push(descriptor('mine'));
  t.deepEqual(readManifest(Buffer.from('not JSON')), nothing);
});

test('the reader never throws', (t) => {
  const json = fc
    .record(
      {
        mediaType: fc.jsonValue(),
        subject: fc.jsonValue(),
        config: fc.jsonValue(),
        layers: fc.jsonValue(),
        blobs: fc.jsonValue(),
        manifests: fc.jsonValue(),
      },
      {requiredKeys: []},
    )
    .map((value) => Buffer.from(JSON.stringify(value)));
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), json), (bytes) => {
      const facts = readManifest(bytes);
      return Array.isArray(facts.blobs) && Array.isArray(facts.manifests);
    }),
    {numRuns: 2_000},
  );
  t.pass();
});
