import test from 'ava';
import {createVerdicts} from '../../src/identity/verdicts.ts';

test('verdicts are found by the whole token, and forgotten one by one', (t) => {
  const verdicts = createVerdicts<number>();
  const long = 'x'.repeat(16_000);
  verdicts.set(`${long}a`, 1);
  verdicts.set(`${long}b`, 2);
  t.is(verdicts.get(`${long}a`), 1);
  t.is(verdicts.get(`${long}b`), 2);
  t.is(verdicts.get(long), undefined);
  verdicts.delete(`${long}a`);
  t.is(verdicts.get(`${long}a`), undefined);
});

test('their memory is bounded by the lengths of the tokens: the least recently used go first', (t) => {
  const verdicts = createVerdicts<number>();
  const tokenOf = (index: number) => `${index} ${'x'.repeat(15_000)}`;
  for (let index = 0; index < 2000; index += 1) {
    verdicts.set(tokenOf(index), index);
    verdicts.get(tokenOf(0));
  }
  const kept = Array.from({length: 2000}, (_, index) => verdicts.get(tokenOf(index))).filter(
    (verdict) => verdict !== undefined,
  );
  t.true(kept.length > 1000 && kept.length < 1400, String(kept.length));
  t.is(kept[0], 0);
  t.is(kept.at(-1), 1999);
});
