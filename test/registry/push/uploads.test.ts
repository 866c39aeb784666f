import {readdir} from 'node:fs/promises';
import {join} from 'node:path';
import {setImmediate as nextTurn} from 'node:timers/promises';
import test from 'ava';
import {OciError} from '../../../src/oci/errors.ts';
import {createUploadId} from '../../../src/oci/upload.ts';
import type {Route} from '../../../src/registry/namespace.ts';
import type {Change, Metadata, Precondition} from '../../../src/storage/metadata.ts';
import type {Spools} from '../../../src/storage/spool.ts';
import {type Content, contentOf, imageManifest, randomBlob, sameBytes} from '../../support/content.ts';
import {
  begun,
  caller,
  chunkOf,
  createHosted,
  type Hosted,
  noMoreBytes,
  placed,
  pushBlob,
  refusalOf,
  storedBytes,
} from './hosted.ts';

const DAY = 24 * 60 * 60 * 1000;
const blob = randomBlob(100_000);
const [first, second] = [blob.bytes.subarray(0, 40_000), blob.bytes.subarray(40_000)];

const spoolFiles = async ({folder}: Hosted): Promise<string[]> => {
  try {
    return await readdir(join(folder, 'spool'));
  } catch {
    return [];
  }
};

test('a blob is uploaded in one request, and is linked to its repository only', async (t) => {
  const hosted = await createHosted(t);
  await pushBlob(hosted, blob);
  sameBytes(t, await storedBytes(hosted, blob.digest), blob.bytes);
  const link = await hosted.metadata.blobLink(hosted.route().repository, blob.digest);
  t.is(link?.origin, 'local');
  t.is(link?.size, blob.bytes.length);
  t.is(await hosted.metadata.blobLink(hosted.route('other/app').repository, blob.digest), undefined);
  t.deepEqual(await spoolFiles(hosted), []);
});

test('chunks follow each other, and the state reports the offset', async (t) => {
  const hosted = await createHosted(t);
  const route = hosted.route();
  const id = await begun(hosted, route);
  t.is((await hosted.push.state(route, id, caller)).offset, 0);
  t.deepEqual(await hosted.push.append(route, id, placed(first, 0), caller), {
    id,
    offset: 40_000,
    minChunk: undefined,
  });
  t.is((await hosted.push.state(route, id, caller)).offset, 40_000);
  await hosted.push.finish(route, id, blob.digest, placed(second, 40_000), caller);
  sameBytes(t, await storedBytes(hosted, blob.digest), blob.bytes);
});

test('an upload that has ended is unknown', async (t) => {
  const hosted = await createHosted(t);
  const route = hosted.route();
  const id = await begun(hosted, route);
  await hosted.push.finish(route, id, blob.digest, chunkOf(blob.bytes), caller);
  const {push} = hosted;
  for (const work of [
    push.state(route, id, caller),
    push.append(route, id, chunkOf(first), caller),
    push.finish(route, id, blob.digest, noMoreBytes(), caller),
    push.cancel(route, id, caller),
  ]) {
    const refusal = await refusalOf(work);
    t.is(refusal.code, 'BLOB_UPLOAD_UNKNOWN');
    t.is(refusal.status, 404);
  }
});

test('uploads of another repository, and uploads that never began, are unknown and stay untouched', async (t) => {
  const hosted = await createHosted(t);
  const {push} = hosted;
  const id = await begun(hosted, hosted.route());
  await push.append(hosted.route(), id, chunkOf(first), caller);
  const foreign = hosted.route('other/app');
  for (const work of [
    push.state(foreign, id, caller),
    push.append(foreign, id, chunkOf(second), caller),
    push.finish(foreign, id, blob.digest, chunkOf(second), caller),
    push.cancel(foreign, id, caller),
    push.state(hosted.route(), createUploadId(), caller),
  ]) {
    t.is((await refusalOf(work)).code, 'BLOB_UPLOAD_UNKNOWN');
  }
  await push.finish(hosted.route(), id, blob.digest, chunkOf(second), caller);
  sameBytes(t, await storedBytes(hosted, blob.digest), blob.bytes);
});

