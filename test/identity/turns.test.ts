import test from 'ava';
import {createTurns} from '../../src/identity/turns.ts';
import {OciError} from '../../src/oci/errors.ts';

test('few run at the same time, some wait for their turn, and those beyond are answered at once', async (t) => {
  const turns = createTurns({concurrency: 2, maxWaiting: 3});
  const ends = Array.from({length: 6}, () => Promise.withResolvers<void>());
  const begun: number[] = [];
  const all = ends.map(({promise}, index) =>
    turns.run(async () => {
      begun.push(index);
      await promise;
      if (index === 0) throw new Error('refused');
      return index;
    }),
  );
  const refused = await t.throwsAsync(all[5] as Promise<number>, {instanceOf: OciError});
  t.like(refused, {status: 503, headers: {'Retry-After': '5'}});
  t.deepEqual(begun, [0, 1]);
  ends[0]?.resolve();
  await t.throwsAsync(all[0] as Promise<number>, {message: 'refused'});
  t.deepEqual(begun, [0, 1, 2], 'a failure gives its turn to the next one');
  for (const {resolve} of ends) resolve();
  t.deepEqual(await Promise.all(all.slice(1, 5)), [1, 2, 3, 4]);
  t.is(await turns.run(async () => 7), 7);
});
