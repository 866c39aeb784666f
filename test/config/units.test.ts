import test from 'ava';
import fc from 'fast-check';
import {formatDuration, formatSize, parseDuration, parseSize} from '../../src/config/units.ts';

test('a duration is a number with a unit, in milliseconds', (t) => {
  const durations = {
    '500ms': 500,
    '60s': 60_000,
    '5m': 300_000,
    '12h': 43_200_000,
    '7d': 604_800_000,
    '1.5s': 1500,
  };
  for (const [text, ms] of Object.entries(durations)) t.is(parseDuration(text), ms, text);
});

test('0 is the only duration without a unit', (t) => {
  t.is(parseDuration(0), 0);
  t.is(parseDuration('0'), 0);
  for (const value of [60, '60', '', 's', '-1s', '1 fortnight', '1s1s', null, true, ['1s']])
    t.is(parseDuration(value), undefined, String(value));
});

test('a size is a number of bytes, or one with a decimal or binary unit in any case', (t) => {
  const sizes = {
    '256MiB': 268_435_456,
    '1GB': 1e9,
    '1.5 GiB': 1_610_612_736,
    '10kb': 10_000,
    '42': 42,
    '7B': 7,
  };
  for (const [text, bytes] of Object.entries(sizes)) t.is(parseSize(text), bytes, text);
  t.is(parseSize(4096), 4096);
});

test('anything else is not a size', (t) => {
  for (const value of ['256M', 'MiB', '-1', -1, 1.5, Number.NaN, '99999999TiB', '', undefined, {}])
    t.is(parseSize(value), undefined, String(value));
});

test('any number of milliseconds survives being written and read', (t) => {
  fc.assert(fc.property(fc.maxSafeNat(), (ms) => parseDuration(formatDuration(ms)) === ms));
  t.pass();
});

test('any number of bytes survives being written and read', (t) => {
  fc.assert(fc.property(fc.maxSafeNat(), (bytes) => parseSize(formatSize(bytes)) === bytes));
  t.pass();
});

test('any text is a safe whole number, or undefined', (t) => {
  const quantity = fc.oneof(fc.string(), fc.stringMatching(/^\d{0,20}\.?\d{0,20} ?[a-zA-Z]{0,3}$/));
  fc.assert(
    fc.property(quantity, (text) =>
      [parseDuration(text), parseSize(text)].every(
        (result) => result === undefined || (Number.isSafeInteger(result) && result >= 0),
      ),
    ),
  );
  t.pass();
});
