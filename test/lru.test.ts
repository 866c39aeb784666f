import test from 'ava';
import {createLru} from '../src/lru.ts';

test('the least recently used entry leaves first', (t) => {
  const left: [string, number][] = [];
  const cache = createLru<string, number>(2, {dispose: (value, key) => void left.push([key, value])});
  cache.set('a', 1);
  cache.set('b', 2);
  cache.get('a');
  cache.set('c', 3);
  t.deepEqual(left, [['b', 2]]);
  t.deepEqual(
    [...cache.entries()],
    [
      ['c', 3],
      ['a', 1],
    ],
  );
});

test('a cache takes memory for the entries it has, not for those it may have', (t) => {
  const count = 1000;
  const before = process.memoryUsage().heapUsed;
  const caches = Array.from({length: count}, () => createLru<string, number>(1_000_000));
  const grown = process.memoryUsage().heapUsed - before;
  t.is(caches.length, count);
  t.true(grown < 64 * 1024 * count, `${grown} bytes for ${count} empty caches`);
});

test('entries count as their size where it is given', (t) => {
  const cache = createLru<string, number>(10, {sizeOf: (value) => value});
  cache.set('a', 6);
  cache.set('b', 4);
  cache.set('c', 1);
  t.deepEqual([...cache.keys()], ['c', 'b']);
});
