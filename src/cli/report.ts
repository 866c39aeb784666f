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
      process.stdout.write(`${wording.result(result)}\n`);
    },
    error(error) {
      progress.end();
      process.stderr.write(`${messageOf(error)}\n`);
    },
  };
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));
