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

/** A registry's words without what a terminal would obey, or would show in another order. Lines stay. */
export const printable = (text: string): string => text.replaceAll(/[^\P{Cc}\n]|\p{Cf}/gu, '?');

/** Where progress is drawn; `process.stderr` is one. */
export interface Screen {
  readonly isTTY?: boolean;
  readonly columns?: number;
  write(text: string): unknown;
}

export interface Progress {
  /** @param done of the work, 0 to 1. */
  show(done: number, text: string): void;
  /** Leaves the screen to what comes next. */
  end(): void;
}

/** Leaves room for a sentence within 80 columns. */
const CELLS = 12;
const USUAL_COLUMNS = 80;
/** Without a terminal, a line for so many parts of the work. */
const PARTS = 10;

const percentOf = (done: number): string => `${Math.floor(done * 100)} %`.padStart(5);

function bar(done: number): string {
  const full = Math.round(Math.min(1, done) * CELLS);
  return `[${'#'.repeat(full)}${'.'.repeat(CELLS - full)}]`;
}

/** A bar that is drawn over on a terminal; elsewhere, a line now and then. */
export function createProgress(screen: Screen): Progress {
  return screen.isTTY ? createBar(screen) : createLines(screen);
}

function createBar(screen: Screen): Progress {
  let drawn = false;
  return {
    show(done, text) {
      const line = `${bar(done)} ${percentOf(done)}  ${text}`.slice(0, (screen.columns || USUAL_COLUMNS) - 1);
      screen.write(`\r${line}\x1b[K`);
      drawn = true;
    },
    end() {
      if (drawn) screen.write('\r\x1b[K');
      drawn = false;
    },
  };
}

function createLines(screen: Screen): Progress {
  let shown = 0;
  return {
    show(done, text) {
      const part = Math.floor(done * PARTS);
      if (part <= shown) return;
      shown = part;
      screen.write(`${percentOf(done)}  ${text}\n`);
    },
    end() {},
  };
}
