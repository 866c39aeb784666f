/** Where a command writes text; `process.stdout` is one. */
export interface Screen {
  readonly isTTY?: boolean;
  readonly columns?: number;
  hasColors?(): boolean;
  write(text: string): unknown;
}

/** What a command reads and writes; `process` is one. */
export interface CommandIo {
  env: NodeJS.ProcessEnv;
  stdin?: AsyncIterable<Uint8Array | string>;
  stdout: Screen;
  stderr: Screen;
}

/** Reports what a long command does. */
export interface CommandReport<State, Result> {
  progress(state: State): void;
  result(result: Result): void;
  error(error: unknown): void;
}

/** The words of a report for people. */
export interface Wording<State, Result> {
  /** How much of the work is done, 0 to 1, a line about it, and the parts that are being worked on. */
  progress(state: State): [done: number, text: string, parts?: readonly ProgressPart[]];
  result(result: Result): string;
}

/** For machines: one line of JSON on stdout for each message; the last one has `result` or `error`. */
export function createJsonReport<State, Result>({stdout}: CommandIo): CommandReport<State, Result> {
  const write = (message: object) => void stdout.write(`${JSON.stringify(message)}\n`);
  return {
    progress: (progress) => write({progress}),
    result: (result) => write({result}),
    error: (error) => write({error: {message: messageOf(error)}}),
  };
}

/** For people: progress and errors on stderr, the result on stdout. */
export function createTextReport<State, Result>(
  wording: Wording<State, Result>,
  {stdout, stderr}: CommandIo,
): CommandReport<State, Result> {
  const progress = createProgressDisplay(stderr);
  return {
    progress: (state) => progress.show(...wording.progress(state)),
    result(result) {
      progress.end();
      stdout.write(`${printable(wording.result(result))}\n`);
    },
    error(error) {
      progress.end();
      stderr.write(`${printable(messageOf(error))}\n`);
    },
  };
}

/** The exit code of a command that failed. */
const FAILED = 1;
/** The exit code of a command with wrong arguments or a faulty configuration. */
export const MISUSED = 2;

/**
 * Reports wrong arguments: to people on stderr, to machines on stdout.
 * @returns the exit code.
 */
export const misused = (problem: string, flags: {json?: boolean}, io: CommandIo): number =>
  failed(problem, flags, io, MISUSED);

/** Reports a failure of the command itself, in the same way. */
export function failed(
  problem: string,
  {json = false}: {json?: boolean},
  {stdout, stderr}: CommandIo,
  code = FAILED,
): number {
  if (json) stdout.write(`${JSON.stringify({error: {message: problem}})}\n`);
  else stderr.write(`${printable(problem)}\n`);
  return code;
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

/** Replaces control characters and those that change the order of text. Line breaks stay. */
export const printable = (text: string): string => text.replaceAll(/[^\P{Cc}\n]|\p{Cf}/gu, '?');

/** A part of the work, for a line of its own. */
export interface ProgressPart {
  /** 0 to 1. */
  done: number;
  text: string;
}

export interface ProgressDisplay {
  /** @param done how much of the work is done, 0 to 1. @param parts shown on a terminal, each with a bar of its own */
  show(done: number, text: string, parts?: readonly ProgressPart[]): void;
  /** Clears the lines for what is written next. */
  end(): void;
}

/** Characters of the bar; leaves room for a sentence within 80 columns. */
const BAR_LENGTH = 12;
const DEFAULT_COLUMNS = 80;
/** How many lines are written in total when there is no terminal. */
const MAX_LINES = 10;

const percentOf = (done: number): string => `${Math.floor(done * 100)} %`.padStart(5);

function bar(done: number): string {
  const full = Math.round(Math.min(1, done) * BAR_LENGTH);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR_LENGTH - full)}]`;
}

/** On a terminal, a bar that is redrawn in place; elsewhere a line for every tenth of the work. */
export function createProgressDisplay(screen: Screen): ProgressDisplay {
  return screen.isTTY ? createBar(screen) : createLines(screen);
}

function createBar(screen: Screen): ProgressDisplay {
  /** Lines that are on the screen; the cursor is on the last one. */
  let drawn = 0;
  const toFirst = () => (drawn > 1 ? `\x1b[${drawn - 1}A\r` : '\r');
  return {
    show(done, text, parts = []) {
      const columns = (screen.columns || DEFAULT_COLUMNS) - 1;
      const lines = [...parts, {done, text}].map((each) =>
        `${bar(each.done)} ${percentOf(each.done)}  ${printable(each.text)}`.slice(0, columns),
      );
      const rest = drawn > lines.length ? '\x1b[J' : '';
      screen.write(`${toFirst()}${lines.map((line) => `${line}\x1b[K`).join('\n')}${rest}`);
      drawn = lines.length;
    },
    end() {
      if (drawn > 0) screen.write(`${toFirst()}\x1b[${drawn > 1 ? 'J' : 'K'}`);
      drawn = 0;
    },
  };
}

function createLines(screen: Screen): ProgressDisplay {
  let shown = 0;
  return {
    show(done, text) {
      const part = Math.floor(done * MAX_LINES);
      if (part <= shown) return;
      shown = part;
      screen.write(`${percentOf(done)}  ${text}\n`);
    },
    end() {},
  };
}

/** A number as people write it: 1,000. */
export const number = (value: number): string => value.toLocaleString('en-US');

/** A number and what it counts: 1 blob, 1,000 blobs. */
export const count = (value: number, one: string, many = `${one}s`): string =>
  `${number(value)} ${value === 1 ? one : many}`;
