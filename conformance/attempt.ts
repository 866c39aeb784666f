import {writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {judge, judgeExtent, judgeLosses} from './judge.ts';
import type {RunOutcome} from './report.ts';
import {merge, SUITE, type SuiteReport} from './results.ts';
import type {Run} from './runs.ts';
import type {RunningServer} from './servers.ts';
import {runSuite} from './suite.ts';

/** The context of a run of the suite. */
export interface RunContext {
  tools: Toolbox;
  /** The folder for the suite's reports of all runs. */
  reports: string;
  /** The outcomes of the runs before this one. */
  earlier: readonly RunOutcome[];
}

/** Starts a run's server, runs the suite on it, judges the reports, and ends the server. Never throws. */
export async function attempt(parent: Scope, run: Run, surroundings: RunContext): Promise<RunOutcome> {
  const {tools, reports, earlier} = surroundings;
  const scope = await parent.child();
  const began = Date.now();
  const folder = join(reports, run.name.replaceAll(' ', '-'));
  const outcome = (report: SuiteReport | undefined, faults: readonly string[]): RunOutcome => ({
    run: run.name,
    server: run.server.name(tools),
    version: String(run.settings['version']),
    report,
    faults,
    ms: Date.now() - began,
    folder,
  });
  try {
    const running = await run.server.start(scope, tools);
    const parts: SuiteReport[] = [];
    for (const {name, settings} of partsOf(run, running))
      parts.push(await runSuite(scope, {tools, settings, folder: join(folder, name)}));
    const report = merge(parts);
    await writeFile(join(folder, 'server.txt'), running.process.output());
    const ended = running.process.ended() ? [`the server ended: ${running.process.output().trim()}`] : [];
    return outcome(report, [...ended, ...faultsOf(run, report, earlier)]);
  } catch (error) {
    return outcome(undefined, [error instanceof Error ? error.message : String(error)]);
  } finally {
    await scope.end();
  }
}

/** The suite's settings for each part of a run. There is one part, unless the run names branches. */
function partsOf({settings, branches}: Run, {url, data}: RunningServer) {
  const found = {...settings, registry: new URL(url).host, tls: 'disabled'};
  if (!branches) return [{name: '', settings: found}];
  return branches.map(({name, asksForData}) => ({
    name: name.replaceAll('/', '-'),
    settings: {...found, filterTest: SUITE + name, ...(asksForData && data ? {roData: data} : {})},
  }));
}

function faultsOf({aim, atLeast}: Run, report: SuiteReport, earlier: readonly RunOutcome[]): string[] {
  const extent = judgeExtent(report, atLeast);
  if (aim.kind === 'shown') return extent;
  const faults = [...extent, ...judge(report, aim.known)];
  if (!aim.beside) return faults;
  const beside = earlier.find((outcome) => outcome.run === aim.beside)?.report;
  if (!beside) return [...faults, `there is nothing to compare with, because "${aim.beside}" left no report`];
  return [...faults, ...judgeLosses(beside, report)];
}
