import {access} from 'node:fs/promises';
import {constants} from 'node:os';
import {connectCommands} from '../admin/client.ts';
import type {Commands} from '../admin/commands.ts';
import {patientClock} from '../clock.ts';
import type {Config} from '../config.ts';
import {type ConfigOptions, FAULTY, loadConfiguration} from './configuration.ts';
import {createJsonReport, createTextReport, type Wording} from './report.ts';

/** Ended by a signal: what was done until then stays. */
class Interrupted extends Error {
  readonly exitCode: number;

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`${signal}: what was done until now stays; run the command again to go on`);
    this.exitCode = 128 + constants.signals[signal];
  }
}

/** What a command that takes its time is given: a signal to end by, and whom to tell how far it is. */
export interface Task<State> {
  signal: AbortSignal;
  progress(state: State): void;
}

/** One command as the command line has it. */
export interface LiveCommand<State, Result> {
  wording: Wording<State, Result>;
  /** Looks whether it makes sense, before anything is opened. @throws Error that says why not */
  check?(config: Config): Promise<void>;
  run(commands: Commands, config: Config, task: Task<State>): Promise<Result>;
  /** 0 where it is not given. */
  exitCodeOf?(result: Result): number;
}

/**
 * Runs one command on what a configuration keeps, and tells of its progress and its result.
 * @returns the exit code: the result's; 1 when it failed, 2 for a faulty configuration, 130 or 143 after a signal.
 */
export async function runCommand<State, Result>(
  {json = false, ...options}: ConfigOptions & {json?: boolean},
  {wording, check, run, exitCodeOf = () => 0}: LiveCommand<State, Result>,
): Promise<number> {
  const loaded = await loadConfiguration({...options, json});
  if (!loaded) return FAULTY;
  const {config} = loaded;
  const report = json ? createJsonReport<State, Result>() : createTextReport(wording);
  try {
    await check?.(config);
    const result = await withCommands(config, (commands, signal) =>
      run(commands, config, {signal, progress: report.progress}),
    );
    report.result(result);
    return exitCodeOf(result);
  } catch (error) {
    report.error(error);
    return error instanceof Interrupted ? error.exitCode : 1;
  }
}

/**
 * To find nothing is no answer to who has named the wrong configuration.
 * @param purpose what the store is wanted for: "that could be indexed".
 */
export async function expectStore({storage: {metadata}}: Config, purpose: string): Promise<void> {
  try {
    await access(metadata.path);
  } catch {
    throw new Error(
      `There is no store ${purpose}: ${metadata.path} does not exist. Name the server's configuration with --config, or set storage.path.`,
    );
  }
}

/**
 * Uses the commands of the server that works on what a configuration keeps, so that it sees their effect at once; else
 * those of the store itself.
 * @param use is given a signal that the first SIGINT or SIGTERM aborts, with an Interrupted as its reason.
 */
async function withCommands<T>(
  config: Config,
  use: (commands: Commands, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const interrupted = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => interrupted.abort(new Interrupted(name)));
  const remote = await connectCommands(config.storage.path);
  if (remote) return use(remote, interrupted.signal);
  // Loaded only now: a command that speaks to a server needs none of it.
  const {createServer} = await import('../server.ts');
  const server = createServer(config, {clock: patientClock});
  try {
    return await use(await server.commands(), interrupted.signal);
  } finally {
    await server.close();
  }
}
