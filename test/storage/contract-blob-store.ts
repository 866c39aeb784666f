import {randomBytes} from 'node:crypto';
import {utimes} from 'node:fs/promises';
import type {ExecutionContext, TestFn} from 'ava';
import {algorithmOf, type Digest, digestOf} from '../../src/oci/digest.ts';
import {type BlobStore, StoreMissing} from '../../src/storage/blob-store.ts';
import {createSpools} from '../../src/storage/fs/spools.ts';
import type {Spools} from '../../src/storage/spool.ts';
import {createFolder} from '../support/folder.ts';

/** Blobs that outlive the process: every `open` sees what another process would. */
export interface BlobPlace {
  open(): BlobStore;
  /** Takes the store away, as unmounting its disk does. @returns what brings it back unchanged */
  takeAway(): Promise<() => Promise<void>>;
}

const MIB = 1024 * 1024;

/** What every implementation of the blob store port does. `create` makes a new, empty one. */
export function blobStoreContract(test: TestFn, create: (t: ExecutionContext) => Promise<BlobPlace>): void {
  const setUp = async (t: ExecutionContext) => {
    const place = await create(t);
    const spools = createSpools({path: await createFolder(t)});
    return {place, spools, store: place.open()};
  };

  for (const algorithm of ['sha256', 'sha512'] as const) {
    test(`blobs: a published blob is stored byte for byte (${algorithm})`, async (t) => {
      const {place, spools, store} = await setUp(t);
      const content = randomBytes(5 * MIB + 321);
      const digest = digestOf(content, algorithm);
      t.is(await store.stat(digest), undefined);
      await publish(store, spools, digest, content);
      t.deepEqual(await store.stat(digest), {size: content.length});
      t.true((await bytes(store.open(digest))).equals(content));

      const reopened = place.open();
      t.deepEqual(await reopened.stat(digest), {size: content.length});
      t.true((await bytes(reopened.open(digest))).equals(content));
    });
  }

  test('blobs: ranges are inclusive at both ends', async (t) => {
    const {spools, store} = await setUp(t);
    const content = randomBytes(3 * MIB);
    const digest = digestOf(content);
    await publish(store, spools, digest, content);
    for (const [start, end] of [
      [0, 0],
      [0, 3 * MIB - 1],
      [3 * MIB - 1, 3 * MIB - 1],
      [MIB - 1, MIB],
      [17, 2 * MIB + 17],
    ] as const) {
      const part = await bytes(store.open(digest, {start, end}));
      t.true(part.equals(content.subarray(start, end + 1)), `${start}-${end}`);
    }
  });

  test('blobs: a range beyond the end fails instead of being cut short', async (t) => {
    const {spools, store} = await setUp(t);
    const content = Buffer.from('four');
    await publish(store, spools, digestOf(content), content);
    await t.throwsAsync(() => bytes(store.open(digestOf(content), {start: 0, end: 4})));
    await t.throwsAsync(() => bytes(store.open(digestOf(content), {start: 9, end: 12})));
  });

  test('blobs: an empty blob can be stored', async (t) => {
    const {spools, store} = await setUp(t);
    const digest = digestOf(Buffer.alloc(0));
    await publish(store, spools, digest, Buffer.alloc(0));
    t.deepEqual(await store.stat(digest), {size: 0});
    t.is((await bytes(store.open(digest))).length, 0);
  });

  test('blobs: reading a blob that is not stored fails at the first chunk', async (t) => {
    const {store} = await setUp(t);
    const absent = store.open(digestOf(Buffer.from('absent')));
    await t.throwsAsync(() => bytes(absent));
  });

  test('blobs: a chunk stays valid until the next one is requested, with any number of readers', async (t) => {
    const {spools, store} = await setUp(t);
    const content = randomBytes(6 * MIB);
    await publish(store, spools, digestOf(content), content);
    const compare = async () => {
      let at = 0;
      for await (const chunk of store.open(digestOf(content))) {
        // While a socket would still be sending this chunk, others read on into their own memory.
        await new Promise(setImmediate);
        t.true(content.subarray(at, at + chunk.length).equals(chunk));
        at += chunk.length;
      }
      t.is(at, content.length);
    };
    await Promise.all(Array.from({length: 20}, compare));
  });

  test('blobs: fifty readers at once get the right bytes, even if some leave early', async (t) => {
    const {spools, store} = await setUp(t);
    const content = randomBytes(2 * MIB);
    const digest = digestOf(content);
    await publish(store, spools, digest, content);
    const results = await Promise.all(
      Array.from({length: 50}, async (_, index) => {
        if (index % 5 > 0) return (await bytes(store.open(digest))).equals(content);
        for await (const chunk of store.open(digest)) return chunk.length > 0;
        return false;
      }),
    );
    t.true(results.every((right) => right));
  });

  test('blobs: publishing consumes the spool, whose key can then be opened again', async (t) => {
    const {spools, store} = await setUp(t);
    const content = Buffer.from('used up');
    const digest = digestOf(content);
    await publish(store, spools, digest, content);
    const spool = await spools.open(digest);
    t.is(spool.size, 0);
    await spool.discard();
  });

  test('blobs: publishing neither waits for the readers of the spool nor cuts them off', async (t) => {
    const {spools, store} = await setUp(t);
    const content = randomBytes(4 * MIB);
    const digest = digestOf(content);
    const spool = await spools.open(digest);
    await spool.append(content);
    await spool.flush();
    const reader = spool.read(0, content.length)[Symbol.asyncIterator]();
    const parts = [Buffer.from((await reader.next()).value ?? [])];
    await store.publish(digest, spool);
    t.true((await bytes(store.open(digest))).equals(content));
    for (let next = await reader.next(); !next.done; next = await reader.next())
      parts.push(Buffer.from(next.value));
    t.true(Buffer.concat(parts).equals(content));
  });

  test('blobs: publishing a blob that is already stored is harmless', async (t) => {
    const {spools, store} = await setUp(t);
    const content = Buffer.from('twice');
    const digest = digestOf(content);
    await publish(store, spools, digest, content);
    await publish(store, spools, digest, content);
    t.is((await bytes(store.open(digest))).toString(), 'twice');
    t.is((await Array.fromAsync(store.list())).length, 1);
  });

  test('blobs: a deleted blob is gone, its current readers finish, and it can be stored again', async (t) => {
    const {spools, store} = await setUp(t);
    const content = randomBytes(4 * MIB);
    const digest = digestOf(content);
    await publish(store, spools, digest, content);
    const reader = store.open(digest)[Symbol.asyncIterator]();
    let length = (await reader.next()).value?.length ?? 0;
    await store.delete(digest);
    await store.delete(digest);
    t.is(await store.stat(digest), undefined);
    await t.throwsAsync(() => bytes(store.open(digest)));
    for (let next = await reader.next(); !next.done; next = await reader.next()) length += next.value.length;
    t.is(length, content.length);
    await publish(store, spools, digest, content);
    t.deepEqual(await store.stat(digest), {size: content.length});
  });

  test('blobs: a blob that is set aside is not in the store, its readers finish, and it can be stored again', async (t) => {
    const {spools, store} = await setUp(t);
    const content = randomBytes(4 * MIB);
    const digest = digestOf(content);
    for (const origin of ['upstream', 'local'] as const) {
      await publish(store, spools, digest, content);
      const reader = store.open(digest)[Symbol.asyncIterator]();
      let length = (await reader.next()).value?.length ?? 0;
      await store.setAside(digest, origin);
      await store.setAside(digest, origin);
      t.is(await store.stat(digest), undefined);
      await t.throwsAsync(() => bytes(store.open(digest)));
      t.deepEqual(await Array.fromAsync(store.list()), []);
      for (let next = await reader.next(); !next.done; next = await reader.next())
        length += next.value.length;
      t.is(length, content.length);
    }
    await publish(store, spools, digest, content);
    t.deepEqual(await store.stat(digest), {size: content.length});
  });

  test('blobs: old copies that were set aside are removed, and pushed blobs are not', async (t) => {
    const {spools, store} = await setUp(t);
    const digest = digestOf(Buffer.from('bad'));
    for (const origin of ['upstream', 'local'] as const) {
      await publish(store, spools, digest, Buffer.from('bad'));
      await store.setAside(digest, origin);
    }
    // A file system may keep whole seconds.
    t.is(await store.expireSetAside(Date.now() - 60_000), 0);
    t.is(await store.expireSetAside(Date.now() + 60_000), 1);
    t.is(await store.expireSetAside(Date.now() + 60_000), 0);
  });

  test('blobs: what was set aside is counted in blocks, and its copies can be removed for their room', async (t) => {
    const {spools, store} = await setUp(t);
    t.deepEqual(await store.bytesSetAside(), {upstream: 0, local: 0});
    for (const origin of ['upstream', 'upstream', 'local'] as const) {
      const content = randomBytes(5000);
      await publish(store, spools, digestOf(content), content);
      await store.setAside(digestOf(content), origin);
    }
    t.deepEqual(await store.bytesSetAside(), {upstream: 2 * 8192, local: 8192});
    t.is(await store.dropSetAside(0), 0);
    t.is(await store.dropSetAside(1), 8192, 'one is enough');
    t.is(await store.dropSetAside(1_000_000), 8192, 'what was pushed here stays');
    t.deepEqual(await store.bytesSetAside(), {upstream: 0, local: 8192});
  });

  test('blobs: the list is ordered by digest, and can continue after any of them', async (t) => {
    const {spools, store} = await setUp(t);
    t.deepEqual(await Array.fromAsync(store.list()), []);
    const digests: Digest[] = [];
    for (let index = 0; index < 40; index++) {
      const content = Buffer.from(`content ${index}`);
      const digest = digestOf(content, index % 4 === 0 ? 'sha512' : 'sha256');
      digests.push(digest);
      await publish(store, spools, digest, content);
    }
    digests.sort();
    const listed = await Array.fromAsync(store.list());
    t.deepEqual(
      listed.map(({digest}) => digest),
      digests,
    );
    t.true(listed.every(({size}) => size === 9 || size === 10));
    for (const [index, after] of digests.entries()) {
      const rest = await Array.fromAsync(store.list(after), ({digest}) => digest);
      t.deepEqual(rest, digests.slice(index + 1));
    }
    const absent = digestOf(Buffer.from('never published'));
    t.deepEqual(
      await Array.fromAsync(store.list(absent), ({digest}) => digest),
      digests.filter((digest) => digest > absent),
    );
    t.deepEqual(new Set(digests.map(algorithmOf)), new Set(['sha256', 'sha512'] as const));
  });

  test('blobs: the list says when each blob was published, however old its spool was', async (t) => {
    const {spools, store} = await setUp(t);
    const content = Buffer.from('dated');
    const spool = await spools.open(digestOf(content));
    await spool.append(content);
    await spool.flush();
    await utimes(spool.path, new Date(0), new Date(0));
    const before = Date.now();
    await store.publish(digestOf(content), spool);
    const [listed] = await Array.fromAsync(store.list());
    // A file system may keep only whole seconds.
    t.true(listed !== undefined && listed.storedAt >= before - 1000);
  });

  test('blobs: a new store exists from the first request on', async (t) => {
    const {place, store} = await setUp(t);
    await t.notThrowsAsync(() => store.check());
    await t.notThrowsAsync(() => place.open().check());
  });

  test('blobs: a missing store answers nothing and changes nothing until it is back', async (t) => {
    const {place, spools, store} = await setUp(t);
    const content = Buffer.from('on a disk that comes and goes');
    const digest = digestOf(content);
    await publish(store, spools, digest, content);
    const bringBack = await place.takeAway();
    for (const each of [store, place.open()]) {
      const spool = await spools.open(digestOf(Buffer.from('new')));
      await spool.append(Buffer.from('new'));
      const missing = {instanceOf: StoreMissing};
      await t.throwsAsync(() => each.check(), missing);
      await t.throwsAsync(() => each.stat(digest), missing);
      await t.throwsAsync(() => bytes(each.open(digest)), missing);
      await t.throwsAsync(() => each.delete(digest), missing);
      await t.throwsAsync(() => each.setAside(digest, 'local'), missing);
      await t.throwsAsync(() => each.expireSetAside(Date.now()), missing);
      await t.throwsAsync(() => each.bytesSetAside(), missing);
      await t.throwsAsync(() => each.dropSetAside(1), missing);
      await t.throwsAsync(() => Array.fromAsync(each.list()), missing);
      await t.throwsAsync(() => each.publish(spool.key as Digest, spool), missing);
      t.is(spool.size, 3, 'the spool is still its owner’s');
      await spool.discard();
    }
    await bringBack();
    for (const each of [store, place.open()]) {
      await each.check();
      t.deepEqual(await each.stat(digest), {size: content.length});
      t.true((await bytes(each.open(digest))).equals(content));
      t.is((await Array.fromAsync(each.list())).length, 1);
    }
  });

  test('blobs: two stores share nothing', async (t) => {
    const [one, two] = await Promise.all([setUp(t), setUp(t)]);
    const content = Buffer.from('here only');
    await publish(one.store, one.spools, digestOf(content), content);
    t.is(await two.store.stat(digestOf(content)), undefined);
    t.deepEqual(await Array.fromAsync(two.store.list()), []);
  });
}

async function publish(store: BlobStore, spools: Spools, digest: Digest, content: Uint8Array): Promise<void> {
  const spool = await spools.open(digest);
  await spool.append(content);
  await store.publish(digest, spool);
}

async function bytes(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunks, (chunk) => Buffer.from(chunk)));
}