for (const [title, start] of [
  ['a chunk after a gap', 60_000],
  ['a chunk that was already sent', 0],
] as const) {
  test(`${title} is refused with the current range, also at the end, and the upload continues`, async (t) => {
    const hosted = await createHosted(t);
    const {push} = hosted;
    const route = hosted.route();
    const id = await begun(hosted, route);
    await push.append(route, id, placed(first, 0), caller);
    const wrong = () => placed(second, start);
    for (const work of [
      () => push.append(route, id, wrong(), caller),
      () => push.finish(route, id, blob.digest, wrong(), caller),
    ]) {
      const refusal = await refusalOf(work());
      t.is(refusal.code, 'BLOB_UPLOAD_INVALID');
      t.is(refusal.status, 416);
      t.is(refusal.headers['Range'], '0-39999');
    }
    t.is((await push.state(route, id, caller)).offset, 40_000);
    await push.finish(route, id, blob.digest, placed(second, 40_000), caller);
    sameBytes(t, await storedBytes(hosted, blob.digest), blob.bytes);
  });
}

test('a range and a length that disagree are refused before any byte is stored', async (t) => {
  const hosted = await createHosted(t);
  const route = hosted.route();
  const id = await begun(hosted, route);
  const chunk = chunkOf(first, {length: 40_000, range: {start: 0, end: 40_000}});
  const refusal = await refusalOf(hosted.push.append(route, id, chunk, caller));
  t.is(refusal.code, 'SIZE_INVALID');
  t.is(refusal.status, 400);
  t.is((await hosted.push.state(route, id, caller)).offset, 0);
});

test('bytes beyond the declared length are not stored', async (t) => {
  const hosted = await createHosted(t);
  const route = hosted.route();
  const id = await begun(hosted, route);
  const chunk = chunkOf([first, second], {length: 50_000});
  t.is((await refusalOf(hosted.push.append(route, id, chunk, caller))).code, 'SIZE_INVALID');
  t.is((await hosted.push.state(route, id, caller)).offset, 40_000);
  await hosted.push.finish(route, id, blob.digest, placed(second, 40_000), caller);
  t.pass();
});

test('the bytes of a body that broke off stay, and the client continues from there', async (t) => {
  const hosted = await createHosted(t);
  const {push} = hosted;
  const route = hosted.route();
  const id = await begun(hosted, route);
  async function* breaking(): AsyncGenerator<Uint8Array, void> {
    yield Buffer.from(first);
    throw new OciError('BLOB_UPLOAD_INVALID', {message: 'the client broke off'});
  }
  const broken = {length: blob.bytes.length, range: undefined, bytes: breaking()};
  t.is((await refusalOf(push.append(route, id, broken, caller))).message, 'the client broke off');
  t.is((await push.state(route, id, caller)).offset, 40_000);
  await push.append(route, id, placed(second, 40_000), caller);
  await push.finish(route, id, blob.digest, noMoreBytes(), caller);
  sameBytes(t, await storedBytes(hosted, blob.digest), blob.bytes);
});

test('a wrong digest ends the upload and removes its bytes', async (t) => {
  const hosted = await createHosted(t);
  const route = hosted.route();
  const id = await begun(hosted, route);
  const wrong = randomBlob(10);
  const refusal = await refusalOf(hosted.push.finish(route, id, wrong.digest, chunkOf(blob.bytes), caller));
  t.is(refusal.code, 'DIGEST_INVALID');
  t.is(refusal.status, 400);
  t.true(refusal.message.includes(blob.digest));
  t.is((await refusalOf(hosted.push.state(route, id, caller))).code, 'BLOB_UPLOAD_UNKNOWN');
  t.deepEqual(await spoolFiles(hosted), []);
  t.is(await hosted.store.stat(wrong.digest), undefined);
  t.is(await hosted.store.stat(blob.digest), undefined);
});

