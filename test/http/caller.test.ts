import test from 'ava';
import {ANONYMOUS} from '../../src/caller.ts';
import {callerOf} from '../../src/http/caller.ts';

test('the entries of Via are passed on', (t) => {
  t.deepEqual(callerOf(undefined, true), ANONYMOUS);
  t.deepEqual(callerOf('1.1 one,  1.0 two (it)', true).via, ['1.1 one', '1.0 two (it)']);
});

test('of an implausibly long Via, only the latest entries are passed on', (t) => {
  const {via} = callerOf([...Array.from({length: 3000}, () => '1.1 proxy'), '1.1 last'].join(', '), true);
  t.true(via.join(', ').length <= 1024);
  t.is(via[0], '1.1 proxy');
  t.is(via.at(-1), '1.1 last');
  t.deepEqual(callerOf('x'.repeat(30_000), true).via, []);
});
