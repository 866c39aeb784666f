import test from 'ava';
import {type Artifact, attach, blobOf, listReferrers} from '../../src/index.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {fallbackTag} from '../../src/oci/referrers.ts';
import {
  contentOf,
  imageManifest,
  indexOf,
  manifestAnswer,
  plainManifest,
  sha256,
} from '../support/content.ts';
import {startLegacy} from '../support/legacy.ts';
import {createScriptedUpstream, type ScriptedAnswer} from '../support/scripted-upstream.ts';

const plainHttp = {plainHttp: true};
const sbom = {
  mediaType: 'application/spdx+json',
  data: Buffer.from('{"spdxVersion":"SPDX-2.3"}'),
  artifactType: 'application/x.sbom',
  annotations: {'org.example': 'yes'},
};

test('data becomes a layer of a manifest whose subject is what the tag points to now', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const digest = await attach(legacy.target, '1', sbom, plainHttp);

  const manifest = await legacy.get(digest);
  t.is(manifest?.mediaType, OCI_MANIFEST);
  t.deepEqual(JSON.parse(String(manifest?.bytes)), {
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: 'application/x.sbom',
    config: {mediaType: 'application/vnd.oci.empty.v1+json', digest: sha256(Buffer.from('{}')), size: 2},
    layers: [{mediaType: 'application/spdx+json', digest: sha256(sbom.data), size: sbom.data.length}],
    subject: {mediaType: OCI_MANIFEST, digest: image.digest, size: image.bytes.length},
    annotations: {'org.example': 'yes'},
  });
  for (const bytes of [sbom.data, Buffer.from('{}')]) {
    const blob = await fetch(`${legacy.url}/v2/team/app/blobs/${sha256(bytes)}`);
    t.deepEqual(Buffer.from(await blob.arrayBuffer()), bytes);
  }
});

test('a tag that has moved is resolved again', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  await attach(legacy.target, '1', sbom, plainHttp);
  const next = imageManifest();
  await legacy.put('1', next);
  const digest = await attach(legacy.target, '1', sbom, plainHttp);
  t.is(JSON.parse(String((await legacy.get(digest))?.bytes)).subject.digest, next.digest);
});

test('an image manifest keeps its config, layers and further properties, and gets the subject', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const [config, layer] = [blobOf(Buffer.from('{"a":1}')), blobOf(Buffer.from('layer'))];
  const artifact = {
    config: {mediaType: 'application/x.config', digest: config.digest, size: config.size},
    layers: [{mediaType: 'application/x.layer', digest: layer.digest, size: layer.size}],
    'x-further': true,
  };
  const digest = await attach(legacy.target, image.digest, artifact, {...plainHttp, blobs: [config, layer]});
  t.deepEqual(JSON.parse(String((await legacy.get(digest))?.bytes)), {
    'x-further': true,
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: artifact.config,
    layers: artifact.layers,
    subject: {mediaType: OCI_MANIFEST, digest: image.digest, size: image.bytes.length},
  });
  const {manifests} = await listReferrers(legacy.target, '1', plainHttp);
  t.like(manifests, [{digest, artifactType: 'application/x.config'}]);
});

test('where the registry has no Referrers API, the fallback tag names each artifact once', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const first = await attach(legacy.target, '1', sbom, plainHttp);
  const second = await attach(legacy.target, '1', {...sbom, artifactType: 'application/y'}, plainHttp);
  t.is(await attach(legacy.target, '1', sbom, plainHttp), first);
  t.deepEqual(await legacy.fallback(image.digest), [first, second]);

  const index = await legacy.get(fallbackTag(image.digest));
  t.is(index?.mediaType, OCI_INDEX);
  t.like(JSON.parse(String(index?.bytes)), {
    schemaVersion: 2,
    mediaType: OCI_INDEX,
    manifests: [
      {
        mediaType: OCI_MANIFEST,
        digest: first,
        artifactType: 'application/x.sbom',
        annotations: sbom.annotations,
      },
    ],
  });
});

