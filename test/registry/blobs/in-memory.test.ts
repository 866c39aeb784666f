import {randomBytes} from 'node:crypto';
import test from 'ava';
import {type Digest, digestOf} from '../../../src/oci/digest.ts';
import {createBlobsInMemory} from '../../../src/registry/blobs/in-memory.ts';
import {createMemory} from '../../../src/registry/memory.ts';

const KIB = 1024;
const MIB = 1024 * KIB;
const digest = digestOf(Buffer.from('any'));

/** A store that has what is put into it, whatever its digest. @param maxBytes of the memory */
function setUp(maxBytes = 64 * MIB) {
  const stored = new Map<Digest, Buffer>();
  const read: Digest[] = [];
  const checked: Digest[] = [];
  const memory = createMemory(maxBytes);
  const blobs = createBlobsInMemory({
    store: {
      async *inspect(asked) {
        read.push(asked);
        await new Promise(setImmediate);
        yield stored.get(asked) ?? Buffer.alloc(0);
      },
    },
    lifecycle: {
      async check(asked) {
        checked.push(asked);
        return {state: 'damaged', origin: 'upstream'};
      },
    },
    memory,
  });
  return {stored, read, checked, memory, blobs};
}

test('a small blob belongs in memory at once, a larger one when it is asked for again, a large one never', (t) => {
  const {blobs} = setUp();
  t.true(blobs.wants(digest, 64 * KIB));
  t.false(blobs.wants(digest, 64 * KIB + 1));
  t.true(blobs.wants(digest, 64 * KIB + 1));
  const other = digestOf(Buffer.from('other'));
  t.false(blobs.wants(other, MIB));
  t.true(blobs.wants(other, MIB));
  const large = digestOf(Buffer.from('large'));
  for (let time = 0; time < 3; time += 1) t.false(blobs.wants(large, MIB + 1));
});

test('a blob that would displace most others does not belong in memory', (t) => {
  const {blobs, memory} = setUp(6 * MIB);
  t.is(memory.maxBlobBytes, 512 * KIB);
  for (let time = 0; time < 3; time += 1) t.false(blobs.wants(digest, MIB));
  t.false(blobs.wants(digest, 512 * KIB));
  t.true(blobs.wants(digest, 512 * KIB));
});

test('a blob is read once for all who wait for it, and held', async (t) => {
  const {blobs, stored, read} = setUp();
  const bytes = randomBytes(MIB);
  stored.set(digestOf(bytes), bytes);
  const loaded = await Promise.all(Array.from({length: 5}, () => blobs.load(digestOf(bytes), MIB)));
  t.true(loaded.every((each) => each?.equals(bytes)));
  t.deepEqual(read, [digestOf(bytes)]);
  t.true(blobs.held(digestOf(bytes))?.equals(bytes));
});

test('a damaged blob is checked, and not held', async (t) => {
  const {blobs, stored, checked} = setUp();
  stored.set(digest, randomBytes(MIB));
  t.is(await blobs.load(digest, MIB), undefined);
  t.deepEqual(checked, [digest]);
  t.is(blobs.held(digest), undefined);
});

test('what is asked for once, however much it is, displaces nothing', async (t) => {
  const {blobs, stored} = setUp(12 * MIB);
  const hot = randomBytes(MIB);
  stored.set(digestOf(hot), hot);
  await blobs.load(digestOf(hot), MIB);
  for (let index = 0; index < 100; index += 1) t.false(blobs.wants(digestOf(Buffer.from(`${index}`)), MIB));
  t.true(blobs.held(digestOf(hot))?.equals(hot));
});
