import {readdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import type {Commands} from '../../../src/admin/commands.ts';
import type {Digest} from '../../../src/oci/digest.ts';
import {type BackupProgress, createBackup} from '../../../src/registry/maintenance/backup.ts';
import {createRestore} from '../../../src/registry/maintenance/restore.ts';
import type {Registries} from '../../../src/registry/registries.ts';
import type {BackupFolder} from '../../../src/storage/backup-folder.ts';
import type {Metadata, PendingTagChange} from '../../../src/storage/metadata.ts';
import {type Backref, type BackrefOptions, createMovableClock, startBackref} from '../../support/backref.ts';
import {
  type Content,
  contentOf,
  imageManifest,
  indexOf,
  type ManifestContent,
  randomBlob,
} from '../../support/content.ts';
import {createFolder} from '../../support/folder.ts';
import {type Pusher, pusherTo} from '../../support/pusher.ts';
import {referrerOf} from '../../support/referrers.ts';
import {wireInProcess} from '../../support/wired.ts';

const EMPTY = contentOf(Buffer.from('{}'));
const HOSTED: BackrefOptions = {registries: [{}]};

const signal = new AbortController().signal;
const withoutReports = {signal, progress: () => {}};

const backup = async ({server}: Backref, folder: string) =>
  (await server.commands()).backup({folder, ...withoutReports});
const restore = async ({server}: Backref, folder: string) =>
  (await server.commands()).restore({folder, ...withoutReports});
const collect = async ({server}: Backref) => (await server.commands()).collect({grace: 0, ...withoutReports});

async function setUp(t: ExecutionContext, options = HOSTED) {
  const proxy = await startBackref(t, options);
  const folder = join(await createFolder(t), 'backup');
  return {proxy, app: pusherTo(proxy, 'team/app'), folder};
}

/** An image with a layer of its own, pushed under a tag. */
async function pushImage(
  app: Pusher,
  tag?: string,
  size = 1000,
): Promise<{image: ManifestContent; layer: Content}> {
  const layer = randomBlob(size);
  const image = imageManifest([layer]);
  await app.image(image, [EMPTY, layer], tag);
  return {image, layer};
}

/** Those of team/app; none where there is no such repository. */
async function tagsOf(proxy: Backref): Promise<string[]> {
  const {status, json} = await proxy.ask('/v2/team/app/tags/list');
  return status === 404 ? [] : (json() as {tags: string[]}).tags;
}

const pathIn = (folder: string, digest: Digest) => join(folder, 'blobs', ...digest.split(':'));

test('everything that was pushed is pulled from the restored store by tag and by digest, with equal lists of referrers', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const amd = await pushImage(app);
  const arm = await pushImage(app);
  const index = indexOf([amd.image, arm.image]);
  await app.image(index, [], 'v1');
  await app.image(index, [], 'latest');
  const referrers = [1, 2, 3].map(() => referrerOf(index));
  for (const referrer of referrers) await app.image(referrer, [EMPTY]);
  const nested = referrerOf(referrers[0] as ManifestContent);
  await app.image(nested, [EMPTY]);
  const sha512 = imageManifest([randomBlob(10, 'sha512')], 'sha512');
  t.is((await app.blob(randomBlob(5))).status, 201);
  const other = await pushImage(pusherTo(proxy, 'team/other'), 'v1');

  const result = await backup(proxy, folder);
  t.like(result, {manifests: 8, tags: 3, blobs: 4, missing: 0});

  const restored = await startBackref(t, HOSTED);
  t.like(await restore(restored, folder), {manifests: 8, tags: 3, blobs: 4, keptTags: 0});
  const paths = [
    ...['v1', 'latest', index.digest, amd.image.digest, arm.image.digest].map((it) => `app/manifests/${it}`),
    ...[amd.layer, arm.layer, EMPTY].map(({digest}) => `app/blobs/${digest}`),
    ...[index, referrers[0] as ManifestContent].map(({digest}) => `app/referrers/${digest}`),
    ...['v1', other.image.digest].map((it) => `other/manifests/${it}`),
    `other/blobs/${other.layer.digest}`,
    'app/tags/list',
    'other/tags/list',
  ];
  for (const path of paths) {
    const [before, after] = [await proxy.ask(`/v2/team/${path}`), await restored.ask(`/v2/team/${path}`)];
    t.is(before.status, 200, path);
    t.is(after.status, 200, path);
    t.deepEqual(after.body, before.body, path);
    t.is(after.headers['content-type'], before.headers['content-type'], path);
  }
  // The permission for a blob is restored for its own repository alone.
  t.is((await restored.ask(`/v2/team/app/blobs/${other.layer.digest}`)).status, 404);
  t.is((await restored.ask(`/v2/team/app/manifests/${sha512.digest}`)).status, 404);
  // What was restored is referenced: nothing of it is garbage.
  restored.clock.move(1);
  t.like(await collect(restored), {manifests: 0, blobs: 0, links: 0});
});