test("others' entries and properties under the fallback tag stay as they are written", async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const other = {mediaType: 'x/y', digest: `blake3:${'0'.repeat(64)}`, size: 1, 'x-own': [1, 2]};
  const body = {schemaVersion: 2, annotations: {a: 'b'}, manifests: [other, other]};
  await legacy.put(fallbackTag(image.digest), {
    mediaType: OCI_INDEX,
    bytes: Buffer.from(JSON.stringify(body)),
  });
  const digest = await attach(legacy.target, '1', sbom, plainHttp);
  const index = JSON.parse(String((await legacy.get(fallbackTag(image.digest)))?.bytes));
  t.deepEqual(index.annotations, {a: 'b'});
  t.deepEqual(index.manifests[0], other);
  t.is(index.manifests.length, 2);
  t.is(index.manifests[1].digest, digest);
});

test('a fallback tag that is not an index is never overwritten', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  for (const manifest of [imageManifest(), image]) {
    await legacy.put(fallbackTag(image.digest), manifest);
    const error = await t.throwsAsync(attach(legacy.target, '1', sbom, plainHttp), {name: 'ArtifactError'});
    t.regex(String(error?.message), /points to .* and not to an index\. It is left as it is/);
    t.deepEqual((await legacy.get(fallbackTag(image.digest)))?.bytes, manifest.bytes);
  }
});

test('a registry that lists the artifact by itself gets no fallback tag', async (t) => {
  const image = imageManifest();
  const registry = await startLegacy(t, image, {referrers: true});
  const digest = await attach(registry.target, '1', sbom, plainHttp);
  t.is(await registry.fallback(image.digest), undefined);
  t.like(await listReferrers(registry.target, '1', plainHttp), {manifests: [{digest}]});
});

const UNPROVEN: Record<string, ScriptedAnswer> = {
  'names it not': {headers: {'content-type': OCI_INDEX}, body: '{"manifests":[]}'},
  'cannot be had': {status: 429},
};

for (const [what, answer] of Object.entries(UNPROVEN)) {
  test(`OCI-Subject proves nothing: where the list ${what}, the fallback tag is updated`, async (t) => {
    const image = imageManifest();
    const tag = `/v2/team/app/manifests/${fallbackTag(image.digest)}`;
    let written: Buffer | undefined;
    const upstream = await createScriptedUpstream(t, [
      {request: 'GET /v2/team/app/manifests/1', answer: manifestAnswer(image)},
      {request: /^HEAD \/v2\/team\/app\/blobs\//, answer: {headers: {'content-length': '2'}}, times: 2},
      {
        request: /^PUT \/v2\/team\/app\/manifests\/sha256:/,
        answer: {status: 201, headers: {'oci-subject': image.digest}},
      },
      {request: `GET /v2/team/app/referrers/${image.digest}`, answer},
      {request: `GET ${tag}`, answer: {status: 404}},
      {
        request: `PUT ${tag}`,
        answer({body}) {
          written = body;
          return {status: 201};
        },
      },
      {request: `GET ${tag}`, answer: () => ({headers: {'content-type': OCI_INDEX}, body: written ?? ''})},
    ]);
    const digest = await attach(`docker://${upstream.host}/team/app`, '1', sbom, plainHttp);
    t.is(JSON.parse(String(written)).manifests[0].digest, digest);
  });
}

test('a blob that the registry has is not sent again', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  await attach(legacy.target, '1', sbom, plainHttp);
  legacy.requests.length = 0;
  await attach(legacy.target, '1', {...sbom, artifactType: 'application/y'}, plainHttp);
  t.deepEqual(
    legacy.requests.filter((line) => line.includes('/uploads/')),
    [],
  );
});

test('the size of a blob does not matter: an empty one and one of many chunks arrive whole', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  for (const size of [0, 3_000_000]) {
    const data = Buffer.alloc(size, 7);
    await attach(legacy.target, '1', {mediaType: 'application/x', data}, plainHttp);
    const blob = await fetch(`${legacy.url}/v2/team/app/blobs/${sha256(data)}`);
    t.is((await blob.arrayBuffer()).byteLength, size);
  }
});

test('data without an artifact type gets its media type as one', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  await attach(legacy.target, '1', {mediaType: 'application/x', data: Buffer.from('x')}, plainHttp);
  t.like(await listReferrers(legacy.target, '1', plainHttp), {manifests: [{artifactType: 'application/x'}]});
});

