import {parseArgs} from 'node:util';
import {createScope, endOnSignal, type Scope} from './scope.ts';

/** A command of this project that works with real parts. */
export interface Command {
  /** Stands before the text of an error. */
  name: string;
  /** What `--help` prints. */
  usage: string;
  /** Milliseconds after which everything is ended. */
  timeLimit: number;
}

export interface Options {
  /** Empty for everything. */
  only: string;
  json: boolean;
  write: boolean;
}

/** Tells people how it goes on; what the command gives goes to standard output. */
export const say = (line: string): void => void process.stderr.write(`${line}\n`);

/**
 * Runs a command with the arguments of this process and sets its exit status.
 * @param work gives the status, 0 or 1; what it started in the scope is ended after it.
 */
export async function runCommand(
  {name, usage, timeLimit}: Command,
  work: (scope: Scope, options: Options) => Promise<number>,
): Promise<void> {
  try {
    const {help, ...options} = readArguments();
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

const readArguments = () =>
  parseArgs({
    options: {
      only: {type: 'string', default: ''},
      json: {type: 'boolean', default: false},
      write: {type: 'boolean', default: false},
      help: {type: 'boolean', default: false},
    },
  }).values;
