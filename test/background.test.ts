import test from 'ava';
import {createBackground} from '../src/background.ts';
import {sleep} from '../src/clock.ts';
import {createEvents} from '../src/events.ts';
import {createManualClock} from './support/clock.ts';

const HOUR = 3_600_000;

function start() {
  const clock = createManualClock();
  const events = createEvents();
  const failures: string[] = [];
  events.on('background.failed', ({task, error}) => void failures.push(`${task}: ${error}`));
  return {clock, failures, background: createBackground({clock, events})};
}

test('work runs after each interval, and not before the first one has passed', async (t) => {
  const {clock, background} = start();
  let count = 0;
  background.every(HOUR, 'count', async () => void count++);
  await clock.advance(HOUR - 1);
  t.is(count, 0);
  await clock.advance(1);
  t.is(count, 1);
  await clock.advance(3 * HOUR);
  t.is(count, 4);
});

test('work that takes longer than its interval does not run twice at the same time', async (t) => {
  const {clock, background} = start();
  let count = 0;
  const {promise, resolve} = Promise.withResolvers<void>();
  background.every(HOUR, 'count', () => {
    count++;
    return promise;
  });
  await clock.advance(5 * HOUR);
  t.is(count, 1);
  resolve();
  await clock.sleeping();
  await clock.advance(HOUR);
  t.is(count, 2);
});

test('a failure is reported, and the work runs again after the next interval', async (t) => {
  const {clock, background, failures} = start();
  const fail = async () => {
    throw new Error('no');
  };
  background.once('begin', fail);
  background.every(HOUR, 'repeat', fail);
  await clock.advance(2 * HOUR);
  t.deepEqual(failures, ['begin: Error: no', 'repeat: Error: no', 'repeat: Error: no']);
});

test('close aborts running work, waits for it, and begins nothing more', async (t) => {
  const {clock, background, failures} = start();
  let began = 0;
  let ended = false;
  background.every(HOUR, 'work', async (signal) => {
    began++;
    await sleep(clock, HOUR, signal).finally(() => {
      ended = true;
    });
  });
  background.every(HOUR * 10, 'never', async () => t.fail());
  await clock.advance(HOUR);
  await background.close();
  t.true(ended);
  await clock.advance(20 * HOUR);
  t.is(began, 1);
  t.deepEqual(failures, []);
});
