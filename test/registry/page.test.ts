import test from 'ava';
import fc from 'fast-check';
import {byBytes, MAX_ENTRIES, pageOf, visibleInSteps} from '../../src/registry/page.ts';

const tags = ['1.0', '1.1', 'Latest', '_x', 'edge', 'latest'];

test('the order is that of the bytes', (t) => {
  t.deepEqual(['edge', '_x', 'latest', '1.1', 'Latest', '1.0', '10'].sort(byBytes), [
    '1.0',
    '1.1',
    '10',
    'Latest',
    '_x',
    'edge',
    'latest',
  ]);
});

test('without n and last everything is one page', (t) => {
  t.deepEqual(pageOf(tags, {n: undefined, last: undefined}), {entries: tags, next: undefined});
});

test('n cuts, and next is the last entry given', (t) => {
  t.deepEqual(pageOf(tags, {n: 2, last: undefined}), {entries: ['1.0', '1.1'], next: '1.1'});
});

test('a page that holds the last entry has no next', (t) => {
  t.deepEqual(pageOf(tags, {n: 6, last: undefined}).next, undefined);
  t.deepEqual(pageOf(tags, {n: 1, last: 'edge'}), {entries: ['latest'], next: undefined});
});

test('last need not be an entry', (t) => {
  t.deepEqual(pageOf(tags, {n: 1, last: '1.05'}), {entries: ['1.1'], next: '1.1'});
  t.deepEqual(pageOf(tags, {n: 1, last: ''}), {entries: ['1.0'], next: '1.0'});
});

test('the page after the last entry is empty', (t) => {
  t.deepEqual(pageOf(tags, {n: undefined, last: 'latest'}), {entries: [], next: undefined});
  t.deepEqual(pageOf(tags, {n: 5, last: 'zzz'}), {entries: [], next: undefined});
});

test('n=0 is an empty list without a next one', (t) => {
  t.deepEqual(pageOf(tags, {n: 0, last: undefined}), {entries: [], next: undefined});
});

test('an oversized n is clamped, and so is a missing one', (t) => {
  const many = Array.from({length: MAX_ENTRIES + 5}, (_, index) => String(index).padStart(6, '0'));
  for (const n of [undefined, MAX_ENTRIES + 1, 999_999_999_999_999]) {
    const {entries, next} = pageOf(many, {n, last: undefined});
    t.is(entries.length, MAX_ENTRIES);
    t.is(next, entries.at(-1));
  }
});

test('the pages of any list, put together, are the list', (t) => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.string()), fc.integer({min: 1, max: 7}), (names, n) => {
      const sorted = names.sort(byBytes);
      const seen: string[] = [];
      let last: string | undefined;
      do {
        const {entries, next} = pageOf(sorted, {n, last});
        seen.push(...entries);
        last = next;
      } while (last !== undefined);
      return seen.length === sorted.length && seen.every((name, index) => name === sorted[index]);
    }),
  );
  t.pass();
});

test('what is visible among many entries is decided in steps, between which other work runs', async (t) => {
  const order: string[] = [];
  setImmediate(() => order.push('other work'));
  const many = Array.from({length: 2500}, (_, index) => String(index));
  const visible = await visibleInSteps(many, (entry) => entry.endsWith('9'));
  order.push('done');
  t.deepEqual(order, ['other work', 'done']);
  t.deepEqual(
    visible,
    many.filter((entry) => entry.endsWith('9')),
  );
  t.deepEqual(await visibleInSteps(['a'], () => false), []);
});
