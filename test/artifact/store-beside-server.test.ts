import {readdir} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {attach, listReferrers} from '../../src/index.ts';
import type {Digest} from '../../src/oci/digest.ts';
import {startBackref} from '../support/backref.ts';
import {manifestAnswer, plainManifest} from '../support/content.ts';
import {legacy} from '../support/referrers.ts';
import {createScriptedUpstream} from '../support/scripted-upstream.ts';

const image = plainManifest();
const sbom = {mediaType: 'application/spdx+json', data: Buffer.from('{"spdxVersion":"SPDX-2.3"}')};

/** A mirror that takes no pushes, in front of a registry without referrers, with one image pulled. */
async function createMirror(t: ExecutionContext) {
  const upstream = await createScriptedUpstream(
    t,
    [
      {request: 'GET /v2/app/manifests/1', answer: manifestAnswer(image)},
      ...legacy('app', image, [], []).map((asked) => ({...asked, optional: true as const})),
      {request: /^GET \/v2\/app\/manifests\/sha256:/, answer: {status: 404}, optional: true},
    ],
    {anyOrder: true},
  );
  const proxy = await startBackref(t, {registries: [{url: upstream.url, library: false}]});
  t.is((await proxy.ask('/v2/app/manifests/1')).status, 200);
  return {proxy, store: {folder: proxy.folder, registry: 'docker.io', repository: 'app'}};
}

const spools = (folder: string): Promise<string[]> => readdir(join(folder, 'spool'));

test('a running server sees at once what is attached in its store, whatever clients may push', async (t) => {
  const {proxy, store} = await createMirror(t);
  const list = `/v2/app/referrers/${image.digest}`;
  t.like((await proxy.ask(list)).json(), {manifests: {length: 0}});
  const digest = await attach(store, '1', sbom);
  t.like((await proxy.ask(list)).json(), {manifests: {length: 1, 0: {digest}}});
  const manifest = (await proxy.ask(`/v2/app/manifests/${digest}`)).json() as {layers: [{digest: Digest}]};
  const layer = await proxy.ask(`/v2/app/blobs/${manifest.layers[0].digest}`);
  t.deepEqual(layer.body, sbom.data);
  t.like(await listReferrers(store, '1'), {manifests: {length: 1, 0: {digest}}});
  t.deepEqual(await spools(store.folder), []);
});

test('an artifact that a running server did not have is there once it is attached', async (t) => {
  const known = await createMirror(t);
  const digest = await attach(known.store, '1', sbom);
  const {proxy, store} = await createMirror(t);
  t.is((await proxy.ask(`/v2/app/manifests/${digest}`)).status, 404);
  t.is(await attach(store, '1', sbom), digest);
  t.is((await proxy.ask(`/v2/app/manifests/${digest}`)).status, 200);
});

test('many artifacts are attached to one subject at once: beside a server, while it closes, and without one', async (t) => {
  const {proxy, store} = await createMirror(t);
  const attached = (from: number) =>
    Array.from({length: 5}, (_, index) =>
      attach(store, '1', {...sbom, annotations: {index: String(from + index)}}),
    );
  const beside = await Promise.all(attached(0));
  const closing = proxy.server.close();
  const meanwhile = await Promise.all(attached(5));
  await closing;
  const without = await Promise.all(attached(10));
  const {manifests} = await listReferrers(store, '1');
  t.deepEqual(manifests.map(({digest}) => digest).sort(), [...beside, ...meanwhile, ...without].sort());
  t.deepEqual(await spools(store.folder), []);
});

test('a blob whose bytes do not have its digest is refused, and nothing of it is kept', async (t) => {
  const {proxy, store} = await createMirror(t);
  const wrong = {
    digest: `sha256:${'0'.repeat(64)}` as Digest,
    size: 3,
    async *open() {
      yield Buffer.from('abc');
    },
  };
  await t.throwsAsync(attach(store, '1', sbom, {blobs: [wrong]}), {
    name: 'ArtifactError',
    message: /have the digest sha256:ba78\w+ instead of sha256:0+/,
  });
  t.like((await proxy.ask(`/v2/app/referrers/${image.digest}`)).json(), {manifests: {length: 0}});
  t.deepEqual(await spools(store.folder), []);
});
