import test from 'ava';
import fc from 'fast-check';
import {createReadPool, type PooledBuffer, type ReadPool} from '../../../src/storage/fs/read-pool.ts';

const KIB = 1024;
const MIB = 1024 * KIB;

/** Fills a buffer with content that somebody may want again. @returns whether that is lost */
function keepContent(buffer: PooledBuffer): {isLost: boolean} {
  const content = {isLost: false};
  buffer.lost = () => {
    content.isLost = true;
  };
  return content;
}

/** What one reader reads and leaves behind. */
function readOnce(pool: ReadPool): {buffer: PooledBuffer; content: {isLost: boolean}} {
  const buffer = pool.take(MIB);
  const content = keepContent(buffer);
  pool.release(buffer);
  return {buffer, content};
}

test('a buffer holds what is wanted, between 64 KiB and 1 MiB', (t) => {
  const pool = createReadPool();
  const sizes = [1, 64 * KIB, 64 * KIB + 1, 300 * KIB, MIB, 5 * MIB].map((wanted) => pool.take(wanted));
  t.deepEqual(
    sizes.map(({bytes}) => bytes.length / KIB),
    [64, 64, 128, 512, 1024, 1024],
  );
});

test('a pool that is made smaller gives memory back at once, and what is held when it is released', (t) => {
  const pool = createReadPool(16 * MIB);
  const held = pool.take(MIB);
  const left = [pool.take(MIB), pool.take(MIB)];
  for (const buffer of left) pool.release(buffer);
  pool.resize(MIB);
  t.is(pool.allocated, MIB);
  t.is(pool.take(MIB).bytes.length, 64 * KIB);
  pool.release(held);
  t.is(pool.allocated, 64 * KIB);
});

test('buffers get smaller as more of the budget is held, and large again when it is not', (t) => {
  const pool = createReadPool(32 * MIB);
  const held = Array.from({length: 100}, () => pool.take(MIB));
  const sizes = held.map(({bytes}) => bytes.length);
  t.deepEqual(
    sizes,
    sizes.toSorted((a, b) => b - a),
  );
  t.is(sizes.at(-1), 64 * KIB);
  t.false(pool.hasRoom);
  for (const buffer of held) pool.release(buffer);
  t.true(pool.hasRoom);
  t.is(pool.take(MIB).bytes.length, MIB);
});

test('what is to be in one buffer gets none that would be too large a share', (t) => {
  const pool = createReadPool(8 * MIB);
  const first = pool.takeWhole(MIB);
  t.is(first?.bytes.length, MIB);
  t.is(pool.takeWhole(MIB), undefined);
  t.is(pool.takeWhole(500 * KIB)?.bytes.length, 512 * KIB);
});

test('memory is used again, and its content lost only then', (t) => {
  const pool = createReadPool(2 * MIB);
  const buffer = pool.take(100);
  const content = keepContent(buffer);
  pool.release(buffer);
  const others = Array.from({length: 31}, () => pool.take(100));
  t.false(content.isLost);
  t.is(pool.take(100).bytes, buffer.bytes);
  t.true(content.isLost);
  t.is(new Set(others.map(({bytes}) => bytes)).size, 31);
});

test('content that nobody will ask for is overwritten first', (t) => {
  const pool = createReadPool(32 * MIB);
  const {content} = readOnce(pool);
  const forgotten = readOnce(pool);
  pool.forget(forgotten.buffer);
  t.is(pool.take(MIB).bytes, forgotten.buffer.bytes);
  t.false(forgotten.content.isLost, 'nobody is told of what was forgotten');
  t.false(content.isLost);
});

test('what was used least recently is overwritten first', (t) => {
  const pool = createReadPool(32 * MIB);
  const read = Array.from({length: 32}, () => readOnce(pool));
  const [first, second] = read;
  if (!first || !second) throw new Error('nothing was read');
  pool.hold(first.buffer);
  pool.release(first.buffer);
  t.is(pool.take(MIB).bytes, second.buffer.bytes);
  t.true(second.content.isLost);
  t.false(first.content.isLost);
});

