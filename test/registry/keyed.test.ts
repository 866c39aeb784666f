import test from 'ava';
import {createSingleFlight} from '../../src/registry/keyed.ts';

test('callers that wait for the same key share one piece of work, and all but the first learn that they did', async (t) => {
  const flight = createSingleFlight<number>();
  const {promise, resolve} = Promise.withResolvers<number>();
  let worked = 0;
  const work = () => {
    worked += 1;
    return promise;
  };
  const waiting = [1, 2, 3].map(() => flight.run('key', work));
  resolve(7);
  t.deepEqual(await Promise.all(waiting), [
    {value: 7, collapsed: false},
    {value: 7, collapsed: true},
    {value: 7, collapsed: true},
  ]);
  t.is(worked, 1);
});

test('keys do not wait for each other', async (t) => {
  const flight = createSingleFlight<string>();
  const never = flight.run('slow', () => new Promise(() => {}));
  const {value} = await flight.run('quick', async () => 'done');
  t.is(value, 'done');
  t.truthy(never);
});

test('a failure reaches every waiting caller, and no later one', async (t) => {
  const flight = createSingleFlight<string>();
  const {promise, reject} = Promise.withResolvers<string>();
  const waiting = [1, 2].map(() => flight.run('key', () => promise));
  reject(new Error('broken'));
  for (const result of await Promise.allSettled(waiting)) t.is(result.status, 'rejected');
  t.deepEqual(await flight.run('key', async () => 'well'), {value: 'well', collapsed: false});
});

test('work that throws before it returns a promise leaves nothing behind', async (t) => {
  const flight = createSingleFlight<string>();
  const broken = (): never => {
    throw new Error('at once');
  };
  await t.throwsAsync(flight.run('key', broken), {message: 'at once'});
  t.deepEqual(await flight.run('key', async () => 'well'), {value: 'well', collapsed: false});
});

test('finished work is run again at the next call', async (t) => {
  const flight = createSingleFlight<number>();
  let count = 0;
  const work = async () => ++count;
  await flight.run('key', work);
  t.deepEqual(await flight.run('key', work), {value: 2, collapsed: false});
});
