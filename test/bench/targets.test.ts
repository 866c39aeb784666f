import test from 'ava';
import type {ColdResult} from '../../bench/cold.ts';
import {PARTS} from '../../bench/parts.ts';
import {target} from '../../bench/targets.ts';
import type {WarmResult} from '../../bench/warm.ts';

const MIB = 1024 * 1024;

const warm = (work: string, figures: WarmResult['figures'], errors = {}): WarmResult => ({
  work,
  unit: 'req/s',
  figures,
  errors,
});

const cold = (name: string, onePull: number): ColdResult => ({
  name,
  upstreamGets: 1,
  wrong: [],
  peakMemory: 151 * MIB,
  crowd: 1,
  onePull,
  warmPeak: 149.6 * MIB,
  oneThread: undefined,
  imageRatio: 1.06,
  slowImageRatio: 1.04,
  firstByteDelay: 1,
  throttledRatio: 1,
});

const reportOf = (name: string, results: unknown) => {
  const part = PARTS.find((one) => one.name === name);
  if (!part) throw new Error(`there is no part ${name}`);
  return part.report(results, {});
};

/** `work, beside`: the figure and whether the target is met. */
const judged = (name: string, results: unknown) =>
  Object.fromEntries(
    reportOf(name, results).targets.map(({work, beside, figure, isMet}) => [
      `${work}, ${beside}`,
      [figure, isMet],
    ]),
  );

test('a rate is a multiple of each server’s, met or missed', (t) => {
  const targets = judged('warm', [
    warm('manifest by digest', {backref: 60_000, distribution: 5000, nginx: 90_000}),
  ]);
  t.deepEqual(targets['manifest by digest, distribution'], ['12.00 ×', true]);
  t.deepEqual(targets['manifest by digest, nginx'], ['0.67 ×', false]);
  t.deepEqual(targets['manifest by digest, zot'], ['', undefined], 'zot was not measured');
  t.deepEqual(targets['blob of 1 MiB from disk, nginx'], ['', undefined]);
});

test('times and memory have upper bounds', (t) => {
  const targets = judged('cold', [cold('backref', 60), cold('distribution', 100)]);
  t.deepEqual(targets['one client, one cold blob of 100 MiB, time, distribution'], ['0.60 ×', true]);
  t.deepEqual(targets['cold image of 20 layers with crane, time, a direct pull'], ['1.06 ×', false]);
  t.deepEqual(targets['50 clients, one cold blob of 100 MiB: upstream GETs, '], ['1', true]);
  t.deepEqual(targets['50 clients, one cold blob of 100 MiB: peak memory, '], ['151 MiB', false]);
  t.deepEqual(targets['100 clients, one warm blob of 100 MiB: peak memory, '], ['150 MiB', true]);
});

test('a token’s share is judged', (t) => {
  const logins = [{work: 'manifest by digest', rates: {none: 100, token: 84, basic: 50}, errors: 0}];
  t.deepEqual(judged('logins', logins), {
    'a token checked on every request: manifest by digest, without': ['0.84 ×', false],
  });
});

test('a figure on its bound meets it, and has the digits of its unit', (t) => {
  t.deepEqual(target({work: 'start', unit: 's', load: 'start'}, 0.35, {most: 0.35}), {
    work: 'start',
    beside: '',
    aim: '≤ 0.35 s',
    figure: '0.35 s',
    isMet: true,
    load: 'start',
  });
  t.is(target({work: 'lists', unit: 'ms'}, 25.04, {most: 25}).figure, '25.0 ms');
  t.is(target({work: 'GETs', unit: ''}, 2, {most: 1}).isMet, false);
});

test('wrong behaviour is a fault, whatever the figures are', (t) => {
  t.deepEqual(reportOf('warm', [warm('blob of 1 KiB', {backref: 1}, {backref: 3})]).faults, [
    'blob of 1 KiB: 3 requests failed',
  ]);
  const crowd = {...cold('backref', 1), upstreamGets: 2, wrong: ['bytes of the digest sha256:0']};
  t.deepEqual(reportOf('cold', [crowd, {...crowd, name: 'distribution'}]).faults, [
    '50 clients of one blob made 2 upstream GETs instead of 1',
    '1 of 50 clients got wrong bytes or none: bytes of the digest sha256:0',
  ]);
});

test('two workers are judged beside one with as many cores, and beside one on one core', (t) => {
  const one = (name: string, requestsPerSecond: number) => ({name, requestsPerSecond, errors: 0});
  const results = [
    one('one worker, one thread of wrk, on one core', 30),
    one('one worker, two threads of wrk, on two cores', 40),
    one('two workers, two threads of wrk, on two cores', 60),
  ];
  t.deepEqual(judged('workers', results), {
    'two workers on two cores, load from both, one worker, load from both': ['1.50 ×', false],
    'two workers on two cores, load from both, one worker and its load on one core': ['2.00 ×', true],
  });
});
