import {readdir, readFile, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test from 'ava';
import {attach, indexReferrers, listReferrers} from '../../src/index.ts';
import {encodedOf} from '../../src/oci/digest.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {contentOf, imageManifest, indexOf} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';
import {createLayout} from '../support/layout.ts';

const sbom = {
  mediaType: 'application/spdx+json',
  data: Buffer.from('{}\n'),
  artifactType: 'application/x.sbom',
};
const readIndex = async (folder: string) => JSON.parse(await readFile(join(folder, 'index.json'), 'utf8'));

test('attaching adds the blobs and one entry of index.json, and leaves the rest as it is', async (t) => {
  const image = imageManifest();
  const folder = await createLayout(t, {'1': image});
  const before = await readIndex(folder);
  const digest = await attach(`oci:${folder}`, '1', sbom);

  const after = await readIndex(folder);
  t.deepEqual(after, {
    ...before,
    manifests: [
      ...before.manifests,
      {mediaType: OCI_MANIFEST, digest, size: after.manifests[1].size, artifactType: 'application/x.sbom'},
    ],
  });
  const manifest = await readFile(join(folder, 'blobs/sha256', encodedOf(digest)));
  t.is(manifest.length, after.manifests[1].size);
  const [layer] = JSON.parse(String(manifest)).layers;
  t.deepEqual(await readFile(join(folder, 'blobs/sha256', layer.digest.slice(7))), sbom.data);
  t.deepEqual((await readdir(folder)).sort(), ['blobs', 'index.json', 'oci-layout']);
  t.is((await readdir(join(folder, 'blobs/sha256'))).length, 4);
});

test('the same artifact is in index.json once', async (t) => {
  const folder = await createLayout(t, {'1': imageManifest()});
  t.is(await attach(`oci:${folder}`, '1', sbom), await attach(`oci:${folder}`, '1', sbom));
  t.is((await readIndex(folder)).manifests.length, 2);
});

test('simultaneous attaches do not lose each other', async (t) => {
  const image = imageManifest();
  const folder = await createLayout(t, {'1': image});
  const types = Array.from({length: 8}, (_, index) => `application/x${index}`);
  const attached = await Promise.all(
    types.map((artifactType) => attach(`oci:${folder}`, '1', {...sbom, artifactType})),
  );
  const {manifests} = await indexReferrers(`oci:${folder}`, image.digest);
  t.deepEqual(manifests.map(({digest}) => digest).sort(), attached.sort());
});

test('referrers are found by scanning what index.json leads to, nested indexes included', async (t) => {
  const platform = imageManifest();
  const index = indexOf([platform]);
  const signature = {
    ...contentOf(
      Buffer.from(
        JSON.stringify({
          schemaVersion: 2,
          mediaType: OCI_INDEX,
          artifactType: 'application/x.signature',
          manifests: [],
          subject: {mediaType: OCI_MANIFEST, digest: platform.digest, size: platform.bytes.length},
        }),
      ),
    ),
    mediaType: OCI_INDEX,
  };
  const folder = await createLayout(t, {'1': index, all: indexOf([signature])}, [platform, signature]);
  const own = await attach(`oci:${folder}`, '1', sbom);
  const child = await attach(`oci:${folder}`, platform.digest, sbom);
  t.like(await indexReferrers(`oci:${folder}`, index.digest), {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: {length: 1, 0: {digest: own, artifactType: 'application/x.sbom'}},
  });
  const {manifests} = await indexReferrers(`oci:${folder}`, platform.digest);
  t.deepEqual(
    manifests.map(({digest}) => digest),
    [child, signature.digest],
  );
  t.deepEqual(
    await listReferrers(`oci:${folder}`, platform.digest),
    await indexReferrers(`oci:${folder}`, platform.digest),
  );
});

test('a platform that was not copied is passed over', async (t) => {
  const [here, absent] = [imageManifest(), imageManifest()];
  const folder = await createLayout(t, {'1': indexOf([absent, here])}, [here]);
  const digest = await attach(`oci:${folder}`, here.digest, sbom);
  t.like(await listReferrers(`oci:${folder}`, here.digest), {manifests: [{digest}]});
});

test('a damaged manifest is an error, not an absence', async (t) => {
  const image = imageManifest();
  const folder = await createLayout(t, {'1': image});
  await writeFile(join(folder, 'blobs/sha256', encodedOf(image.digest)), 'x');
  await t.throwsAsync(indexReferrers(`oci:${folder}`, image.digest), {
    name: 'ArtifactError',
    message: /is damaged/,
  });
});

test('a folder that is not a layout is an error, unlike an empty layout', async (t) => {
  const folder = await createFolder(t);
  const {digest} = imageManifest();
  const index = () => indexReferrers(`oci:${folder}`, digest);
  await t.throwsAsync(index(), {name: 'ArtifactError', message: /no readable file "oci-layout"/});
  await writeFile(join(folder, 'oci-layout'), '{"imageLayoutVersion":"2.0.0"}');
  await t.throwsAsync(index(), {name: 'ArtifactError', message: /version "2.0.0"/});
  await writeFile(join(folder, 'oci-layout'), '{"imageLayoutVersion": "1.0.0"}');
  await t.throwsAsync(index(), {
    name: 'ArtifactError',
    message: /index.json is missing or is not an image index/,
  });
  await writeFile(join(folder, 'index.json'), '{"schemaVersion":2,"manifests":[]}');
  t.deepEqual((await index()).manifests, []);
});

test('a failed write leaves nothing behind', async (t) => {
  const folder = await createLayout(t, {'1': imageManifest()});
  const artifact = {
    artifactType: 'application/x',
    config: {mediaType: 'application/y', digest: imageManifest().digest, size: 5},
    layers: [],
  };
  const mislabelled = {
    digest: artifact.config.digest,
    size: 5,
    async *open() {
      yield Buffer.from('other');
    },
  };
  const before = await readdir(join(folder, 'blobs/sha256'));
  const attaching = attach(`oci:${folder}`, '1', artifact, {blobs: [mislabelled]});
  await t.throwsAsync(attaching, {name: 'ArtifactError', message: /have the digest .* instead of/});
  t.deepEqual(await readdir(join(folder, 'blobs/sha256')), before);
  t.is((await readIndex(folder)).manifests.length, 1);
});

test('a tag that is not there, and a digest that nothing leads to, are errors', async (t) => {
  const unlisted = imageManifest();
  const folder = await createLayout(t, {'1': imageManifest()}, [unlisted]);
  for (const reference of ['2', unlisted.digest]) {
    await t.throwsAsync(attach(`oci:${folder}`, reference, sbom), {
      name: 'ArtifactError',
      message: /has no manifest/,
    });
  }
});

test('an unreadable entry of index.json makes the list an error, not a shorter list', async (t) => {
  const image = imageManifest();
  const folder = await createLayout(t, {'1': image});
  const {manifests, ...index} = await readIndex(folder);
  for (const odd of [{digest: `blake3:${'a'.repeat(64)}`, size: 1}, {digest: image.digest}, 'text']) {
    await writeFile(join(folder, 'index.json'), JSON.stringify({...index, manifests: [...manifests, odd]}));
    const refused = {name: 'ArtifactError', message: /manifests\[1\] in index\.json/};
    await t.throwsAsync(listReferrers(`oci:${folder}`, '1'), refused);
    await t.throwsAsync(indexReferrers(`oci:${folder}`, image.digest), refused);
  }
});
