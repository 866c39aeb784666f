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

async function turns(count: number): Promise<void> {
  for (let turn = 0; turn < count; turn++) await nextTurn();
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
  await turns(151);
  t.deepEqual(begun, [1, 2, 3, 4]);
});

test('the more wait, the more turns without a further one they wait for', async (t) => {
  const {begun, arrivals} = start();
  arrivals.add(1);
  arrivals.add(2);
  await turns(50);
  t.deepEqual(begun, []);
  arrivals.add(3);
  await turns(100);
  t.deepEqual(begun, []);
  await turns(2);
  t.deepEqual(begun, [1, 2, 3]);
});

test('thousands wait for no more than ten thousand turns', async (t) => {
  const {begun, arrivals} = start();
  for (let connection = 1; connection <= 1000; connection++) arrivals.add(connection);
  await turns(10_000);
  t.deepEqual(begun, []);
  await turns(2);
  t.is(begun.length, 1000);
});

test('a pause of less than a tenth of the time in which they arrived ends nothing', async (t) => {
  const {begun, arrivals, clock} = start();
  arrivals.add(1);
  await nextTurn();
  clock.move(100);
  arrivals.add(2);
  await nextTurn();
  clock.move(9);
  await turns(100);
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
  await turns(60);
  t.deepEqual(begun, [1, 2, 3]);
});
