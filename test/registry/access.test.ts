import {join} from 'node:path';
import test from 'ava';
import {digestOf} from '../../src/oci/digest.ts';
import {OCI_MANIFEST} from '../../src/oci/media-type.ts';
import {parseName} from '../../src/oci/name.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {startBackref} from '../support/backref.ts';
import {
  blobAnswer,
  contentOf,
  headAnswer,
  imageManifest,
  manifestAnswer,
  randomBlob,
} from '../support/content.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const subject = digestOf(Buffer.from('subject'));
const sbom = {
  ...contentOf(
    Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: OCI_MANIFEST,
        artifactType: 'application/vnd.example.sbom',
        subject: {mediaType: OCI_MANIFEST, digest: subject, size: 7},
      }),
    ),
  ),
  mediaType: OCI_MANIFEST,
};

test('a manifest is a referrer in each repository that is linked to it: pulled in one, confirmed in another', async (t) => {
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/${sbom.digest}`, answer: manifestAnswer(sbom)},
    {request: `HEAD /v2/library/other/manifests/${sbom.digest}`, answer: headAnswer(sbom)},
    {request: `HEAD /v2/library/secret/manifests/${sbom.digest}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  for (const name of ['app', 'other', 'secret']) await proxy.ask(`/v2/${name}/manifests/${sbom.digest}`);
  await proxy.server.close();

  const metadata = await openSqliteMetadata({path: join(proxy.folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const referrers = (name: string) =>
    metadata.referrers({registry: 'docker.io', name: parseName(name)}, subject, {limit: 10});
  t.like(await referrers('library/app'), [
    {digest: sbom.digest, artifactType: 'application/vnd.example.sbom', source: 'content'},
  ]);
  t.deepEqual(await referrers('library/other'), await referrers('library/app'));
  t.deepEqual(await referrers('library/secret'), []);
});

test('a manifest that is collected while the upstream is asked about it is fetched', async (t) => {
  const asked = Promise.withResolvers<void>();
  const collected = Promise.withResolvers<void>();
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/${sbom.digest}`, answer: manifestAnswer(sbom)},
    {
      request: `HEAD /v2/library/other/manifests/${sbom.digest}`,
      answer: () => {
        asked.resolve();
        return {...headAnswer(sbom), before: collected.promise};
      },
    },
    {request: `GET /v2/library/other/manifests/${sbom.digest}`, answer: manifestAnswer(sbom)},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
  const metadata = await openSqliteMetadata({path: join(proxy.folder, 'meta.db')});
  t.teardown(() => metadata.close());
  const other = proxy.ask(`/v2/other/manifests/${sbom.digest}`);
  await asked.promise;
  const repository = {registry: 'docker.io', name: parseName('library/app')};
  const {digest} = sbom;
  await metadata.commit([
    {type: 'manifest.delete', repository, digest},
    {type: 'manifest.collect', digest},
  ]);
  collected.resolve();
  t.deepEqual((await other).body, sbom.bytes);
});

const page = {headers: {'Content-Type': 'text/html', 'Content-Length': '20'}, body: []};

test('an HTML page does not confirm a manifest or a blob that another repository brought', async (t) => {
  const blob = randomBlob(2000);
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/manifests/${sbom.digest}`, answer: manifestAnswer(sbom)},
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
    {request: /^HEAD \/v2\/library\/other\//, answer: page, times: 8},
    {request: `HEAD /v2/library/other/manifests/${sbom.digest}`, answer: {status: 404}},
    {request: `HEAD /v2/library/other/blobs/${blob.digest}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  const kinds = [`manifests/${sbom.digest}`, `blobs/${blob.digest}`];
  for (const kind of kinds) t.is((await proxy.ask(`/v2/app/${kind}`)).status, 200);
  await proxy.idle();
  for (const kind of kinds) t.is((await proxy.ask(`/v2/other/${kind}`)).status, 503, kind);
  // Nothing of it is remembered.
  for (const kind of kinds) t.is((await proxy.ask(`/v2/other/${kind}`)).status, 404, kind);
});

test('a HEAD with another length does not confirm a blob that another repository brought', async (t) => {
  const blob = randomBlob(2000);
  const request = `HEAD /v2/library/other/blobs/${blob.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
    {request, answer: {headers: {'Content-Length': '1999'}, body: []}},
    {request, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/app/blobs/${blob.digest}`);
  await proxy.idle();
  const got = await proxy.ask(`/v2/other/blobs/${blob.digest}`);
  t.is(got.status, 503);
  t.regex(String(got.body), /a length of 1999 bytes; that content has 2000/);
  t.is((await proxy.ask(`/v2/other/blobs/${blob.digest}`)).status, 404);
});

test('a HEAD without a length does not confirm a blob that another repository brought', async (t) => {
  const blob = randomBlob(2000);
  const path = `/v2/library/other/blobs/${blob.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
    {request: `HEAD ${path}`, answer: {body: []}},
    {request: `GET ${path}`, answer: {body: ['back soon']}},
    {request: `HEAD ${path}`, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/app/blobs/${blob.digest}`);
  await proxy.idle();
  const got = await proxy.ask(`/v2/other/blobs/${blob.digest}`);
  t.is(got.status, 503);
  t.regex(String(got.body), /does not name the length/);
  t.is((await proxy.ask(`/v2/other/blobs/${blob.digest}`)).status, 404);
});

test('a HEAD with another length than the manifest names does not confirm the blob for later either', async (t) => {
  const blob = randomBlob(2000);
  const image = imageManifest([blob]);
  const request = `HEAD /v2/library/other/blobs/${blob.digest}`;
  const upstream = await createScriptedUpstream(t, [
    {request: `GET /v2/library/other/manifests/${image.digest}`, answer: manifestAnswer(image)},
    {request, answer: {headers: {'Content-Length': '20'}, body: []}},
    {request: `GET /v2/library/app/blobs/${blob.digest}`, answer: blobAnswer(blob)},
    {request, answer: {status: 404}},
  ]);
  const proxy = await startBackref(t, {registries: [upstream]});
  await proxy.ask(`/v2/other/manifests/${image.digest}`);
  await proxy.ask(`/v2/other/blobs/${blob.digest}`, {method: 'HEAD'});
  await proxy.ask(`/v2/app/blobs/${blob.digest}`);
  await proxy.idle();
  t.is((await proxy.ask(`/v2/other/blobs/${blob.digest}`)).status, 404);
});

for (const [what, headers] of [
  ['another length', {'Content-Type': sbom.mediaType, 'Content-Length': '1'}],
  ['another digest', {...headAnswer(sbom).headers, 'Docker-Content-Digest': subject}],
] as const) {
  test(`a HEAD with ${what} leaves the confirmation of a manifest to its GET`, async (t) => {
    const path = `/v2/library/other/manifests/${sbom.digest}`;
    const upstream = await createScriptedUpstream(
      t,
      [
        {request: `GET /v2/library/app/manifests/${sbom.digest}`, answer: manifestAnswer(sbom)},
        {request: `HEAD ${path}`, answer: {headers, body: []}},
        {request: `GET ${path}`, answer: {status: 404}},
      ],
      {anyOrder: true},
    );
    const proxy = await startBackref(t, {registries: [upstream]});
    await proxy.ask(`/v2/app/manifests/${sbom.digest}`);
    t.is((await proxy.ask(`/v2/other/manifests/${sbom.digest}`)).status, 404);
  });
}