test('the backup is an OCI image layout, with a tag under registry/name:tag', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const {image} = await pushImage(app, 'v1');
  await backup(proxy, folder);
  t.deepEqual(JSON.parse(await readFile(join(folder, 'oci-layout'), 'utf8')), {imageLayoutVersion: '1.0.0'});
  const {schemaVersion, manifests} = JSON.parse(await readFile(join(folder, 'index.json'), 'utf8'));
  t.is(schemaVersion, 2);
  t.deepEqual(manifests, [
    {
      mediaType: image.mediaType,
      digest: image.digest,
      size: image.bytes.length,
      annotations: {
        'org.opencontainers.image.ref.name': 'docker.io/team/app:v1',
        'io.backref.tag': 'v1',
        'io.backref.registry': 'docker.io',
        'io.backref.repository': 'team/app',
      },
    },
  ]);
  t.deepEqual(await readFile(pathIn(folder, image.digest)), image.bytes);
  t.deepEqual((await readdir(folder)).sort(), ['backref-backup.json', 'blobs', 'index.json', 'oci-layout']);
});

test('a second run copies only what is new, and removes what is no longer part of the backup', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const gone = await pushImage(app, 'gone');
  const kept = await pushImage(app, 'kept');
  t.like(await backup(proxy, folder), {manifests: 2, blobs: 3, copied: 5});
  t.like(await backup(proxy, folder), {manifests: 2, blobs: 3, copied: 0, bytes: 0});

  t.is((await app.delete(`manifests/${gone.image.digest}`)).status, 202);
  const fresh = await pushImage(app, 'fresh');
  const bytes = fresh.image.bytes.length + fresh.layer.bytes.length;
  t.like(await backup(proxy, folder), {manifests: 2, tags: 2, blobs: 3, copied: 2, bytes});
  const expected = [kept, fresh].flatMap(({image, layer}) => [image, layer]).map(({digest}) => digest);
  const found = (await readdir(join(folder, 'blobs/sha256'))).map((name) => `sha256:${name}`);
  t.deepEqual(found.sort(), [...expected, EMPTY.digest].sort());
});

test('an image that is pushed, retagged or deleted during a backup does not tear it', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const images: Awaited<ReturnType<typeof pushImage>>[] = [];
  for (let index = 0; index < 20; index++) images.push(await pushImage(app, `v${index}`));
  const commands = await proxy.server.commands();
  let changes = Promise.resolve();
  let collecting: ReturnType<Commands['collect']> | undefined;
  const progress = ({copied}: BackupProgress) => {
    const image = images[copied % images.length];
    if (!image) return;
    proxy.clock.move(1);
    collecting ??= commands.collect({grace: 0, ...withoutReports});
    changes = changes.then(async () => {
      await app.delete(`manifests/${image.image.digest}`);
      await app.delete(`blobs/${image.layer.digest}`);
      await pushImage(app, `new-${copied}`);
    });
  };
  const result = await commands.backup({folder, signal, progress});
  await changes;
  t.like(result, {manifests: 20, tags: 20, blobs: 21});
  t.truthy(await collecting);

  const restored = await startBackref(t, HOSTED);
  await restore(restored, folder);
  for (const [index, {image, layer}] of images.entries()) {
    const byTag = await restored.ask(`/v2/team/app/manifests/v${index}`);
    t.deepEqual(byTag.body, image.bytes);
    t.deepEqual((await restored.ask(`/v2/team/app/blobs/${layer.digest}`)).body, layer.bytes);
  }
});