test('the digest may be of the announced algorithm, or of another one', async (t) => {
  const hosted = await createHosted(t);
  const {push} = hosted;
  const route = hosted.route();
  const other = contentOf(blob.bytes, 'sha512');
  const silent = await begun(hosted, route);
  await push.append(route, silent, chunkOf(first), caller);
  await push.finish(route, silent, other.digest, chunkOf(second), caller);
  sameBytes(t, await storedBytes(hosted, other.digest), blob.bytes);

  const said = await push.begin(route, {algorithm: 'sha512', mount: undefined}, caller);
  if (said === 'mounted') return t.fail();
  const third = randomBlob(1000, 'sha512');
  await push.finish(route, said.id, third.digest, chunkOf(third.bytes), caller);
  sameBytes(t, await storedBytes(hosted, third.digest), third.bytes);
});

test('an empty blob can be uploaded', async (t) => {
  const hosted = await createHosted(t);
  const empty = contentOf(Buffer.alloc(0));
  const route = hosted.route();
  await hosted.push.finish(route, await begun(hosted, route), empty.digest, noMoreBytes(), caller);
  t.is((await hosted.store.stat(empty.digest))?.size, 0);
});

test('an upload continues in another process', async (t) => {
  const before = await createHosted(t);
  const id = await begun(before, before.route());
  await before.push.append(before.route(), id, placed(first, 0), caller);
  const after = await before.restart();
  const route = after.route();
  t.is((await after.push.state(route, id, caller)).offset, 40_000);
  await after.push.append(route, id, placed(second, 40_000), caller);
  await after.push.finish(route, id, blob.digest, noMoreBytes(), caller);
  sameBytes(t, await storedBytes(after, blob.digest), blob.bytes);
});

test('only one request writes an upload at a time; a second one stores nothing', async (t) => {
  const hosted = await createHosted(t);
  const {push} = hosted;
  const route = hosted.route();
  const id = await begun(hosted, route);
  const gate = Promise.withResolvers<void>();
  const reading = Promise.withResolvers<void>();
  async function* slow(): AsyncGenerator<Uint8Array, void> {
    yield Buffer.from(first);
    reading.resolve();
    await gate.promise;
    yield Buffer.from(second);
  }
  const writing = push.append(route, id, {length: undefined, range: undefined, bytes: slow()}, caller);
  await reading.promise;
  let read = false;
  async function* counted(): AsyncGenerator<Uint8Array, void> {
    read = true;
    yield Buffer.from(second);
  }
  const refusal = await refusalOf(
    push.append(route, id, {length: undefined, range: undefined, bytes: counted()}, caller),
  );
  t.is(refusal.code, 'BLOB_UPLOAD_INVALID');
  t.is(refusal.status, 409);
  t.false(read);
  t.true((await push.state(route, id, caller)).offset <= 40_000);
  gate.resolve();
  t.is((await writing).offset, 100_000);
  await push.finish(route, id, blob.digest, noMoreBytes(), caller);
  sameBytes(t, await storedBytes(hosted, blob.digest), blob.bytes);
});

test('a request that arrives while the one before it ends writes after it', async (t) => {
  const gate = Promise.withResolvers<void>();
  const ending = Promise.withResolvers<void>();
  let touches = 0;
  const slow = (real: Metadata): Metadata => ({
    ...real,
    async commit(changes: readonly Change[], preconditions: readonly Precondition[] = []) {
      // The first touch begins the upload, the second ends the first request that writes it.
      if (changes.some(({type}) => type === 'upload.put') && ++touches === 2) {
        ending.resolve();
        await gate.promise;
      }
      return real.commit(changes, preconditions);
    },
  });
  const hosted = await createHosted(t, {metadata: slow});
  const route = hosted.route();
  const id = await begun(hosted, route);
  const writing = hosted.push.append(route, id, placed(first, 0), caller);
  await ending.promise;
  const next = hosted.uploads.write(route.repository, id, async ({offset}) => offset);
  await nextTurn();
  gate.resolve();
  t.is((await writing).offset, 40_000);
  t.is(await next, 40_000);
});

