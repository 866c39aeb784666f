import {access} from 'node:fs/promises';
import {constants} from 'node:os';
import {connectCommands} from '../admin/client.ts';
import type {Commands, CommandTask} from '../admin/commands.ts';
import {patientClock} from '../clock.ts';
import type {Config} from '../config.ts';
import {type ConfigOptions, loadConfiguration} from './configuration.ts';
import {type CommandIo, createJsonReport, createTextReport, type Wording} from './report.ts';

const SIGNALS = ['SIGINT', 'SIGTERM'] as const;

/** A signal ended the command. */
class InterruptedBySignal extends Error {
  readonly exitCode: number;

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`${signal}: interrupted; what was done is kept, run the command again to continue`);
    this.exitCode = 128 + constants.signals[signal];
  }
}

/** A command that works on a store, beside its server if one is running. */
export interface LiveCommand<State, Result> {
  wording: Wording<State, Result>;
  /** Runs before the store is opened. @throws Error that says why the command makes no sense */
  check?(config: Config): Promise<void>;
  run(commands: Commands, config: Config, task: CommandTask<State>): Promise<Result>;
  /** Default: 0. */
  exitCodeOf?(result: Result): number;
}

/**
 * Runs a command on the store of a configuration, and reports its progress and its result.
 * @returns the exit code: the result's; 1 when the command failed, 2 for a faulty configuration, 130 or 143 after a
 * signal.
 */
export async function runCommand<State, Result>(
  {json = false, ...options}: ConfigOptions & {json?: boolean},
  io: CommandIo,
  {wording, check, run, exitCodeOf = () => 0}: LiveCommand<State, Result>,
): Promise<number> {
  const loaded = await loadConfiguration({...options, json}, io);
  if (typeof loaded === 'number') return loaded;
  const {config} = loaded;
  const report = json ? createJsonReport<State, Result>(io) : createTextReport(wording, io);
  try {
    await check?.(config);
    const result = await withCommands(config, io, (commands, signal) =>
      run(commands, config, {signal, progress: report.progress}),
    );
    report.result(result);
    return exitCodeOf(result);
  } catch (error) {
    report.error(error);
    return error instanceof InterruptedBySignal ? error.exitCode : 1;
  }
}

/** A new, empty store would hide that the wrong configuration was named. @throws Error when there is no store */
export async function expectStore({storage: {metadata}}: Config): Promise<void> {
  try {
    await access(metadata.path);
  } catch {
    throw new Error(
      `There is no store: ${metadata.path} does not exist. Name the server's configuration with --config, or set storage.path.`,
    );
  }
}

/**
 * Uses the commands of the running server, which then sees their effect at once; without one, opens the store itself.
 * @param use its signal is aborted by the first SIGINT or SIGTERM, with an InterruptedBySignal as its reason.
 */
export async function withCommands<T>(
  config: Config,
  {env}: Pick<CommandIo, 'env'>,
  use: (commands: Commands, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const interrupted = new AbortController();
  const interrupt = (name: 'SIGINT' | 'SIGTERM') => interrupted.abort(new InterruptedBySignal(name));
  for (const name of SIGNALS) process.once(name, interrupt);
  try {
    const remote = await connectCommands(config.storage.path);
    if (remote) return await use(remote, interrupted.signal);
    // Loaded on demand: beside a running server none of it is needed.
    const {createServer} = await import('../server.ts');
    const server = createServer(config, {clock: patientClock, env});
    try {
      return await use(await server.commands(), interrupted.signal);
    } finally {
      await server.close();
    }
  } finally {
    for (const name of SIGNALS) process.off(name, interrupt);
  }
}
