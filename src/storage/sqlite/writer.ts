import {Worker} from 'node:worker_threads';
import {type Change, DiskFull, type DiskProblem, type Metadata, type Precondition} from '../metadata.ts';
import type {Writes} from '../sql/metadata.ts';
import type {CommitFailure, CommitOutcome, Setup, WriterReply, WriterRequest} from './writer-thread.ts';

/** The port's `commit` and `close`. */
export type Writer = Pick<Metadata, 'commit' | 'close'>;

export interface WriterOptions {
  path: string;
  /** Compiles the statements; called when the thread starts. */
  writes(): Writes;
  /** The thread's program, `writer-thread`. */
  thread: URL;
}

interface Waiting {
  changes: readonly Change[];
  preconditions: readonly Precondition[];
  resolve: (committed: boolean) => void;
  reject: (error: Error) => void;
}

/**
 * Makes all commits to the database at `path` in a thread of its own. What is asked for while it works on a group becomes
 * the next group. The thread starts with the first commit: a server that nothing is stored in needs none, and its memory
 * is a tenth of an idle server's. What keeps it from starting fails the commits.
 */
export function createWriter(options: WriterOptions): Writer {
  const writer = new ThreadWriter(options);
  return {
    commit: (changes, preconditions) => writer.commit(changes, preconditions),
    close: () => writer.close(),
  };
}

class ThreadWriter implements Writer {
  readonly #options: WriterOptions;
  readonly #exited = Promise.withResolvers<void>();
  #worker: Worker | undefined;
  #queue: Waiting[] = [];
  /** What the thread works on. */
  #group: Waiting[] = [];
  #closing: Promise<void> | undefined;
  /** Why nothing more can be committed. */
  #end: Error | undefined;

  constructor(options: WriterOptions) {
    this.#options = options;
  }

  #start(): Worker {
    const {path, writes, thread} = this.#options;
    const setup: Setup = {path, writes: writes()};
    const worker = new Worker(thread, {workerData: setup, name: 'metadata writer'});
    worker.on('message', (reply: WriterReply) => this.#deliver(reply));
    worker.on('error', (error) => this.#fail(error instanceof Error ? error.message : String(error), error));
    worker.on('exit', (code) => {
      this.#fail(`it exited with code ${code}`);
      this.#exited.resolve();
    });
    return worker;
  }

  commit(changes: readonly Change[], preconditions: readonly Precondition[] = []): Promise<boolean> {
    if (this.#end) return Promise.reject(this.#end);
    return new Promise((resolve, reject) => {
      // Everything that is asked for before the next microtask goes out together.
      if (this.#group.length === 0 && this.#queue.length === 0) queueMicrotask(() => this.#send());
      this.#queue.push({changes, preconditions, resolve, reject});
    });
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const isUsed = this.#worker !== undefined || this.#queue.length > 0;
    // Commits are made in order: when this one has ended, so have all before it.
    const drained = isUsed ? this.commit([]).catch(() => {}) : undefined;
    this.#end ??= new Error(`metadata: ${this.#options.path} is closed`);
    await drained;
    if (!this.#worker) return;
    const request: WriterRequest = 'close';
    this.#worker.postMessage(request);
    await this.#exited.promise;
  }

  #send(): void {
    if (this.#group.length > 0 || this.#queue.length === 0) return;
    this.#group = this.#queue;
    this.#queue = [];
    const transfer: ArrayBuffer[] = [];
    const request: WriterRequest = this.#group.map(({changes, preconditions}) => ({
      changes: changes.map((change) => withOwnBytes(change, transfer)),
      preconditions,
    }));
    try {
      this.#worker ??= this.#start();
      this.#worker.postMessage(request, transfer);
    } catch (error) {
      // What cannot be sent to another thread fails its commit, not the process.
      const refused = this.#group;
      this.#group = [];
      const reason = `metadata: ${this.#options.path} took no commit: it cannot be handed to the writer`;
      for (const {reject} of refused) reject(new Error(reason, {cause: error}));
    }
  }

  /** Gives each commit of the group its outcome, once the next group is on its way. */
  #deliver(outcomes: readonly CommitOutcome[]): void {
    const done = this.#group;
    this.#group = [];
    this.#send();
    for (const [index, {resolve, reject}] of done.entries()) {
      const outcome = outcomes[index];
      if (typeof outcome === 'boolean') resolve(outcome);
      else reject(errorOf(this.#options.path, outcome));
    }
  }

  #fail(reason: string, cause?: unknown): void {
    const error = new Error(
      `metadata: the thread that writes ${this.#options.path} has ended, so nothing can be committed: ${reason}. Restart the server.`,
      {cause},
    );
    this.#end ??= error;
    for (const {reject} of [...this.#group, ...this.#queue]) reject(error);
    this.#group = [];
    this.#queue = [];
  }
}

/**
 * The change with bytes that may be given away: a buffer of Node's pool would take all of its neighbours along, and
 * the caller's own stay as they are.
 */
function withOwnBytes(change: Change, transfer: ArrayBuffer[]): Change {
  if (change.type !== 'manifest.put') return change;
  const bytes = new Uint8Array(change.bytes);
  transfer.push(bytes.buffer);
  return {...change, bytes};
}

/**
 * What SQLite's primary result codes say of a disk that took no commit. A used-up quota is an I/O error to it: it names only
 * ENOSPC as a full disk. A database whose log cannot be created or opened cannot be opened for writing.
 */
const DISK_PROBLEMS: ReadonlyMap<number, DiskProblem> = new Map([
  [8, 'read-only'], // SQLITE_READONLY
  [10, 'failing'], // SQLITE_IOERR
  [11, 'failing'], // SQLITE_CORRUPT: also for a page whose read fails with EIO or ENXIO
  [13, 'full'], // SQLITE_FULL
  [14, 'failing'], // SQLITE_CANTOPEN
]);
/** The primary result code is the last byte of an extended one. */
const PRIMARY_CODE = 0xff;

/** @param errcode SQLite's extended result code */
export const diskProblemIn = (errcode: number | undefined): DiskProblem | undefined =>
  errcode === undefined ? undefined : DISK_PROBLEMS.get(errcode & PRIMARY_CODE);

function errorOf(path: string, failure: CommitFailure | undefined): Error {
  const {message, code, errcode} = failure ?? {message: 'no outcome came back'};
  const problem = diskProblemIn(errcode);
  const text = `metadata: ${path} took no commit: ${message}`;
  return Object.assign(problem ? new DiskFull(problem, text) : new Error(text), {code, errcode});
}
