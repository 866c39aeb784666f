import test from 'ava';
import type {ColdResult} from '../../bench/cold.ts';
import {targetsOf} from '../../bench/targets.ts';
import type {WarmResult} from '../../bench/warm.ts';

const NOTHING = {cold: [], warm: [], logins: [], referrers: undefined};
const MIB = 1024 * 1024;

const warm = (work: string, figures: WarmResult['figures']): WarmResult => ({
  work,
  unit: 'req/s',
  figures,
  errors: {},
});

const cold = (name: string, onePull: number): ColdResult => ({
  name,
  upstreamGets: 1,
  wrong: [],
  peakMemory: 151 * MIB,
  crowd: 1,
  onePull,
  warmPeak: 149.6 * MIB,
  imageRatio: 1.06,
  firstByteDelay: 1,
  throttledRatio: 1,
});

/** `work, beside`: the figure and whether the target is met. */
const judged = (results: Parameters<typeof targetsOf>[0]) =>
  Object.fromEntries(
    targetsOf(results).map(({work, beside, figure, isMet}) => [`${work}, ${beside}`, [figure, isMet]]),
  );

test('a rate is a multiple of each server’s, met or missed', (t) => {
  const targets = judged({
    ...NOTHING,
    warm: [warm('manifest by digest', {backref: 60_000, distribution: 5000, nginx: 90_000})],
  });
  t.deepEqual(targets['manifest by digest, distribution'], ['12.00 ×', true]);
  t.deepEqual(targets['manifest by digest, nginx'], ['0.67 ×', false]);
  t.deepEqual(targets['manifest by digest, zot'], ['', undefined], 'zot was not measured');
  t.deepEqual(targets['blob of 1 MiB from disk, nginx'], ['', undefined]);
});

test('times and memory have upper bounds', (t) => {
  const targets = judged({...NOTHING, cold: [cold('backref', 60), cold('distribution', 100)]});
  t.deepEqual(targets['one client, one cold blob of 100 MiB, time, distribution'], ['0.60 ×', true]);
  t.deepEqual(targets['cold image of 20 layers with crane, time, a direct pull'], ['1.06 ×', false]);
  t.deepEqual(targets['50 clients, one cold blob of 100 MiB: upstream GETs, '], ['1', true]);
  t.deepEqual(targets['50 clients, one cold blob of 100 MiB: peak memory, '], ['151 MiB', false]);
  t.deepEqual(targets['100 clients, one warm blob of 100 MiB: peak memory, '], ['150 MiB', true]);
});

test('a token’s share is judged, and nothing is listed for parts that were not run', (t) => {
  const logins = [{work: 'manifest by digest', rates: {none: 100, token: 84, basic: 50}, errors: 0}];
  t.deepEqual(judged({...NOTHING, logins}), {
    'a token checked on every request: manifest by digest, without': ['0.84 ×', false],
  });
  t.deepEqual(targetsOf(NOTHING), []);
});