test('a request that arrives while the upload expires finds it unknown', async (t) => {
  const gate = Promise.withResolvers<void>();
  const removing = Promise.withResolvers<void>();
  const slow = (real: Spools): Spools => ({
    ...real,
    async remove(key) {
      removing.resolve();
      await gate.promise;
      return real.remove(key);
    },
  });
  const hosted = await createHosted(t, {spools: slow});
  const {uploads, clock} = hosted;
  const route = hosted.route();
  const id = await begun(hosted, route);
  clock.move(DAY);
  const sweeping = uploads.sweep(clock.now());
  await removing.promise;
  const refusal = refusalOf(uploads.write(route.repository, id, async () => {}));
  await nextTurn();
  gate.resolve();
  t.is((await sweeping).length, 1);
  t.is((await refusal).code, 'BLOB_UPLOAD_UNKNOWN');
});

test('a cancelled upload is gone with its bytes', async (t) => {
  const hosted = await createHosted(t);
  const route = hosted.route();
  const id = await begun(hosted, route);
  await hosted.push.append(route, id, chunkOf(first), caller);
  t.is((await spoolFiles(hosted)).length, 1);
  await hosted.push.cancel(route, id, caller);
  t.deepEqual(await spoolFiles(hosted), []);
  t.is(await hosted.metadata.upload(id), undefined);
});

test('an upload can be cancelled while a request is writing it', async (t) => {
  const hosted = await createHosted(t);
  const {push} = hosted;
  const route = hosted.route();
  const id = await begun(hosted, route);
  const gate = Promise.withResolvers<void>();
  const reading = Promise.withResolvers<void>();
  async function* slow(): AsyncGenerator<Uint8Array, void> {
    yield Buffer.from(first);
    reading.resolve();
    await gate.promise;
    yield Buffer.from(second);
  }
  const writing = refusalOf(
    push.finish(route, id, blob.digest, {length: undefined, range: undefined, bytes: slow()}, caller),
  );
  await reading.promise;
  await push.cancel(route, id, caller);
  t.is((await refusalOf(push.state(route, id, caller))).code, 'BLOB_UPLOAD_UNKNOWN');
  t.is((await refusalOf(push.cancel(route, id, caller))).code, 'BLOB_UPLOAD_UNKNOWN');
  gate.resolve();
  t.is((await writing).code, 'BLOB_UPLOAD_UNKNOWN');
  t.deepEqual(await spoolFiles(hosted), []);
  t.is(await hosted.metadata.upload(id), undefined);
  t.is(await hosted.store.stat(blob.digest), undefined);
});

test('a blob that is already stored is linked after its bytes are verified', async (t) => {
  const hosted = await createHosted(t);
  await pushBlob(hosted, blob);
  const other = hosted.route('other/app');
  const wrong = hosted.push.finish(other, await begun(hosted, other), blob.digest, chunkOf(first), caller);
  t.is((await refusalOf(wrong)).code, 'DIGEST_INVALID');
  t.is(await hosted.metadata.blobLink(other.repository, blob.digest), undefined);
  await pushBlob(hosted, blob, other);
  t.is((await hosted.metadata.blobLink(other.repository, blob.digest))?.origin, 'local');
  t.deepEqual(await spoolFiles(hosted), []);
});

