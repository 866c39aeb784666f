import {readdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import test, {type ExecutionContext} from 'ava';
import {attempt} from '../../conformance/attempt.ts';
import type {SuiteReport} from '../../conformance/results.ts';
import type {Run} from '../../conformance/runs.ts';
import {createScope, type Started} from '../../rig/scope.ts';
import type {Toolbox} from '../../rig/tools.ts';
import {createFolder} from '../support/folder.ts';
import {writeScript} from '../support/script.ts';
import {junitXml, resultsYaml, suiteReport, suiteTest} from './suite-report.ts';

const SETTINGS = {version: '1.1', registry: '127.0.0.1:9', tls: 'disabled'};
/** The run of a server that was never started. */
const PROCESS: Started = {
  pid: -1,
  output: () => 'it printed this',
  ended: () => false,
  kill: async () => {},
  stop: async () => {},
};
const RUN: Run = {
  name: 'made up',
  server: {
    tools: [],
    name: () => 'nothing',
    start: async () => ({url: 'http://127.0.0.1:9', process: PROCESS}),
  },
  settings: {version: '1.1'},
  atLeast: 2,
  aim: {kind: 'right', known: []},
};

/** Runs a fake suite: a shell script that gets `$results`, the folder for its reports. */
async function attemptWith(t: ExecutionContext, script: string, run: Run = RUN) {
  const folder = await createFolder(t);
  const suite = join(folder, 'suite');
  const results = 'results=$(dirname "$OCI_CONFIGURATION")/results; mkdir "$results"';
  writeScript(suite, `${results}\n${script}`);
  const tools: Toolbox = {path: () => suite, version: () => '0', missing: new Map()};
  const scope = await createScope();
  const reports = join(folder, 'reports');
  try {
    return {outcome: await attempt(scope, run, {tools, reports, earlier: []}), reports};
  } finally {
    await scope.end();
  }
}

/** A script that writes these reports. */
async function leaving(t: ExecutionContext, report: SuiteReport): Promise<string> {
  const folder = await createFolder(t);
  await writeFile(join(folder, 'junit.xml'), junitXml(report));
  await writeFile(join(folder, 'results.yaml'), resultsYaml(report));
  return `cp ${folder}/* "$results"`;
}

const GOOD = suiteReport([suiteTest('ping'), suiteTest('empty/referrers')], SETTINGS);

test('a suite that ran and passed everything is accepted, whatever its exit status', async (t) => {
  const script = await leaving(t, GOOD);
  const {outcome, reports} = await attemptWith(t, `${script}; exit 1`);
  t.deepEqual(outcome.faults, []);
  t.is(outcome.report?.totals.passed, 2);
  t.deepEqual((await readdir(join(reports, 'made-up'))).sort(), ['junit.xml', 'results.yaml', 'server.txt']);
});

test('a suite that exits with 0 without a report is a fault, with its output', async (t) => {
  const {outcome} = await attemptWith(t, 'echo failed to load config; exit 0');
  t.is(outcome.report, undefined);
  t.deepEqual(outcome.faults, [
    "the suite's report is missing or incomplete (there is no junit.xml): failed to load config",
  ]);
});

test('an incomplete report is a fault', async (t) => {
  const script = await leaving(t, GOOD);
  const {outcome} = await attemptWith(t, `${script}; rm "$results/results.yaml"`);
  t.deepEqual(outcome.faults, ["the suite's report is missing or incomplete (there is no results.yaml): "]);
});

test('a report of an earlier run is not mistaken for one of this run', async (t) => {
  const ran = join(await createFolder(t), 'ran');
  const settings = {...SETTINGS, filterTest: 'OCI Conformance Test/ping'};
  const once = `test -e ${ran} && exit 0; touch ${ran}; ${await leaving(t, {...GOOD, settings})}`;
  const branch = {name: 'ping', asksForData: false};
  const {outcome} = await attemptWith(t, once, {...RUN, branches: [branch, branch]});
  t.deepEqual(outcome.faults, ["the suite's report is missing or incomplete (there is no junit.xml): "]);
});

test('a suite that ran less than it should is a fault', async (t) => {
  const script = await leaving(t, GOOD);
  const {outcome} = await attemptWith(t, script, {...RUN, atLeast: 3});
  t.deepEqual(outcome.faults, ['only 2 tests were run, of at least 3']);
});

test('a suite that ran with other settings than it was given is a fault', async (t) => {
  const script = await leaving(t, {...GOOD, settings: {...SETTINGS, version: '1.0'}});
  const {outcome} = await attemptWith(t, script);
  t.deepEqual(outcome.faults, ['the suite ran with another version than it was given']);
});

test('a run that is compared with another needs the report of the other', async (t) => {
  const script = await leaving(t, GOOD);
  const aim = {kind: 'right', known: [], beside: 'docker-registry 1.1'} as const;
  const {outcome} = await attemptWith(t, script, {...RUN, aim});
  t.deepEqual(outcome.faults, [
    'there is nothing to compare with, because "docker-registry 1.1" left no report',
  ]);
});

test('a server that ends before the suite does is a fault', async (t) => {
  const start = async () => ({url: 'http://127.0.0.1:9', process: {...PROCESS, ended: () => true}});
  const script = await leaving(t, GOOD);
  const {outcome} = await attemptWith(t, script, {...RUN, server: {...RUN.server, start}});
  t.deepEqual(outcome.faults, ['the server ended: it printed this']);
});

test('a server that does not start is a fault', async (t) => {
  const start = () => Promise.reject(new Error('backref ended instead of getting ready'));
  const {outcome} = await attemptWith(t, 'exit 0', {...RUN, server: {...RUN.server, start}});
  t.deepEqual(outcome.faults, ['backref ended instead of getting ready']);
});