test('copies of what an upstream has are left out, except children of what was pushed', async (t) => {
  const source = await setUp(t);
  const copied = await pushImage(source.app, 'copied');
  const child = await pushImage(source.app, 'child');
  const {proxy, app, folder} = await setUp(t, {
    registries: [{url: source.proxy.url, push: 'local', overlay: {tags: 'allow'}}],
  });
  t.is((await app.get('manifests/copied')).status, 200);
  t.is((await app.get(`blobs/${copied.layer.digest}`)).status, 200);
  await proxy.idle();
  await app.image(indexOf([child.image]), [], 'mine');

  t.like(await backup(proxy, folder), {manifests: 2, tags: 1, missing: 2});
  // The blobs of the child were never pulled: the upstream has them.
  const names = await readdir(join(folder, 'blobs/sha256'));
  t.false(names.includes(copied.layer.digest.slice(7)));
  t.true(names.includes(child.image.digest.slice(7)));

  t.is((await app.get(`blobs/${child.layer.digest}`)).status, 200);
  await proxy.idle();
  t.like(await backup(proxy, folder), {copied: 1, missing: 1});
});

test('content that no repository holds is reported as missing, and the rest is restored', async (t) => {
  const options = {registries: [{validate: {blobs: false, children: false, sizes: false}}]};
  const {proxy, app, folder} = await setUp(t, options);
  const image = imageManifest([randomBlob(10)]);
  await app.blob(EMPTY);
  await app.image(image, [], 'v1');
  t.like(await backup(proxy, folder), {manifests: 1, blobs: 1, missing: 1});
  const restored = await startBackref(t, options);
  t.like(await restore(restored, folder), {manifests: 1, tags: 1, blobs: 1});
  t.deepEqual((await restored.ask('/v2/team/app/manifests/v1')).body, image.bytes);
});

test('what is in the store stays: its tags, and its other content', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const old = await pushImage(app, 'v1');
  await backup(proxy, folder);
  const restored = await startBackref(t, HOSTED);
  const there = pusherTo(restored, 'team/app');
  const newer = await pushImage(there, 'v1');
  const mine = await pushImage(there, 'mine');

  t.like(await restore(restored, folder), {manifests: 1, tags: 0, blobs: 1, keptTags: 1});
  t.deepEqual((await there.get('manifests/v1')).body, newer.image.bytes);
  t.deepEqual((await there.get('manifests/mine')).body, mine.image.bytes);
  t.deepEqual((await there.get(`manifests/${old.image.digest}`)).body, old.image.bytes);
  t.like(await restore(restored, folder), {manifests: 0, tags: 0, blobs: 0, keptTags: 1});
});

test('a stored blob that the disk damaged is replaced by a restore', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const {layer} = await pushImage(app, 'v1');
  await backup(proxy, folder);
  const encoded = layer.digest.slice(7);
  const stored = join(proxy.folder, 'blobs/sha256', encoded.slice(0, 2), encoded);
  await writeFile(stored, Buffer.alloc(layer.bytes.length));
  t.like(await restore(proxy, folder), {manifests: 0, blobs: 1});
  t.deepEqual(await readFile(stored), layer.bytes);
});

test('a damaged or lost blob in the store is named, and the earlier backup stays complete', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const first = await pushImage(app, 'v1');
  await backup(proxy, folder);
  const damaged = await pushImage(app, 'v2');
  const lost = await pushImage(app, 'v3');
  const storedAt = ({digest}: Content) =>
    join(proxy.folder, 'blobs/sha256', digest.slice(7, 9), digest.slice(7));
  await writeFile(storedAt(damaged.layer), Buffer.alloc(damaged.layer.bytes.length));
  await rm(storedAt(lost.layer));
  const error = await t.throwsAsync(backup(proxy, folder));
  for (const {image, layer} of [damaged, lost])
    t.true(error?.message.includes(`${layer.digest}, which docker.io/team/app@${image.digest} names`));

  const restored = await startBackref(t, HOSTED);
  t.like(await restore(restored, folder), {manifests: 1, tags: 1});
  t.deepEqual((await restored.ask('/v2/team/app/manifests/v1')).body, first.image.bytes);

  t.is((await app.blob(damaged.layer)).status, 201);
  t.is((await app.blob(lost.layer)).status, 201);
  t.like(await backup(proxy, folder), {manifests: 3, copied: 2});
});

