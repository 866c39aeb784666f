import {parseArgs} from 'node:util';
import {createScope, endOnSignal, type Scope} from './scope.ts';

/** A command of this project that runs real servers and clients. */
export interface Command {
  /** Put before an error's text. */
  name: string;
  /** What `--help` prints. */
  usage: string;
  /** Milliseconds after which everything is stopped. */
  timeLimit: number;
  /** Its own options besides those in `Options`; each takes a text. */
  options?: readonly string[];
}

export interface Options {
  /** Empty for everything. */
  only: string;
  json: boolean;
  write: boolean;
  /** The texts of the command's own options that were given. */
  given: Readonly<Record<string, string>>;
}

/** Reports progress on standard error; results go to standard output. */
export const say = (line: string): void => void process.stderr.write(`${line}\n`);

/**
 * Runs a command with the arguments of this process and sets its exit status.
 * @param work returns the status, 0 or 1; everything that it started in the scope is stopped after it.
 */
export async function runCommand(
  {name, usage, timeLimit, options: own = []}: Command,
  work: (scope: Scope, options: Options) => Promise<number>,
): Promise<void> {
  try {
    const {help, ...options} = readArguments(own);
    if (help) return void process.stdout.write(usage);
    const scope = await createScope();
    endOnSignal(scope, timeLimit);
    try {
      process.exitCode = await work(scope, options);
    } finally {
      await scope.end();
    }
  } catch (error) {
    say(`${name}: ${error instanceof Error ? error.message : error}`);
    process.exitCode = 1;
  }
}

function readArguments(own: readonly string[]): Options & {help: boolean} {
  const {values} = parseArgs({
    options: {
      only: {type: 'string'},
      json: {type: 'boolean'},
      write: {type: 'boolean'},
      help: {type: 'boolean'},
      ...Object.fromEntries(own.map((name) => [name, {type: 'string'} as const])),
    },
  });
  const {only = '', json = false, write = false, help = false, ...given} = values;
  return {only, json, write, help, given: given as Record<string, string>};
}
