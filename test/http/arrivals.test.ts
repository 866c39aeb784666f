import {setImmediate as nextTurn} from 'node:timers/promises';
import test from 'ava';
import {createArrivals} from '../../src/http/arrivals.ts';
import {createMovableClock} from '../support/backref.ts';

function start() {
  const clock = createMovableClock();
  const begun: number[] = [];
  const arrivals = createArrivals<number>((connection) => void begun.push(connection), clock);
  return {clock, begun, arrivals};
}

test('a connection that arrives alone is read in the next turn but one', async (t) => {
  const {begun, arrivals} = start();
  arrivals.add(1);
  t.deepEqual(begun, []);
  await nextTurn();
  await nextTurn();
  t.deepEqual(begun, [1]);
});

test('connections of which one arrives in each turn are read together, in their order', async (t) => {
  const {begun, arrivals} = start();
  for (const connection of [1, 2, 3, 4]) {
    arrivals.add(connection);
    await nextTurn();
    t.deepEqual(begun, []);
  }
  await nextTurn();
  t.deepEqual(begun, [1, 2, 3, 4]);
});

test('a pause of less than a tenth of the time in which they arrived ends nothing', async (t) => {
  const {begun, arrivals, clock} = start();
  arrivals.add(1);
  await nextTurn();
  clock.move(100);
  arrivals.add(2);
  await nextTurn();
  clock.move(9);
  await nextTurn();
  t.deepEqual(begun, []);
  clock.move(1);
  await nextTurn();
  t.deepEqual(begun, [1, 2]);
});

test('nobody waits for more than two seconds', async (t) => {
  const {begun, arrivals, clock} = start();
  arrivals.add(1);
  await nextTurn();
  clock.move(1999);
  arrivals.add(2);
  await nextTurn();
  t.deepEqual(begun, []);
  clock.move(1);
  arrivals.add(3);
  await nextTurn();
  t.deepEqual(begun, [1, 2, 3]);
});

test('those that arrive after that wait for each other again', async (t) => {
  const {begun, arrivals} = start();
  arrivals.add(1);
  await nextTurn();
  await nextTurn();
  arrivals.add(2);
  await nextTurn();
  arrivals.add(3);
  await nextTurn();
  t.deepEqual(begun, [1]);
  await nextTurn();
  t.deepEqual(begun, [1, 2, 3]);
});