test('a damaged backup is refused with its damaged files, and nothing of it can be pulled', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  const one = await pushImage(app, 'v1');
  const two = await pushImage(app, 'v2');
  await backup(proxy, folder);
  const restored = await startBackref(t, HOSTED);
  const refused = async (...damaged: Content[]) => {
    const error = await t.throwsAsync(restore(restored, folder));
    t.regex(error?.message ?? '', /^The backup is damaged/);
    for (const {digest} of damaged) t.true(error?.message.includes(pathIn(folder, digest)), digest);
    t.deepEqual(await tagsOf(restored), []);
  };
  const overwrite = ({bytes, digest}: Content) =>
    writeFile(pathIn(folder, digest), Buffer.alloc(bytes.length));

  await overwrite(one.layer);
  await overwrite(two.layer);
  await refused(one.layer, two.layer);
  restored.clock.move(1);
  t.like(await collect(restored), {blobs: 1}, 'the sound blob that was copied is collected');
  await rm(pathIn(folder, one.layer.digest));
  await overwrite(two.image);
  await refused(one.layer, two.image);

  for (const {digest} of [two.layer, two.image]) await rm(pathIn(folder, digest));
  t.like(await backup(proxy, folder), {copied: 3});
  t.like(await restore(restored, folder), {manifests: 2, tags: 2});
});

test('an interrupted backup is not taken for a complete one, and is continued', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  for (let index = 0; index < 5; index++) await pushImage(app, `v${index}`);
  const commands = await proxy.server.commands();
  const interrupted = new AbortController();
  const progress = ({done}: BackupProgress) => {
    if (done > 0.5) interrupted.abort(new Error('interrupted by the test'));
  };
  const running = commands.backup({folder, signal: interrupted.signal, progress});
  await t.throwsAsync(running, {message: 'interrupted by the test'});
  await t.throwsAsync(restore(proxy, folder), {message: /is not complete: there is no index\.json/});
  const result = await backup(proxy, folder);
  t.like(result, {manifests: 5, blobs: 6});
  t.true(result.copied < 6);
  t.true(result.copied > 0);
});

test('an interrupted restore brings no tag whose image is not whole, and is continued', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  for (let index = 0; index < 3; index++) await pushImage(app, `v${index}`);
  await backup(proxy, folder);
  const restored = await startBackref(t, HOSTED);
  const commands = await restored.server.commands();
  const interrupted = new AbortController();
  const progress = () => interrupted.abort(new Error('interrupted by the test'));
  const running = commands.restore({folder, signal: interrupted.signal, progress});
  await t.throwsAsync(running, {message: 'interrupted by the test'});
  t.deepEqual(await tagsOf(restored), []);
  t.like(await restore(restored, folder), {manifests: 3, tags: 3});
});

test('a folder that is not a backup of this store is refused and stays as it is', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  await pushImage(app, 'v1');
  const other = await startBackref(t, HOSTED);
  await backup(other, folder);
  const before = await readdir(folder, {recursive: true});
  await t.throwsAsync(backup(proxy, folder), {message: /holds the backup of another store/});
  t.deepEqual(await readdir(folder, {recursive: true}), before);

  const strange = await createFolder(t);
  await writeFile(join(strange, 'notes.txt'), 'mine');
  await t.throwsAsync(backup(proxy, strange), {message: /is not empty and not a backup: "notes\.txt"/});
  await t.throwsAsync(restore(proxy, strange), {
    message: /is not a backup: there is no backref-backup\.json/,
  });
  t.deepEqual(await readdir(strange), ['notes.txt']);

  const file = join(strange, 'notes.txt');
  await t.throwsAsync(backup(proxy, file), {message: /is not a folder/});
  const parentless = join(strange, 'a/b');
  await t.throwsAsync(backup(proxy, parentless), {message: /create it, or mount its disk/});
  await t.throwsAsync(restore(proxy, parentless), {message: /There is no folder/});
});

