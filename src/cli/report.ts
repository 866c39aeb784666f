import {printable} from './printable.ts';
import {createProgress} from './progress.ts';

/** How a command that takes its time tells what it does. */
export interface Report<State, Result> {
  progress(state: State): void;
  result(result: Result): void;
  error(error: unknown): void;
}

/** What people read of it. */
export interface Wording<State, Result> {
  /** What is done, 0 to 1, and a line about it. */
  progress(state: State): [done: number, text: string];
  result(result: Result): string;
}

/** For machines, all of it on stdout: a line of JSON for each message, the last one with `result` or `error`. */
export function createJsonReport<State, Result>(): Report<State, Result> {
  const write = (message: object) => void process.stdout.write(`${JSON.stringify(message)}\n`);
  return {
    progress: (progress) => write({progress}),
    result: (result) => write({result}),
    error: (error) => write({error: {message: messageOf(error)}}),
  };
}

/** For people: progress and errors on stderr, the result on stdout. */
export function createTextReport<State, Result>(wording: Wording<State, Result>): Report<State, Result> {
  const progress = createProgress(process.stderr);
  return {
    progress: (state) => progress.show(...wording.progress(state)),
    result(result) {
      progress.end();
      process.stdout.write(`${printable(wording.result(result))}\n`);
    },
    error(error) {
      progress.end();
      process.stderr.write(`${printable(messageOf(error))}\n`);
    },
  };
}

/** The exit code of a command that was given wrong arguments. */
const MISUSED = 2;

/**
 * Tells what is wrong with the arguments of a command: people on stderr, machines on stdout.
 * @returns the exit code.
 */
export const misused = (problem: string, flags: {json?: boolean}): number => failed(problem, flags, MISUSED);

/** The same for what failed while the command ran. */
export function failed(problem: string, {json = false}: {json?: boolean}, code = 1): number {
  if (json) process.stdout.write(`${JSON.stringify({error: {message: problem}})}\n`);
  else process.stderr.write(`${printable(problem)}\n`);
  return code;
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