test('an index and its platform manifests have referrers of their own', async (t) => {
  const platform = imageManifest();
  const index = indexOf([platform]);
  const legacy = await startLegacy(t, index);
  await legacy.put(platform.digest, platform);
  const own = await attach(legacy.target, '1', sbom, plainHttp);
  const child = await attach(legacy.target, platform.digest, sbom, plainHttp);
  t.like(await listReferrers(legacy.target, index.digest, plainHttp), {
    manifests: {length: 1, 0: {digest: own}},
  });
  t.like(await listReferrers(legacy.target, platform.digest, plainHttp), {
    manifests: {length: 1, 0: {digest: child}},
  });
});

const EMPTY = {mediaType: 'application/vnd.oci.empty.v1+json', digest: sha256(Buffer.from('{}')), size: 2};
const REFUSED: Record<string, {artifact: object; message: RegExp}> = {
  'an empty config and no artifact type': {
    artifact: {config: EMPTY, layers: []},
    message: /needs an "artifactType"/,
  },
  'an empty artifact type': {
    artifact: {config: EMPTY, layers: [], artifactType: ''},
    message: /"artifactType"/,
  },
  'no config': {artifact: {layers: [], artifactType: 'a/b'}, message: /"config"/},
  'layers that are no descriptors': {
    artifact: {config: EMPTY, layers: [{}], artifactType: 'a/b'},
    message: /"layers"/,
  },
  'another media type': {
    artifact: {mediaType: OCI_INDEX, config: EMPTY, layers: [], artifactType: 'a/b'},
    message: /image manifest/,
  },
};

for (const [what, {artifact, message}] of Object.entries(REFUSED)) {
  test(`a manifest with ${what} is refused before anything is pushed`, async (t) => {
    const legacy = await startLegacy(t, imageManifest());
    await t.throwsAsync(attach(legacy.target, '1', artifact as never, plainHttp), {
      name: 'ArtifactError',
      message,
    });
    t.deepEqual(legacy.requests, ['GET /v2/team/app/manifests/1']);
  });
}

test('a missing subject is an error that names it', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  const error = await t.throwsAsync(attach(legacy.target, 'none', sbom, plainHttp), {name: 'ArtifactError'});
  t.is(error?.message, `${legacy.host}/team/app has no manifest none to attach to.`);
  await t.throwsAsync(attach(legacy.target, 'a b', sbom, plainHttp), {name: 'OciError'});
});

test('an invalid target is refused', async (t) => {
  for (const target of [
    'team/app',
    'docker://',
    'docker://host',
    'docker:///app',
    'docker://a b/c',
    'http://x/y',
  ]) {
    await t.throwsAsync(attach(target, '1', sbom), {name: 'ArtifactError'}, target);
  }
  await t.throwsAsync(attach('docker://host/UPPER', '1', sbom), {name: 'OciError'});
});

test('listing filters by artifact type, several types being alternatives', async (t) => {
  const legacy = await startLegacy(t, imageManifest());
  for (const artifactType of ['application/a', 'application/b', 'application/c']) {
    await attach(legacy.target, '1', {...sbom, artifactType}, plainHttp);
  }
  const typesOf = async (artifactType: string | string[]) =>
    (await listReferrers(legacy.target, '1', {...plainHttp, artifactType})).manifests.map(
      (one) => one.artifactType,
    );
  t.deepEqual(await typesOf('application/b'), ['application/b']);
  t.deepEqual(await typesOf(['application/c', 'application/a']), ['application/a', 'application/c']);
  t.deepEqual(await typesOf(''), []);
});

test('an entry of the fallback tag counts only if its manifest is there and refers to the subject', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const digest = await attach(legacy.target, '1', sbom, plainHttp);
  const [gone, foreign] = [contentOf(Buffer.from('gone')), plainManifest()];
  await legacy.put(foreign.digest, foreign);
  const entries = [gone, foreign].map((one) => ({mediaType: OCI_MANIFEST, digest: one.digest, size: 1}));
  const wrong = {mediaType: OCI_MANIFEST, digest, size: 1, artifactType: 'application/wrong'};
  const body = {schemaVersion: 2, mediaType: OCI_INDEX, manifests: [wrong, ...entries, wrong]};
  await legacy.put(fallbackTag(image.digest), {
    mediaType: OCI_INDEX,
    bytes: Buffer.from(JSON.stringify(body)),
  });
  const {manifests} = await listReferrers(legacy.target, '1', plainHttp);
  t.is(manifests.length, 1);
  t.like(manifests[0], {digest, artifactType: 'application/x.sbom', annotations: {'org.example': 'yes'}});
});

