import {Worker} from 'node:worker_threads';
import {type Change, DiskFull, type Metadata, type Precondition} from '../metadata.ts';
import type {Writes} from '../sql/metadata.ts';
import type {Failure, Outcome, Reply, Request, Setup} from './writer-thread.ts';

/** The port's `commit` and `close`. */
export type Writer = Pick<Metadata, 'commit' | 'close'>;

export interface WriterOptions {
  path: string;
  writes: Writes;
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
 * Starts the thread that makes all commits to the database at `path`. What is asked for while it works on a group
 * becomes the next group. Resolves when it can commit.
 * @throws what kept the thread from starting.
 */
export async function startWriter({path, writes, thread}: WriterOptions): Promise<Writer> {
  const setup: Setup = {path, writes};
  const worker = new Worker(thread, {workerData: setup, name: 'metadata writer'});
  const ready = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<void>();
  let queue: Waiting[] = [];
  let group: Waiting[] = [];
  let closing: Promise<void> | undefined;
  /** Why nothing more can be committed. */
  let end: Error | undefined;

  const send = (): void => {
    if (group.length > 0 || queue.length === 0) return;
    group = queue;
    queue = [];
    const transfer: ArrayBuffer[] = [];
    const request: Request = group.map(({changes, preconditions}) => ({
      changes: changes.map((change) => withOwnBytes(change, transfer)),
      preconditions,
    }));
    try {
      worker.postMessage(request, transfer);
    } catch (error) {
      // What cannot be handed to another thread fails its commit, not the process.
      const refused = group;
      group = [];
      const reason = `metadata: ${path} took no commit: it cannot be handed to the writer`;
      for (const {reject} of refused) reject(new Error(reason, {cause: error}));
    }
  };

  const settle = (outcomes: readonly Outcome[]): void => {
    const done = group;
    group = [];
    send();
    for (const [index, {resolve, reject}] of done.entries()) {
      const outcome = outcomes[index];
      if (typeof outcome === 'boolean') resolve(outcome);
      else reject(errorOf(path, outcome));
    }
  };

  const fail = (reason: string, cause?: unknown): void => {
    const error = new Error(
      `metadata: the thread that writes ${path} has ended, so nothing can be committed: ${reason}. Restart the server.`,
      {cause},
    );
    end ??= error;
    ready.reject(error);
    for (const {reject} of [...group, ...queue]) reject(error);
    group = [];
    queue = [];
  };

  const commit = (
    changes: readonly Change[],
    preconditions: readonly Precondition[] = [],
  ): Promise<boolean> => {
    if (end) return Promise.reject(end);
    return new Promise((resolve, reject) => {
      // All that is asked for in this turn goes out together.
      if (group.length === 0 && queue.length === 0) queueMicrotask(send);
      queue.push({changes, preconditions, resolve, reject});
    });
  };

  const close = async (): Promise<void> => {
    // Commits are made in order: when this one is settled, so are all before it.
    const drained = commit([]).catch(() => {});
    end ??= new Error(`metadata: ${path} is closed`);
    await drained;
    const request: Request = 'close';
    worker.postMessage(request);
    await exited.promise;
  };

  worker.on('message', (reply: Reply) => {
    if (reply === 'ready') ready.resolve();
    else settle(reply);
  });
  worker.on('error', (error) => fail(error instanceof Error ? error.message : String(error), error));
  worker.on('exit', (code) => {
    fail(`it left with code ${code}`);
    exited.resolve();
  });
  await ready.promise;

  return {
    commit,
    close() {
      closing ??= close();
      return closing;
    },
  };
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

/** SQLite's result code for a full disk (`SQLITE_FULL`). */
const FULL = 13;

function errorOf(path: string, failure: Failure | undefined): Error {
  const {message, code, errcode} = failure ?? {message: 'no outcome came back'};
  const Reason = errcode === FULL ? DiskFull : Error;
  return Object.assign(new Reason(`metadata: ${path} took no commit: ${message}`), {code, errcode});
}