test('abandoned uploads are removed with their bytes; one that is being written stays', async (t) => {
  const hosted = await createHosted(t);
  const {push, uploads, clock} = hosted;
  const route = hosted.route();
  const idle = await begun(hosted, route);
  await push.append(route, idle, chunkOf(first), caller);
  const bare = await begun(hosted, route);
  const slow = await begun(hosted, route);
  const gate = Promise.withResolvers<void>();
  const reading = Promise.withResolvers<void>();
  async function* body(): AsyncGenerator<Uint8Array, void> {
    yield Buffer.from(first);
    reading.resolve();
    await gate.promise;
    yield Buffer.from(second);
  }
  const writing = push.append(route, slow, {length: undefined, range: undefined, bytes: body()}, caller);
  await reading.promise;
  clock.move(DAY);
  const recent = await begun(hosted, route);
  const removed = await uploads.sweep(clock.now() - 1000);
  t.deepEqual(removed.map(({id}) => id).sort(), [idle, bare].sort());
  t.deepEqual(await uploads.sweep(clock.now() - 1000), []);
  gate.resolve();
  t.is((await writing).offset, 100_000);
  await push.finish(route, slow, blob.digest, noMoreBytes(), caller);
  t.is((await push.state(route, recent, caller)).offset, 0);
  t.is((await refusalOf(push.state(route, idle, caller))).code, 'BLOB_UPLOAD_UNKNOWN');
});

test('asking for the state of an upload keeps it alive', async (t) => {
  const hosted = await createHosted(t);
  const route = hosted.route();
  const id = await begun(hosted, route);
  hosted.clock.move(DAY);
  await hosted.push.state(route, id, caller);
  t.deepEqual(await hosted.uploads.sweep(hosted.clock.now() - 1000), []);
});

/** A disk that has space for this many bytes of each spool. */
const smallDisk =
  (capacity: number) =>
  (real: Spools): Spools => ({
    ...real,
    async open(key) {
      const spool = await real.open(key);
      return Object.create(spool, {
        append: {
          async value(bytes: Uint8Array) {
            if (spool.size + bytes.length <= capacity) return spool.append(bytes);
            throw Object.assign(new Error('no space left on device'), {code: 'ENOSPC'});
          },
        },
      });
    },
  });

test('a full disk is reported, and the upload continues once there is space', async (t) => {
  const hosted = await createHosted(t, {spools: smallDisk(50_000)});
  const route = hosted.route();
  const id = await begun(hosted, route);
  const refusal = await refusalOf(hosted.push.append(route, id, chunkOf([first, second]), caller));
  t.is(refusal.status, 507);
  t.is(refusal.code, 'UNKNOWN');
  t.is((await hosted.push.state(route, id, caller)).offset, 40_000);
  const withSpace = await createHosted(t, {folder: hosted.folder});
  await withSpace.push.finish(withSpace.route(), id, blob.digest, placed(second, 40_000), caller);
  sameBytes(t, await storedBytes(withSpace, blob.digest), blob.bytes);
});

test('a disk that loses bytes without an error is reported as full', async (t) => {
  const losingBytes = (real: Spools): Spools => ({
    ...real,
    open: async (key) => Object.create(await real.open(key), {append: {value: async () => {}}}),
  });
  const hosted = await createHosted(t, {spools: losingBytes});
  const route = hosted.route();
  const id = await begun(hosted, route);
  const refusal = await refusalOf(hosted.push.append(route, id, chunkOf(first), caller));
  t.is(refusal.status, 507);
  t.is((await hosted.push.state(route, id, caller)).offset, 0);
});

/** Deletes a blob from a repository just before the first commit that puts a manifest or links a blob. */
const deletedBefore =
  (route: () => Route, {digest}: Content, type: 'manifest.put' | 'blob.link') =>
  (real: Metadata): Metadata => {
    let armed = true;
    return {
      ...real,
      async commit(changes: readonly Change[], preconditions: readonly Precondition[] = []) {
        if (armed && preconditions.length > 0 && changes.some((change) => change.type === type)) {
          armed = false;
          await real.commit([{type: 'blob.unlink', repository: route().repository, digest}]);
        }
        return real.commit(changes, preconditions);
      },
    };
  };

