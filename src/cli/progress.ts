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
