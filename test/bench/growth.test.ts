import {join} from 'node:path';
import test from 'ava';
import {startContents} from '../../bench/contents.ts';
import {axisTop, drawChart, shortNumber} from '../../bench/growth/chart.ts';
import {
  EVICTED,
  fillDatabase,
  pathOf,
  REGISTRY,
  repositoryNumber,
  smallManifest,
} from '../../bench/growth/fill.ts';
import {percentile} from '../../bench/growth/mixed.ts';
import {connectionsReport, listsReport, manifestsReport, mixedReport} from '../../bench/growth/report.ts';
import type {Target} from '../../bench/targets.ts';
import {parseCounts, runHead} from '../../bench/wrk.ts';
import {createScope} from '../../rig/scope.ts';
import {parseName, parseTag} from '../../src/oci/name.ts';
import {openSqliteMetadata} from '../../src/storage/sqlite/metadata.ts';
import {createFolder} from '../support/folder.ts';

const CHART = {
  title: 'Rates < costs',
  axis: 'stored',
  steps: ['1', '10', '100'],
  panels: [
    {name: 'a second', series: [{name: 'pulls', values: [100, 80, 50]}]},
    {name: 'milliseconds', series: [{name: 'push', values: [undefined, 2, 4]}]},
  ],
};

/** The points of each line. */
const linesIn = (svg: string): number[][][] =>
  [...svg.matchAll(/<polyline class="line\d" points="([^"]*)"/g)].map(([, points = '']) =>
    points.split(' ').map((point) => point.split(',').map(Number)),
  );

test('a chart has a line for each series, whose points are where its figures are', (t) => {
  const svg = drawChart(CHART);
  const [pulls = [], push = []] = linesIn(svg);
  t.deepEqual(
    pulls.map(([, y]) => y),
    [62, 62 + 186 * 0.2, 62 + 186 * 0.5].map(Math.round),
  );
  t.is(push.length, 2, 'a figure that is missing leaves a gap');
  t.true((pulls[1]?.[0] ?? 0) > (pulls[0]?.[0] ?? 0));
  for (const [line] of svg.matchAll(/<(?:circle|polyline|text|line)[^>]*>/g))
    t.notRegex(line, /NaN|undefined/);
});

test('a chart is an XML document whatever its texts say', (t) => {
  const svg = drawChart(CHART);
  t.regex(svg, /aria-label="Rates &lt; costs"/);
  t.is(svg.match(/<text/g)?.length, svg.match(/<\/text>/g)?.length);
});

test('an axis ends at a round number that is not below any figure', (t) => {
  t.deepEqual(
    [0, 0.3, 1, 1.5, 4.1, 79, 80, 81, 9100].map((highest) => axisTop([0, highest])),
    [1, 0.4, 1, 2, 5, 80, 80, 100, 10_000],
  );
  t.is(axisTop([]), 1);
});

test('numbers on an axis are short', (t) => {
  t.deepEqual([0, 0.25, 950, 1250, 12_000, 1_500_000].map(shortNumber), [
    '0',
    '0.25',
    '950',
    '1.25 k',
    '12 k',
    '1.5 M',
  ]);
});

test('percentiles are values that occurred', (t) => {
  const values = [5, 1, 4, 2, 3];
  t.is(percentile(values, 50), 3);
  t.is(percentile(values, 99), 5);
  t.is(percentile(values, 1), 1);
  t.is(percentile([], 50), 0);
});

test('what wrk prints is read: rates by the exact time, and latencies in milliseconds', (t) => {
  const printed = 'Running 2s test\n\ncounts 2000000 5000 1000000 3\nlatency 500 900 2500 40000 81000\n';
  t.deepEqual(parseCounts(printed), {
    requestsPerSecond: 2500,
    bytesPerSecond: 500_000,
    errors: 3,
    latency: {p50: 0.5, p90: 0.9, p99: 2.5, p999: 40, longest: 81},
  });
  t.throws(() => parseCounts('unable to connect'), {message: /wrk printed no counts: unable to connect/});
});

