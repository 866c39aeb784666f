import {cp, mkdir, readFile, rm, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {Scope} from '../rig/scope.ts';
import type {Toolbox} from '../rig/tools.ts';
import {judgeSettings} from './judge.ts';
import {parseReport, type SuiteReport} from './results.ts';

/** For a run whose server hangs; otherwise a run takes seconds. */
const TIME_LIMIT = 3 * 60_000;
const FILES = ['junit.xml', 'results.yaml', 'report.html'];

export interface SuiteRun {
  tools: Toolbox;
  /** As in its own configuration file. */
  settings: Readonly<Record<string, unknown>>;
  /** The folder for its reports; its content is removed first. */
  folder: string;
}

/**
 * Runs the suite.
 * @returns its report, whatever its exit status.
 * @throws Error with the end of its output when its report is missing or incomplete, or when it used other settings.
 */
export async function runSuite(parent: Scope, {tools, settings, folder}: SuiteRun): Promise<SuiteReport> {
  await rm(folder, {recursive: true, force: true});
  await mkdir(folder, {recursive: true});
  const scope = await parent.child();
  try {
    const configuration = join(scope.folder, 'suite.yaml');
    const resultsDir = join(scope.folder, 'results');
    await writeFile(configuration, JSON.stringify({...settings, resultsDir})); // JSON is YAML.
    const options = {
      env: {...withoutItsVariables(process.env), OCI_CONFIGURATION: configuration},
      cwd: scope.folder,
      timeout: TIME_LIMIT,
    };
    // It exits with 1 after a failed test, and with 0 after many faults of its own: only its reports count.
    const printed = await scope.run(tools.path('conformance'), [], options).catch(messageOf);
    for (const file of FILES) await cp(join(resultsDir, file), join(folder, file)).catch(() => {});
    const report = await readReport(folder).catch((error) => {
      throw new Error(
        `the suite's report is missing or incomplete (${messageOf(error)}): ${printed.trim().slice(-500)}`,
      );
    });
    const ignored = judgeSettings(report, settings);
    if (ignored.length > 0) throw new Error(ignored.join('; '));
    return report;
  } finally {
    await scope.end();
  }
}

/** @throws Error that names the file that is missing or incomplete */
async function readReport(folder: string): Promise<SuiteReport> {
  const read = (file: string): Promise<string> =>
    readFile(join(folder, file), 'utf8').catch(() => {
      throw new Error(`there is no ${file}`);
    });
  return parseReport({junit: await read('junit.xml'), results: await read('results.yaml')});
}

/** The suite's own variables would override its configuration file. */
const withoutItsVariables = (environment: NodeJS.ProcessEnv): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(environment).filter(([name]) => !name.startsWith('OCI_')));

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
