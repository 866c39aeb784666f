import test from 'ava';
import {mapConcurrently} from '../src/concurrency.ts';

test('returns the results in the order of the items, whichever ends first', async (t) => {
  const gates = new Map(['a', 'b', 'c'].map((item) => [item, Promise.withResolvers<void>()]));
  const begun: string[] = [];
  const results = mapConcurrently([...gates.keys()], 2, async (item) => {
    begun.push(item);
    await gates.get(item)?.promise;
    return item.toUpperCase();
  });
  t.deepEqual(begun, ['a', 'b']);
  for (const item of ['b', 'c', 'a']) gates.get(item)?.resolve();
  t.deepEqual(await results, ['A', 'B', 'C']);
  t.deepEqual(begun, ['a', 'b', 'c']);
});

test('begins nothing after a failure, also when other work ends at the same moment', async (t) => {
  const failing = Promise.withResolvers<void>();
  const ending = Promise.withResolvers<void>();
  const begun: string[] = [];
  const results = mapConcurrently(['a', 'b', 'c'], 2, async (item) => {
    begun.push(item);
    await (item === 'a' ? failing : ending).promise;
  });
  failing.reject(new Error('a fails'));
  ending.resolve();
  await t.throwsAsync(results, {message: 'a fails'});
  t.deepEqual(begun, ['a', 'b']);
});
