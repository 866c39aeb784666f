import test from 'ava';
import fc from 'fast-check';
import {type RangeVerdict, rangesOf} from '../../src/http/ranges.ts';

const SIZE = 2048;
const rows: [header: string | undefined, verdict: RangeVerdict][] = [
  [undefined, 'whole'],
  ['', 'whole'],
  ['bytes=0-0', [{start: 0, end: 0}]],
  ['bytes=0-', [{start: 0, end: 2047}]],
  ['bytes=100-199', [{start: 100, end: 199}]],
  ['Bytes=100-199', [{start: 100, end: 199}]],
  ['bytes=2000-9999', [{start: 2000, end: 2047}]],
  ['bytes=-5', [{start: 2043, end: 2047}]],
  ['bytes=-2048', [{start: 0, end: 2047}]],
  ['bytes=-5000', [{start: 0, end: 2047}]],
  [`bytes=-${'9'.repeat(400)}`, [{start: 0, end: 2047}]],
  [`bytes=0-${'9'.repeat(400)}`, [{start: 0, end: 2047}]],
  ['bytes=0-1, -5000', [{start: 0, end: 2047}]],
  [
    'bytes=0-1,4-5',
    [
      {start: 0, end: 1},
      {start: 4, end: 5},
    ],
  ],
  [
    'bytes=4-5,0-1',
    [
      {start: 4, end: 5},
      {start: 0, end: 1},
    ],
  ],
  ['bytes=0-4,3-8', [{start: 0, end: 8}]],
  ['bytes=0-4,5-8', [{start: 0, end: 8}]],
  ['bytes=0-1,9000-', [{start: 0, end: 1}]],
  ['bytes=2048-', 'unsatisfiable'],
  ['bytes=500-0', 'unsatisfiable'],
  ['bytes=-0', 'unsatisfiable'],
  [`bytes=${'9'.repeat(400)}-`, 'unsatisfiable'],
  ['bytes', 'whole'],
  ['bytes=', 'whole'],
  ['bytes=-', 'whole'],
  ['bytes=--5', 'whole'],
  ['bytes=abc', 'whole'],
  ['bytes=1-x', 'whole'],
  ['bytes=1.5-2', 'whole'],
  ['bytes=+1-2', 'whole'],
  ['bytes 0-1', 'whole'],
  ['items=0-1', 'whole'],
  ['0-1', 'whole'],
];

for (const [header, verdict] of rows) {
  const title = header === undefined ? 'no header' : `"${header.slice(0, 20)}"`;
  test(`${title} of ${SIZE} bytes, ${header?.length ?? 0} characters, is ${JSON.stringify(verdict)}`, (t) => {
    t.deepEqual(rangesOf(header, SIZE), verdict);
  });
}

test('no range of an empty blob is satisfiable; without a range it is whole', (t) => {
  t.is(rangesOf('bytes=0-', 0), 'unsatisfiable');
  t.is(rangesOf('bytes=-5', 0), 'unsatisfiable');
  t.is(rangesOf(undefined, 0), 'whole');
});

test('64 parts are answered as parts, 65 as the whole', (t) => {
  const parts = (count: number) => Array.from({length: count}, (_, index) => `${2 * index}-${2 * index}`);
  t.is(rangesOf(`bytes=${parts(64)}`, SIZE).length, 64);
  t.is(rangesOf(`bytes=${parts(65)}`, SIZE), 'whole');
});

const number = fc.oneof(
  fc.nat(4000).map(String),
  fc.constantFrom('', '-', 'x', '99999999999999999999', ' 7', '+1'),
);
const header = fc.oneof(
  fc.string({unit: 'binary'}),
  fc
    .tuple(
      fc.constantFrom('bytes=', 'bytes =', 'BYTES=', 'items='),
      fc.array(
        fc.tuple(number, number).map((ends) => ends.join('-')),
        {maxLength: 8},
      ),
    )
    .map(([unit, parts]) => unit + parts.join(',')),
);

test('for any header, every part lies within the content, and no two parts overlap', (t) => {
  fc.assert(
    fc.property(header, fc.nat(4000), (text, size) => {
      const verdict = rangesOf(text, size);
      if (verdict === 'whole' || verdict === 'unsatisfiable') return true;
      const sorted = verdict.toSorted((a, b) => a.start - b.start);
      return (
        verdict.length > 0 &&
        sorted.every(({start, end}, index) => {
          const before = sorted[index - 1]?.end ?? -1;
          return Number.isSafeInteger(start) && start > before && start <= end && end < size;
        })
      );
    }),
    {numRuns: 2000},
  );
  t.pass();
});

test('a suffix of any length within the content is its end', (t) => {
  fc.assert(
    fc.property(fc.integer({min: 1, max: 10 ** 6}), fc.integer({min: 1, max: 10 ** 6}), (length, size) => {
      const verdict = rangesOf(`bytes=-${length}`, size);
      const [span] = verdict === 'whole' || verdict === 'unsatisfiable' ? [] : verdict;
      return span?.start === Math.max(0, size - length) && span.end === size - 1;
    }),
  );
  t.pass();
});