test('a blob that is deleted while its manifest is put is missing', async (t) => {
  const config = contentOf(Buffer.from('{}'));
  const image = imageManifest([blob]);
  const hosted: Hosted = await createHosted(t, {
    metadata: deletedBefore(() => hosted.route(), blob, 'manifest.put'),
  });
  const route = hosted.route();
  await pushBlob(hosted, config);
  await pushBlob(hosted, blob);
  const put = () =>
    hosted.push.putManifest(
      route,
      image.digest,
      {bytes: image.bytes, mediaType: image.mediaType, tags: []},
      caller,
    );
  const refusal = await refusalOf(put());
  t.is(refusal.code, 'MANIFEST_BLOB_UNKNOWN');
  t.deepEqual(refusal.detail?.['digests'], [blob.digest]);
  t.is(await hosted.metadata.manifest(route.repository, image.digest), undefined);
  await pushBlob(hosted, blob);
  t.is((await put()).digest, image.digest);
});

test('mounting a blob that is deleted meanwhile begins an upload', async (t) => {
  const hosted: Hosted = await createHosted(t, {
    metadata: deletedBefore(() => hosted.route(), blob, 'blob.link'),
  });
  await pushBlob(hosted, blob);
  const target = hosted.route('target/app');
  const mount = {digest: blob.digest, from: hosted.route()};
  t.not(await hosted.push.begin(target, {algorithm: undefined, mount}, caller), 'mounted');
  t.is(await hosted.metadata.blobLink(target.repository, blob.digest), undefined);
});

test('a mount links the blob of another repository of the registry', async (t) => {
  const hosted = await createHosted(t);
  await pushBlob(hosted, blob);
  const target = hosted.route('target/app');
  const mount = {digest: blob.digest, from: hosted.route()};
  t.is(await hosted.push.begin(target, {algorithm: undefined, mount}, caller), 'mounted');
  t.is((await hosted.metadata.blobLink(target.repository, blob.digest))?.origin, 'local');
});

test('a mount without a source finds a repository that has the blob', async (t) => {
  const hosted = await createHosted(t);
  await pushBlob(hosted, blob);
  const mount = {digest: blob.digest, from: undefined};
  t.is(await hosted.push.begin(hosted.route('target/app'), {algorithm: undefined, mount}, caller), 'mounted');
});

test('a mount from a repository without the blob begins an upload', async (t) => {
  const hosted = await createHosted(t);
  await pushBlob(hosted, blob);
  const target = hosted.route('target/app');
  const {registry} = target;
  const elsewhere = {...hosted.route(), registry: {...registry, name: 'another.test'}};
  for (const mount of [
    {digest: blob.digest, from: hosted.route('third/app')},
    {digest: blob.digest, from: elsewhere},
    {digest: randomBlob(10).digest, from: undefined},
  ]) {
    const state = await hosted.push.begin(target, {algorithm: undefined, mount}, caller);
    if (state === 'mounted') return t.fail();
    t.is(state.offset, 0);
    t.is(await hosted.metadata.blobLink(target.repository, blob.digest), undefined);
    await hosted.push.cancel(target, state.id, caller);
  }
  await pushBlob(hosted, blob, target);
  t.is((await hosted.metadata.blobLink(target.repository, blob.digest))?.origin, 'local');
});

test('a blob is deleted from its repository only', async (t) => {
  const hosted = await createHosted(t);
  const other = hosted.route('other/app');
  await pushBlob(hosted, blob);
  await pushBlob(hosted, blob, other);
  await hosted.push.deleteBlob(hosted.route(), blob.digest, caller);
  t.is(await hosted.metadata.blobLink(hosted.route().repository, blob.digest), undefined);
  t.is((await hosted.metadata.blobLink(other.repository, blob.digest))?.size, blob.bytes.length);
  const refusal = await refusalOf(hosted.push.deleteBlob(hosted.route(), blob.digest, caller));
  t.is(refusal.code, 'BLOB_UNKNOWN');
  t.is(refusal.status, 404);
});