test('registries that are not configured are named before anything is restored', async (t) => {
  const {proxy, app, folder} = await setUp(t, {registries: [{name: 'old.test', library: false}]});
  await pushImage(app, 'v1');
  await backup(proxy, folder);
  const restored = await startBackref(t, HOSTED);
  await t.throwsAsync(restore(restored, folder), {
    message: /registries that are not configured here: old\.test\./,
  });
  t.like(await collect(restored), {links: 0, blobs: 0});
});

test('pending changes of fallback tags are restored, unless the store has newer ones', async (t) => {
  const options = {...HOSTED, clock: createMovableClock()};
  const [source, target] = [await wireInProcess(t, options), await wireInProcess(t, options)];
  const folder = join(await createFolder(t), 'backup');
  const {repository} = source.route('team/app');
  const [subject, one, two] = [randomBlob(1), randomBlob(2), randomBlob(3)].map(({digest}) => digest) as [
    Digest,
    Digest,
    Digest,
  ];
  const entry = (digest: Digest, at: number) => ({
    repository,
    subject,
    digest,
    change: 'add' as const,
    at,
    writtenAt: undefined,
  });
  const put = (metadata: Metadata, change: PendingTagChange) =>
    metadata.commit([{type: 'tag-journal.put', entry: change}]);
  await put(source.storage.metadata, entry(one, 1));
  await put(source.storage.metadata, entry(two, 2));
  await put(target.storage.metadata, entry(two, 3));
  await source.maintenance.backup.run({folder, ...withoutReports});
  await target.maintenance.restore.run({folder, ...withoutReports});
  t.deepEqual(await target.storage.metadata.tagJournal(repository, subject), [entry(one, 1), entry(two, 3)]);
});

test('a disk without enough space is named before anything is copied', async (t) => {
  const {proxy, app, folder} = await setUp(t);
  await pushImage(app, 'v1');
  await backup(proxy, folder);
  const {storage, content, clock} = await wireInProcess(t, {...HOSTED, clock: createMovableClock()});
  const parts = {...storage, ...content, coordination: storage.claims, clock};
  const small = createRestore({
    ...parts,
    registries: () => ({all: [{name: 'docker.io'}]}) as unknown as Registries,
    freeBytes: async () => 1001,
  });
  await t.throwsAsync(small.run({folder, ...withoutReports}), {
    message: /its blobs need 1002 bytes, 1001 are free/,
  });
  t.false((await storage.metadata.blobStore()).hasBlobs);

  await proxy.server.close();
  const source = await wireInProcess(t, {...HOSTED, clock: createMovableClock(), folder: proxy.folder});
  const full = createBackup({
    metadata: source.storage.metadata,
    store: source.storage.store,
    coordination: source.storage.claims,
    clock,
    backupFolder: (path) => withFreeBytes(source.storage.backupFolder(path), 1001),
  });
  const elsewhere = join(await createFolder(t), 'full');
  await t.throwsAsync(full.run({folder: elsewhere, ...withoutReports}), {
    message: /no space for this backup: 1002 bytes are to be copied, 1001 are free/,
  });
});

/** A folder on a disk with this much space. */
const withFreeBytes = (folder: BackupFolder, bytes: number): BackupFolder => ({
  begin: (store) => folder.begin(store),
  contents: () => folder.contents(),
  size: (digest) => folder.size(digest),
  open: (digest) => folder.open(digest),
  put: (digest, chunks) => folder.put(digest, chunks),
  complete: (contents, at) => folder.complete(contents, at),
  prune: (keep) => folder.prune(keep),
  pathOf: (digest) => folder.pathOf(digest),
  freeBytes: async () => bytes,
});