test('the database that is made holds the manifests under their repositories, and tagged images to evict', async (t) => {
  const path = join(await createFolder(t), 'meta.db');
  await fillDatabase(path, 1500, {evicted: 3, say: () => {}});
  const metadata = await openSqliteMetadata({path});
  t.teardown(() => metadata.close());
  for (const number of [0, 999, 1000, 1499]) {
    const repository = {registry: REGISTRY, name: parseName(repositoryNumber(number))};
    const {digest, bytes} = smallManifest(`${number}`);
    t.deepEqual((await metadata.manifest(repository, digest))?.bytes, bytes);
    t.is(pathOf(number), `/v2/${repository.name}/manifests/${digest}`);
  }
  const evicted = {registry: REGISTRY, name: parseName(EVICTED)};
  t.is((await metadata.tag(evicted, parseTag('2')))?.digest, smallManifest('evicted 2').digest);
  t.is(await metadata.tag(evicted, parseTag('3')), undefined);
});

const missedIn = (targets: readonly Target[]) =>
  targets.filter(({isMet}) => isMet === false).map(({work, figure}) => [work, figure]);

const latency = {p50: 1, p90: 2, p99: 4, p999: 5, longest: 6};

test('a store whose rates fall below four fifths misses its target', (t) => {
  const rates = {hotRate: 100, spreadRate: 100, commitRate: 100, evictionRate: 100};
  const small = {size: 1000, ...rates, commitBytes: 2048, commitWrites: 1.25, errors: 0};
  const large = {...small, size: 1_000_000, spreadRate: 79, commitRate: 80, errors: 2};
  const {targets, faults, text, chart} = manifestsReport([small, large]);
  t.deepEqual(missedIn(targets), [['1,000,000 stored: manifests by digest, all over the store', '0.79 ×']]);
  t.deepEqual(faults, ['2 requests failed']);
  t.regex(text, /\| commits, a second \| ≥ 0\.8 × \| 100 \| 80 \| 0\.80 × \|/);
  t.regex(text, /\| written to files for a commit \| {2}\| 2\.0 KiB, 1\.3 times \|/);
  t.deepEqual(chart?.steps, ['1,000', '1,000,000']);
});

test('connections of which one request in a hundred waits for long miss their target', (t) => {
  const nginx = {...latency, p99: 2.5};
  const even = {connections: 10, requestsPerSecond: 1000, latency, errors: 0, nginx};
  const uneven = {...even, connections: 5000, latency: {...latency, p99: 4.1}};
  const {targets, text} = connectionsReport([even, uneven]);
  t.deepEqual(missedIn(targets), [['5,000 connections: p99', '4.10 ×']]);
  t.regex(text, /\| 5,000 \|.*\| 4\.1 × \| 2\.5 × \| 0 \|/);
});

test('lists and mixed loads are drawn with what was measured', (t) => {
  const list = {referrers: 10, firstPage: 1, filtered: 0.5, grown: 2, rate: 1000, errors: 0};
  t.regex(listsReport([list]).text, /\| 10 \| 1\.0 ms \| 0\.5 ms \| 2\.0 ms \| 1,000 \|/);
  const mixed = {
    pushers: 0,
    pullsPerSecond: 5,
    pull: {p50: 1, p99: 12},
    pushesPerSecond: 0,
    push: undefined,
    errors: 0,
  };
  const {text, chart} = mixedReport([mixed, {...mixed, pushers: 4, push: {p50: 3, p99: 9}}]);
  t.regex(text, /\| 0 \| 5 \| 1\.0 ms \| 12 ms \| 0 \| {2}\| {2}\|/);
  t.deepEqual(chart?.panels[1]?.series[1]?.values, [undefined, 9]);
});

test('HEAD requests are counted, those included whose answer is no success', async (t) => {
  const scope = await createScope();
  t.teardown(() => scope.end());
  const digest = `sha256:${'0'.repeat(64)}`;
  const contents = new Map([['/v2/app/manifests/1', {mediaType: 'text/plain', bytes: Buffer.from(digest)}]]);
  const url = await startContents(scope, contents, 0);
  const load = {connections: 2, duration: 1, prefix: []};
  const found = await runHead(scope, {...load, url: `${url}/v2/app/manifests/1`});
  t.true(found.requestsPerSecond > 0);
  t.is(found.errors, 0);
  const missing = await runHead(scope, {...load, url: `${url}/v2/app/manifests/2`});
  t.true(missing.errors > 0);
});
