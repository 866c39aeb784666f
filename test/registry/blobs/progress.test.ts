import test from 'ava';
import {createProgress, follow} from '../../../src/registry/blobs/progress.ts';

const MIB = 1024 * 1024;

/** Bytes in memory of their own, as the chunks of a socket are. */
const chunkOf = (text: string, length = MIB): Buffer => Buffer.alloc(length, text);
const isFreed = ({buffer}: Buffer): boolean => buffer instanceof ArrayBuffer && buffer.detached;

const NOTHING_BEHIND = {
  read: () => Promise.reject(new Error('nothing is in the spool')),
  async *rest() {},
};

test('the memory of what the spool has is freed once it is far behind the head', (t) => {
  const progress = createProgress();
  const chunks = ['a', 'b', 'c', 'd'].map((text) => chunkOf(text));
  for (const [written, chunk] of chunks.entries()) progress.take(chunk, (written - 1) * MIB);

  t.deepEqual(chunks.map(isFreed), [true, true, false, false]);
  t.is(progress.inMemory(MIB), undefined);
  t.is(progress.inMemory(2 * MIB)?.bytes.toString(), chunkOf('c').toString());
});

test('a chunk that readers have is freed when the last of them goes on', async (t) => {
  const progress = createProgress();
  const chunk = chunkOf('a');
  progress.take(chunk, 0);
  progress.take(chunkOf('b'), 0);
  const readers = [follow(progress, NOTHING_BEHIND), follow(progress, NOTHING_BEHIND, 10)] as const;
  const [, second] = await Promise.all(readers.map((reader) => reader.next()));
  progress.forgetSpooled(MIB);
  t.is(progress.inMemory(0), undefined);

  await readers[0].return();
  t.false(isFreed(chunk));
  t.is(Buffer.from(second?.value ?? []).toString(), 'a'.repeat(MIB - 10));
  await readers[1].next();
  t.true(isFreed(chunk));
});

test('memory that a chunk shares with others is not freed', (t) => {
  const progress = createProgress();
  const whole = chunkOf('a');
  progress.take(whole.subarray(10), 0);
  progress.forgetSpooled(MIB);

  t.is(progress.inMemory(0), undefined);
  t.is(whole.toString(), 'a'.repeat(MIB));
});

test('a reader of what was given up learns why the download failed', async (t) => {
  const progress = createProgress();
  progress.take(chunkOf('a'), 0);
  const reader = follow(progress, NOTHING_BEHIND);
  progress.forgetSpooled(MIB);
  const failure = new Error('the upstream is gone');
  progress.fail(failure);
  t.is(await t.throwsAsync(reader.next()), failure);
});