test('what was demoted is overwritten first, the last one before the others, unless it is read again', (t) => {
  const pool = createReadPool(32 * MIB);
  const read = Array.from({length: 32}, () => readOnce(pool).buffer);
  const [first, second, third, again] = read;
  if (!first || !second || !third || !again) throw new Error('nothing was read');
  for (const buffer of [again, second, third]) pool.demote(buffer);
  pool.hold(again);
  pool.demote(again);
  pool.release(again);
  const taken = Array.from({length: 3}, () => pool.take(MIB).bytes);
  t.deepEqual(
    taken.map((bytes) => read.findIndex((buffer) => buffer.bytes === bytes)),
    [2, 1, 0],
  );
});

test('memory is given back at once where another size needs it', (t) => {
  const pool = createReadPool(8 * MIB);
  const small = Array.from({length: 200}, () => pool.take(100));
  t.true(pool.allocated > 8 * MIB);
  for (const buffer of small) pool.release(buffer);
  t.true(pool.allocated <= 8 * MIB);
  t.is(pool.take(MIB).bytes.length, MIB);
  t.true(pool.allocated <= 8 * MIB);
  t.true(small.some(({bytes}) => bytes.length === 0));
});

type Step =
  | {type: 'take' | 'takeWhole'; wanted: number}
  | {type: 'hold' | 'release' | 'forget' | 'demote'; which: number};

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    fc.record({
      type: fc.constantFrom('take' as const, 'takeWhole' as const),
      wanted: fc.integer({min: 1, max: 2 * MIB}),
    }),
    fc.record({
      type: fc.constantFrom(...(['hold', 'release', 'release', 'forget', 'demote'] as const)),
      which: fc.nat(),
    }),
  ),
  {maxLength: 200},
);

test('whatever readers do, the budget is kept but for 64 KiB each, and no memory has two owners', (t) => {
  const property = fc.property(steps, fc.integer({min: 1, max: 8}), (all, mebibytes) => {
    const budget = mebibytes * MIB;
    const pool = createReadPool(budget);
    const held: PooledBuffer[] = [];
    const left = new Set<PooledBuffer>();
    const take = (buffer: PooledBuffer | undefined): void => {
      if (!buffer) return;
      buffer.lost = () => void left.delete(buffer);
      held.push(buffer);
    };
    for (const step of all) {
      if (step.type === 'take') take(pool.take(step.wanted));
      else if (step.type === 'takeWhole') take(pool.takeWhole(Math.min(step.wanted, MIB)));
      else if (step.type === 'release' && held.length > 0) {
        const [buffer] = held.splice(step.which % held.length, 1);
        if (!buffer) continue;
        pool.release(buffer);
        if (buffer.lost && !held.includes(buffer)) left.add(buffer);
      } else if (step.type === 'hold' && left.size > 0) {
        const buffer = [...left][step.which % left.size];
        if (!buffer) continue;
        pool.hold(buffer);
        left.delete(buffer);
        held.push(buffer);
      } else if (step.type === 'forget' && left.size > 0) {
        const buffer = [...left][step.which % left.size];
        if (!buffer) continue;
        pool.forget(buffer);
        left.delete(buffer);
      } else if (step.type === 'demote' && left.size > 0) {
        const buffer = [...left][step.which % left.size];
        if (buffer) pool.demote(buffer);
      }
      const inUse = new Set(held);
      const memory = new Set([...inUse, ...left].map(({bytes}) => bytes));
      t.is(memory.size, inUse.size + left.size);
      t.is(
        pool.held,
        [...inUse].reduce((sum, {bytes}) => sum + bytes.length, 0),
      );
      t.true(pool.allocated <= budget + inUse.size * 64 * KIB);
      t.true(
        [...left].every(({bytes}) => bytes.length > 0),
        'what can be read is not freed',
      );
    }
  });
  fc.assert(property, {numRuns: 200});
  t.pass();
});
