import type {ExecutionContext, TestFn} from 'ava';
import {digestOf} from '../../src/oci/digest.ts';
import {createUploadId, type UploadId} from '../../src/oci/upload.ts';
import type {Spool, SpoolKey, Spools} from '../../src/storage/spool.ts';

/** Spools that outlive the process: every `open` sees what another process would. */
export interface SpoolPlace {
  open(): Spools;
}

const MIB = 1024 * 1024;
const sha256 = digestOf(Buffer.from('one'));
const sha512 = digestOf(Buffer.from('one'), 'sha512');
const upload = createUploadId();

/** What every implementation of the spool port does. `create` makes a new, empty one. */
export function spoolContract(test: TestFn, create: (t: ExecutionContext) => Promise<SpoolPlace>): void {
  for (const [kind, key] of [
    ['sha256', sha256],
    ['sha512', sha512],
    ['upload', upload],
  ] as const) {
    test(`spool: returns what was appended, whole and in parts (${kind})`, async (t) => {
      const spool = await (await create(t)).open().open(key);
      t.is(spool.key, key);
      t.is(spool.size, 0);
      await spool.append(Buffer.from('hello '));
      await spool.append(Buffer.from('world'));
      await spool.flush();
      t.is(spool.size, 11);
      t.is(await text(spool.read(0, 11)), 'hello world');
      t.is(await text(spool.read(3, 8)), 'lo wo');
      t.is(await text(spool.read(4, 4)), '');
      await spool.discard();
    });
  }

  test('spool: keeps the order of many appends that are not awaited', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    const chunks = Array.from({length: 2_000}, (_, index) => Buffer.from(`${index};`));
    await Promise.all(chunks.map((chunk) => spool.append(chunk)));
    await spool.flush();
    t.is(await text(spool.read(0, spool.size)), chunks.join(''));
    await spool.discard();
  });

  test('spool: holds a fast writer back, yet takes a chunk that is larger than the limit of bytes in flight', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    for (let index = 0; index < 16; index++) {
      await spool.append(Buffer.alloc(MIB, index));
      t.true(spool.size >= (index - 1) * MIB, 'at most about 1 MiB is written behind');
    }
    await spool.append(Buffer.alloc(5 * MIB, 16));
    await spool.flush();
    t.is(spool.size, 21 * MIB);
    const whole = await bytes(spool.read(0, spool.size));
    t.true(whole.subarray(15 * MIB, 16 * MIB).equals(Buffer.alloc(MIB, 15)));
    t.true(whole.subarray(16 * MIB).equals(Buffer.alloc(5 * MIB, 16)));
    await spool.discard();
  });

  test('spool: an empty chunk changes nothing', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    await spool.append(Buffer.alloc(0));
    await spool.flush();
    t.is(spool.size, 0);
    t.is(await text(spool.read(0, 0)), '');
    await spool.discard();
  });

  test('spool: many readers read at their own pace while it grows', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    await spool.append(Buffer.alloc(3 * MIB, 'a'));
    await spool.flush();
    const slow = spool.read(0, 3 * MIB)[Symbol.asyncIterator]();
    const begun = await slow.next();
    await spool.append(Buffer.alloc(MIB, 'b'));
    await spool.flush();
    const others = await Promise.all([
      bytes(spool.read(0, 4 * MIB)),
      bytes(spool.read(2 * MIB, 4 * MIB)),
      bytes(spool.read(4 * MIB - 1, 4 * MIB)),
    ]);
    t.deepEqual(
      others.map(({length}) => length),
      [4 * MIB, 2 * MIB, 1],
    );
    let length = begun.value?.length ?? 0;
    for (let next = await slow.next(); !next.done; next = await slow.next()) length += next.value.length;
    t.is(length, 3 * MIB);
    await spool.discard();
  });

  test('spool: gives pieces at any position while it grows', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    const content = Buffer.from(Uint32Array.from({length: MIB}, (_, index) => index * 2_654_435_761).buffer);
    await spool.append(content.subarray(0, 2.5 * MIB));
    await spool.flush();
    const held = await Promise.all([spool.piece(2 * MIB, 2.5 * MIB), spool.piece(1, 2.5 * MIB)]);
    await spool.append(content.subarray(2.5 * MIB));
    await spool.flush();
    for (const start of [0, 1, MIB - 1, 2 * MIB, 2.5 * MIB, 4 * MIB - 1]) {
      for (const end of [start + 1, 4 * MIB]) {
        const given = await pieces(spool, start, end);
        t.true(given.equals(content.subarray(start, end)), `bytes ${start} to ${end}`);
      }
    }
    for (const [index, start] of [2 * MIB, 1].entries()) {
      const piece = held[index]?.bytes ?? Buffer.alloc(0);
      t.true(
        piece.length > 0 && content.subarray(start, start + piece.length).equals(piece),
        'it has not changed',
      );
      held[index]?.release();
    }
    await spool.discard();
  });

  test('spool: after truncation, a piece holds only bytes written since', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    await spool.append(Buffer.alloc(2 * MIB, 'a'));
    await spool.flush();
    (await spool.piece(0, MIB)).release();
    const late = spool.piece(MIB, 2 * MIB);
    const isRefused = t.throwsAsync(late, {message: /was emptied while it was read|ended at byte/});
    await spool.truncate();
    await isRefused;
    await t.throwsAsync(() => spool.piece(0, 1), {instanceOf: RangeError});
    await spool.append(Buffer.alloc(2 * MIB, 'b'));
    await spool.flush();
    t.true((await pieces(spool, 0, 2 * MIB)).equals(Buffer.alloc(2 * MIB, 'b')));
    await spool.discard();
  });

  test('spool: a piece that was asked for is given although the spool is closed or discarded', async (t) => {
    const place = await create(t);
    for (const end of ['close', 'discard'] as const) {
      const spool = await place.open().open(sha256);
      await spool.append(Buffer.alloc(MIB, 'a'));
      await spool.flush();
      const asked = spool.piece(0, MIB);
      await spool[end]();
      const {bytes: given, release} = await asked;
      t.true(given.every((byte) => byte === 97));
      release();
      await t.throwsAsync(() => spool.piece(0, MIB), {message: /is closed/});
    }
  });

  test('spool: refuses to read beyond its end', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    await spool.append(Buffer.from('four'));
    await spool.flush();
    for (const [start, end] of [
      [0, 5],
      [3, 2],
      [-1, 2],
      [Number.NaN, 2],
    ] as const) {
      await t.throwsAsync(() => bytes(spool.read(start, end)), {instanceOf: RangeError});
      await t.throwsAsync(() => spool.piece(start, end), {instanceOf: RangeError});
    }
    await spool.discard();
  });

  test('spool: the content of a closed spool is there for the next process', async (t) => {
    const place = await create(t);
    const spool = await place.open().open(sha512);
    await spool.append(Buffer.from('first '));
    await spool.close();
    await spool.close();

    const resumed = await place.open().open(sha512);
    t.is(resumed.size, 6);
    await resumed.append(Buffer.from('second'));
    await resumed.flush();
    t.is(await text(resumed.read(0, resumed.size)), 'first second');
    await resumed.close();
  });

  test('spool: a truncated spool starts from zero, and an earlier reader does not see the new content', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    await spool.append(Buffer.alloc(4 * MIB, 'a'));
    await spool.flush();
    const reader = spool.read(0, 4 * MIB)[Symbol.asyncIterator]();
    await reader.next();
    await spool.truncate();
    t.is(spool.size, 0);
    await spool.append(Buffer.alloc(4 * MIB, 'b'));
    await spool.flush();
    await t.throwsAsync(async () => {
      for (let next = await reader.next(); !next.done; next = await reader.next());
    });
    t.is(await text(spool.read(0, 2)), 'bb');
    await spool.discard();
  });

  test('spool: close waits for the current readers', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    await spool.append(Buffer.alloc(4 * MIB));
    await spool.flush();
    const reader = spool.read(0, 4 * MIB)[Symbol.asyncIterator]();
    let length = (await reader.next()).value?.length ?? 0;
    let closed = false;
    const closing = spool.close().then(() => {
      closed = true;
    });
    for (let next = await reader.next(); !next.done; next = await reader.next()) {
      t.false(closed);
      length += next.value.length;
    }
    await closing;
    t.is(length, 4 * MIB);
  });

  test('spool: close does not wait for a reader that left early', async (t) => {
    const spool = await (await create(t)).open().open(sha256);
    await spool.append(Buffer.alloc(4 * MIB));
    await spool.flush();
    for await (const _ of spool.read(0, 4 * MIB)) break;
    await spool.close();
    t.pass();
  });

  test('spool: discard removes it at once, and lets a current reader finish', async (t) => {
    const place = await create(t);
    const spools = place.open();
    const spool = await spools.open(sha256);
    await spool.append(Buffer.alloc(4 * MIB));
    await spool.flush();
    const reader = spool.read(0, 4 * MIB)[Symbol.asyncIterator]();
    let length = (await reader.next()).value?.length ?? 0;
    await spool.discard();
    await spool.discard();

    const fresh = await spools.open(sha256);
    t.is(fresh.size, 0);
    for (let next = await reader.next(); !next.done; next = await reader.next()) length += next.value.length;
    t.is(length, 4 * MIB);
    await spool.discard();
    await fresh.append(Buffer.from('kept'));
    await fresh.close();
    const kept = await place.open().open(sha256);
    t.is(kept.size, 4, 'an old spool that is discarded again takes nothing along');
    await kept.discard();
  });

  test('spool: discard while close waits for a reader removes the file', async (t) => {
    const place = await create(t);
    const spools = place.open();
    const spool = await spools.open(sha256);
    await spool.append(Buffer.alloc(4 * MIB));
    await spool.flush();
    const reader = spool.read(0, 4 * MIB)[Symbol.asyncIterator]();
    await reader.next();
    const closing = spool.close();
    await spool.discard();
    await reader.return?.();
    await closing;
    const next = await spools.open(sha256);
    t.is(next.size, 0);
    await next.discard();
  });

  test('spool: a closed or discarded spool can be neither appended to nor read', async (t) => {
    const spools = (await create(t)).open();
    const closed = await spools.open(sha256);
    await closed.close();
    const discarded = await spools.open(sha512);
    await discarded.discard();
    await discarded.close();
    for (const spool of [closed, discarded]) {
      await t.throwsAsync(() => spool.append(Buffer.from('x')), {message: /is closed/});
      await t.throwsAsync(() => spool.flush(), {message: /is closed/});
      await t.throwsAsync(() => spool.truncate(), {message: /is closed/});
      await t.throwsAsync(() => bytes(spool.read(0, 0)), {message: /is closed/});
    }
  });

  test('spools: a spool can be opened by one at a time, and again after it is closed', async (t) => {
    const spools = (await create(t)).open();
    const [first, second] = await Promise.allSettled([spools.open(sha256), spools.open(sha256)]);
    t.is(first.status, 'fulfilled');
    t.is(second.status, 'rejected');
    const other = await spools.open(sha512);
    await other.discard();
    if (first.status === 'fulfilled') await first.value.close();
    const again = await spools.open(sha256);
    await again.discard();
    t.pass();
  });

  test('spools: what those that are not open take up is counted in blocks', async (t) => {
    const spools = (await create(t)).open();
    t.is(await spools.idleBytes(), 0);
    await leave(spools, sha256, 'left by a download');
    await leave(spools, upload, 'x'.repeat(5000));
    const open = await spools.open(sha512);
    await open.append(Buffer.from('at work'));
    await open.flush();
    t.is(await spools.idleBytes(), 4096 + 8192);
    await open.close();
    t.is(await spools.idleBytes(), 4096 + 8192 + 4096);
  });

  test('spools: a sweep removes spools that are old and not open', async (t) => {
    const place = await create(t);
    const spools = place.open();
    await leave(spools, sha256, 'old');
    const open = await spools.open(sha512);
    await open.append(Buffer.from('at work'));
    await open.flush();

    t.is(await spools.sweep(0, nobody), 0, 'nothing is older than the epoch');
    t.is(await spools.sweep(Date.now() + 60_000, nobody), 1);
    t.is(await text(open.read(0, open.size)), 'at work');
    await open.close();
    const gone = await spools.open(sha256);
    t.is(gone.size, 0);
    await gone.discard();
    const kept = await place.open().open(sha512);
    t.is(kept.size, 7);
    await kept.discard();
  });

  test('spools: a sweep also removes the spools of uploads that are not open', async (t) => {
    const spools = (await create(t)).open();
    await leave(spools, upload, 'what is left of an upload');
    const other = await spools.open(createUploadId());
    await other.append(Buffer.from('under way'));
    await other.flush();
    t.is(await spools.sweep(0, nobody), 0);
    t.is(await spools.sweep(Date.now() + 60_000, nobody), 1);
    t.is(await text(other.read(0, other.size)), 'under way');
    await other.discard();
    const gone = await spools.open(upload);
    t.is(gone.size, 0);
    await gone.discard();
  });

  test('spools: a sweep leaves the spool of an upload that is under way, however old', async (t) => {
    const place = await create(t);
    const spools = place.open();
    const other = createUploadId();
    await leave(spools, upload, 'under way');
    await leave(spools, other, 'over');
    await leave(spools, sha256, 'a beginning');
    const asked: string[] = [];
    const isUnderWay = async (id: UploadId) => {
      asked.push(id);
      return id === upload;
    };
    t.is(await spools.sweep(Date.now() + 60_000, isUnderWay), 2);
    t.deepEqual(asked.sort(), [upload, other].sort());
    for (const [key, size] of [
      [upload, 9],
      [other, 0],
      [sha256, 0],
    ] as const) {
      const spool = await spools.open(key);
      t.is(spool.size, size);
      await spool.discard();
    }
  });

  test('spools: a spool is opened without waiting for the end of a sweep', async (t) => {
    const spools = (await create(t)).open();
    await leave(spools, upload, 'asked about');
    const {promise: answer, resolve} = Promise.withResolvers<boolean>();
    const asked = Promise.withResolvers<void>();
    const sweep = spools.sweep(Date.now() + 60_000, () => {
      asked.resolve();
      return answer;
    });
    await asked.promise;
    const fresh = await spools.open(sha256);
    resolve(true);
    await sweep;
    await fresh.append(Buffer.from('new'));
    await fresh.flush();
    t.is(await text(fresh.read(0, fresh.size)), 'new');
    await fresh.discard();
  });

  test('spools: the spool of an upload that is opened while a sweep asks about it stays', async (t) => {
    const spools = (await create(t)).open();
    await leave(spools, upload, 'opened');
    let opened: Spool | undefined;
    const isUnderWay = async () => {
      opened = await spools.open(upload);
      return false;
    };
    t.is(await spools.sweep(Date.now() + 60_000, isUnderWay), 0);
    t.is(opened && (await text(opened.read(0, opened.size))), 'opened');
    await opened?.discard();
  });

  test('spools: a spool that is not open can be removed by its key, and only that one is', async (t) => {
    const spools = (await create(t)).open();
    const other = createUploadId();
    for (const key of [sha256, upload, other]) await leave(spools, key, 'left');
    await spools.remove(upload);
    await spools.remove(upload);
    await spools.remove(sha256);
    for (const [key, size] of [
      [sha256, 0],
      [upload, 0],
      [other, 4],
    ] as const) {
      const spool = await spools.open(key);
      t.is(spool.size, size);
      await t.throwsAsync(() => spools.remove(key), {message: /is open/});
      await spool.discard();
    }
  });

  test('spools: a spool that is opened during a sweep is complete', async (t) => {
    const spools = (await create(t)).open();
    await leave(spools, sha256, 'old');
    const [, spool] = await Promise.all([spools.sweep(Date.now() + 60_000, nobody), spools.open(sha256)]);
    await spool.append(Buffer.from('new'));
    await spool.close();
    const again = await spools.open(sha256);
    t.true(again.size === 3 || again.size === 6);
    await again.discard();
  });

  test('spools: two folders share nothing', async (t) => {
    const [one, two] = await Promise.all([create(t), create(t)]);
    const mine = await one.open().open(sha256);
    await mine.append(Buffer.from('mine'));
    await mine.flush();
    const other = await two.open().open(sha256);
    t.is(other.size, 0);
    await Promise.all([mine.discard(), other.discard()]);
  });
}

const nobody = async (): Promise<boolean> => false;

async function leave(spools: Spools, key: SpoolKey, content: string): Promise<void> {
  const spool = await spools.open(key);
  await spool.append(Buffer.from(content));
  await spool.close();
}

async function bytes(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  return Buffer.concat(await Array.fromAsync(chunks, (chunk) => Buffer.from(chunk)));
}

const text = async (chunks: AsyncIterable<Uint8Array>): Promise<string> => (await bytes(chunks)).toString();

/** What the pieces from `start` to `end` hold, one after the other. */
async function pieces(spool: Spool, start: number, end: number): Promise<Buffer> {
  const copies: Buffer[] = [];
  for (let at = start; at < end; ) {
    const piece = await spool.piece(at, end);
    copies.push(Buffer.from(piece.bytes));
    at += piece.bytes.length;
    piece.release();
  }
  return Buffer.concat(copies);
}