test("GitLab's fallback tag, which points to the subject itself, lists nothing; any other manifest there is an error", async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  await legacy.put(fallbackTag(image.digest), image);
  t.deepEqual((await listReferrers(legacy.target, '1', plainHttp)).manifests, []);
  await legacy.put(fallbackTag(image.digest), imageManifest());
  await t.throwsAsync(listReferrers(legacy.target, '1', plainHttp), {
    name: 'ArtifactError',
    message: /not a readable index/,
  });
});

test('a fallback tag whose bytes cannot be parsed as an index is an error, not an empty list', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  for (const text of ['', '{"schemaVersion":2,"manifests":[{"dig', '<html>', '{}']) {
    await legacy.put(fallbackTag(image.digest), {bytes: Buffer.from(text), mediaType: OCI_INDEX});
    await t.throwsAsync(listReferrers(legacy.target, '1', plainHttp), {
      message: /not a readable index|not a manifest/,
    });
  }
});

test('an entry of a fallback tag without a valid digest is an error, not a shorter list', async (t) => {
  const image = imageManifest();
  const legacy = await startLegacy(t, image);
  const bytes = Buffer.from(JSON.stringify({manifests: [{digest: `blake3:${'a'.repeat(64)}`}]}));
  await legacy.put(fallbackTag(image.digest), {bytes, mediaType: OCI_INDEX});
  await t.throwsAsync(listReferrers(legacy.target, '1', plainHttp), {
    name: 'ArtifactError',
    message: /blake3/,
  });
});

test('a fallback tag that points to a sha512 subject itself lists nothing, and is not overwritten', async (t) => {
  const subject = imageManifest([], 'sha512');
  const legacy = await startLegacy(t, imageManifest());
  await legacy.put(fallbackTag(subject.digest), subject);
  t.deepEqual((await listReferrers(legacy.target, subject.digest, plainHttp)).manifests, []);
});

test('when a registry lists a referrer twice, the first descriptor counts', async (t) => {
  const {digest} = imageManifest();
  const entry = {mediaType: OCI_MANIFEST, digest: imageManifest().digest, size: 3};
  const manifests = [
    {...entry, artifactType: 'application/first'},
    {...entry, artifactType: 'application/second'},
  ];
  const body = JSON.stringify({schemaVersion: 2, mediaType: OCI_INDEX, manifests});
  const upstream = await createScriptedUpstream(t, [
    {
      request: `GET /v2/team/app/referrers/${digest}`,
      answer: {headers: {'Content-Type': OCI_INDEX}, body},
    },
  ]);
  const listed = await listReferrers(`docker://${upstream.host}/team/app`, digest, plainHttp);
  t.deepEqual(listed.manifests, [manifests[0]] as never);
});

const layer = {mediaType: 'application/x', digest: blobOf(Buffer.from('x')).digest, size: 1};
const UNTYPED: Record<string, Artifact> = {
  'data whose media type is a word': {...sbom, mediaType: 'sbom'},
  'data whose media type has parameters': {...sbom, mediaType: 'text/plain; charset=utf-8'},
  'data whose media type is empty': {...sbom, mediaType: ''},
  'data whose artifact type has a space': {...sbom, artifactType: 'application/my sbom'},
  'data whose artifact type has a line break': {...sbom, artifactType: 'application/x\ny'},
  'a manifest whose artifact type is a word': {artifactType: 'sbom', config: layer, layers: []},
  'a manifest whose config has no media type': {config: {...layer, mediaType: 'x'}, layers: []},
  'a manifest of which a layer has none': {config: layer, layers: [layer, {...layer, mediaType: 'a/b/c'}]},
};

for (const [what, artifact] of Object.entries(UNTYPED)) {
  test(`${what} is refused, and nothing is written`, async (t) => {
    const legacy = await startLegacy(t, imageManifest());
    await t.throwsAsync(attach(legacy.target, '1', artifact, plainHttp), {
      name: 'ArtifactError',
      message: /is not a media type: write type\/subtype/,
    });
    t.deepEqual(
      legacy.requests.filter((line) => !/^(GET|HEAD) /.test(line)),
      [],
    );
  });
}
