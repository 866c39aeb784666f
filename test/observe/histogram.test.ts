import test from 'ava';
import fc from 'fast-check';
import {Histogram, Registry} from 'prom-client';
import {createCountedHistogram} from '../../src/observe/histogram.ts';

const OPTIONS = {name: 'a_seconds', help: 'How long it took.', labelNames: ['kind', 'outcome'] as const};
const BUCKETS = [0.001, 0.01, 1];

const added = fc.record({
  kind: fc.constantFrom('blob', 'manifest'),
  outcome: fc.constantFrom('hit', 'miss'),
  value: fc.constantFrom(0, 1, 2, 10, 11, 999, 1000, 1001, 60_000),
  count: fc.integer({min: 1, max: 5}),
});

test('its text is that of prom-client, to which each value was added by itself', async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(added), async (all) => {
      const registry = new Registry();
      const expected = new Histogram({...OPTIONS, buckets: BUCKETS, registers: [registry]});
      const histogram = createCountedHistogram({...OPTIONS, buckets: BUCKETS});
      for (const {value, count, ...labels} of all) {
        histogram.add(labels, value, count);
        for (let time = 0; time < count; time += 1) expected.observe(labels, value / 1000);
      }
      const [text, other] = [histogram.text(), await registry.metrics()].map(parsed);
      t.deepEqual(text, other);
    }),
    {numRuns: 50},
  );
});

/** The lines without the rounding of sums. */
const parsed = (text: string): string[] =>
  text
    .split('\n')
    .map((line) => line.replace(/(_sum\S*) (\S+)$/, (_, name, sum) => `${name} ${Number(sum).toFixed(3)}`));
