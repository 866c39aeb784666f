import {mkdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import test, {type ExecutionContext} from 'ava';
import {attach, indexReferrers, listReferrers} from '../../src/index.ts';
import {parseName, parseReference, type Tag} from '../../src/oci/name.ts';
import {lockFolder} from '../../src/storage/sqlite/folder-lock.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {MIGRATIONS} from '../../src/storage/sqlite/migrations.ts';
import {imageManifest, type ManifestContent, sha256} from '../support/content.ts';
import {createFolder} from '../support/folder.ts';

const repository = {registry: 'docker.io', name: parseName('team/app')};
const sbom = {
  mediaType: 'application/spdx+json',
  data: Buffer.from('{}\n'),
  artifactType: 'application/x.sbom',
};

/** A data folder as a server leaves it that has pulled one image by the tag 1. */
async function createStore(t: ExecutionContext, {digest, mediaType, bytes}: ManifestContent) {
  const folder = await createFolder(t);
  await mkdir(join(folder, 'blobs'), {recursive: true});
  const metadata = await openSqliteMetadata({path: join(folder, 'meta.db')});
  const copy = {repository, origin: 'upstream', at: 1} as const;
  await metadata.commit([
    {type: 'manifest.put', ...copy, digest, mediaType, bytes, edge: undefined, references: []},
    {type: 'tag.put', ...copy, name: parseReference('1') as Tag, digest},
  ]);
  await metadata.close();
  return {folder, registry: repository.registry, repository: repository.name};
}

test('an artifact that is attached in a store is local, complete, and found by its list and by a scan', async (t) => {
  const image = imageManifest();
  const store = await createStore(t, image);
  const digest = await attach(store, '1', sbom);
  const wanted = {manifests: {length: 1, 0: {digest, artifactType: 'application/x.sbom'}}};
  t.like(await listReferrers(store, '1'), wanted);
  t.like(await indexReferrers(store, image.digest), wanted);
  t.like(await indexReferrers({folder: store.folder}, image.digest), wanted);
  t.like(await indexReferrers({...store, repository: 'other/app'}, image.digest), {manifests: {length: 0}});

  const metadata = await openSqliteMetadata({path: join(store.folder, 'meta.db')});
  t.teardown(() => metadata.close());
  t.is((await metadata.manifest(repository, digest))?.origin, 'local');
  const layer = (await metadata.references(digest)).at(-1);
  t.is(layer?.digest, sha256(sbom.data) as never);
  t.like(layer && (await metadata.blobLink(repository, layer.digest)), {origin: 'local', size: 3});
  t.like(layer && (await metadata.blob(layer.digest)), {state: 'ready', size: 3});
});

test('the same artifact attached twice is stored once', async (t) => {
  const image = imageManifest();
  const store = await createStore(t, image);
  t.is(await attach(store, '1', sbom), await attach(store, image.digest, sbom));
  t.is((await listReferrers(store, '1')).manifests.length, 1);
});

test('a folder that is not a store is refused, and stays as it is', async (t) => {
  const folder = await createFolder(t);
  const {digest} = imageManifest();
  const refused = {name: 'ArtifactError', message: /is not a data folder of backref: it has no meta.db/};
  await t.throwsAsync(indexReferrers({folder}, digest), refused);
  await t.throwsAsync(
    listReferrers({folder, registry: 'docker.io', repository: 'team/app'}, digest),
    refused,
  );
  await t.throwsAsync(readFile(join(folder, 'meta.db')), {code: 'ENOENT'});
});

test('a registry or a repository of which the store has nothing is an error, not an empty list', async (t) => {
  const image = imageManifest();
  const store = await createStore(t, image);
  const registry = {name: 'ArtifactError', message: /has nothing of a registry "ghrc\.io"/};
  await t.throwsAsync(listReferrers({...store, registry: 'ghrc.io'}, image.digest), registry);
  await t.throwsAsync(indexReferrers({...store, registry: 'ghrc.io'}, image.digest), registry);
  await t.throwsAsync(listReferrers({...store, repository: 'team/typo'}, image.digest), {
    name: 'ArtifactError',
    message: /has no repository "team\/typo" of the registry docker\.io/,
  });
  t.deepEqual((await listReferrers(store, image.digest)).manifests, []);
});

test('a store of an older version is migrated only while no server uses it', async (t) => {
  const folder = await createFolder(t);
  const path = join(folder, 'meta.db');
  const older = MIGRATIONS.length - 1;
  {
    using database = new DatabaseSync(path);
    for (const migration of MIGRATIONS.slice(0, older)) database.exec(migration);
    database.exec(`pragma application_id = ${0x62726566}; pragma user_version = ${older}`);
  }
  const version = () => {
    using database = new DatabaseSync(path, {readOnly: true});
    return database.prepare('select user_version as version from pragma_user_version').get();
  };
  const {digest} = imageManifest();
  const server = lockFolder(folder);
  await t.throwsAsync(indexReferrers({folder}, digest), {
    name: 'ArtifactError',
    message: /was written by an older backref, and another process is using it/,
  });
  t.like(version(), {version: older});

  server.release();
  t.deepEqual((await indexReferrers({folder}, digest)).manifests, []);
  t.like(version(), {version: MIGRATIONS.length});
  // It lets go of the folder.
  lockFolder(folder).release();
});
