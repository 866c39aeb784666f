/* The one thread that commits. It is started by writer.ts, with a Setup as its data. */
import {statSync} from 'node:fs';
import {DatabaseSync} from 'node:sqlite';
import {parentPort, workerData} from 'node:worker_threads';
import type {Change, Precondition} from '../metadata.ts';
import {createCommit} from '../sql/commit.ts';
import type {Writes} from '../sql/metadata.ts';
import type {Steps} from '../sql/statement.ts';
import {prepareOnce} from './prepared.ts';
import {BUSY_TIMEOUT_MS} from './schema.ts';

/** What the thread begins with. Its statements come compiled: loading the query builder here would double the start. */
export interface Setup {
  path: string;
  writes: Writes;
}

export interface Commit {
  changes: readonly Change[];
  preconditions: readonly Precondition[];
}

/** Commits that were waiting together, in their order; `close` ends the thread. */
export type WriterRequest = readonly Commit[] | 'close';

/** An error as far as it crosses between threads. */
export interface CommitFailure {
  message: string;
  code: string | undefined;
  /** SQLite's extended result code. */
  errcode: number | undefined;
}

/** Whether the preconditions held, or why nothing was changed. */
export type CommitOutcome = boolean | CommitFailure;

/** One for each commit of the group, in their order. */
export type WriterReply = readonly CommitOutcome[];

/** Commits groups on one connection. */
function createGroupCommit(
  database: DatabaseSync,
  writes: Writes,
): (group: readonly Commit[]) => CommitOutcome[] {
  const run = prepareOnce(database);
  const steps = createCommit(writes);

  const commitOne = ({changes, preconditions}: Commit): CommitOutcome => {
    run('savepoint one', []);
    try {
      const held = drive(steps(changes, preconditions));
      run('release one', []);
      return held;
    } catch (error) {
      // A full disk and its like end the whole transaction, and with it the whole group.
      if (!database.isTransaction) throw error;
      run('rollback to one', []);
      run('release one', []);
      return failureOf(error);
    }
  };

  const drive = (work: Steps<boolean>): boolean => {
    let next = work.next();
    while (!next.done) next = work.next(run(next.value.sql, next.value.parameters));
    return next.value;
  };

  const commitTogether = (group: readonly Commit[]): CommitOutcome[] => {
    // SQLite: FULL makes a commit outlast a power cut, NORMAL a crash of the process. Not inside a transaction.
    run(group.some(outlastsPowerCut) ? 'pragma synchronous = full' : 'pragma synchronous = normal', []);
    // A plain `begin` that reads and then writes fails at once where another process writes.
    run('begin immediate', []);
    try {
      const outcomes = group.map(commitOne);
      run('commit', []);
      return outcomes;
    } catch (error) {
      if (database.isTransaction) run('rollback', []);
      if (group.length === 1) throw error;
      // One that the disk has no room for takes the others' transaction along: each gets its own.
      return group.flatMap((commit) => commitGroup([commit]));
    }
  };

  /** On a full disk, the log still has the room of what it holds: copied into the database, it begins anew. */
  const commitAfterCheckpoint = (group: readonly Commit[]): CommitOutcome[] => {
    run('pragma wal_checkpoint(passive)', []);
    return commitTogether(group);
  };

  const commitGroup = (group: readonly Commit[]): CommitOutcome[] => {
    try {
      return commitTogether(group);
    } catch (error) {
      if (failureOf(error).errcode !== SQLITE_FULL) return group.map(() => failureOf(error));
    }
    try {
      return commitAfterCheckpoint(group);
    } catch (error) {
      return group.map(() => failureOf(error));
    }
  };

  return commitGroup;
}

/** Whether a commit must: a push was answered as done, and nobody else has its content or would repeat it. */
const outlastsPowerCut = ({changes}: Commit): boolean =>
  changes.some((change) => LASTING.has(change.type) || ('origin' in change && change.origin === 'local'));

const LASTING: ReadonlySet<Change['type']> = new Set([
  'manifest.delete',
  'blob.unlink',
  'tag-journal.put',
  'robot.put',
  'robot.delete',
]);

function failureOf(error: unknown): CommitFailure {
  if (!(error instanceof Error)) return {message: String(error), code: undefined, errcode: undefined};
  const {code, errcode} = error as {code?: string; errcode?: number};
  return {message: error.message, code, errcode};
}

/**
 * Of 4 KiB each, 16 MiB: when the log is copied into the database. The disk writes pages that lie all over a large database in
 * 10 us each when there are thousands, and in 17 when there are hundreds.
 */
const LOG_PAGES = 4000;
/** SQLite's primary result code for a disk that has no room. */
const SQLITE_FULL = 13;

/** Twice LOG_PAGES. A longer log is one that was always being read, so that it could not begin anew. */
const MAX_LOG_BYTES = 32 * 1024 * 1024;
/** How long a commit may have to wait for those who read the log, in milliseconds. All reads but snapshots take less. */
const READERS_TIMEOUT_MS = 100;

/**
 * Begins the log anew when it has become too long. SQLite does so by itself only at a moment in which nobody reads from
 * the log, and there is none while reads overlap. This checkpoint makes one: it lets new readers begin in the database
 * alone, and waits for the others. A snapshot can outlast it, so the next attempt is made when the log has doubled.
 */
function createLogLimit(database: DatabaseSync): () => void {
  const run = prepareOnce(database);
  // Beside the file that a symbolic link leads to.
  const log = `${database.location()}-wal`;
  let limit = MAX_LOG_BYTES;

  const beginAnew = () => {
    run(`pragma busy_timeout = ${READERS_TIMEOUT_MS}`, []);
    try {
      run('pragma wal_checkpoint(truncate)', []);
    } finally {
      run(`pragma busy_timeout = ${BUSY_TIMEOUT_MS}`, []);
    }
  };

  return () => {
    try {
      const bytes = statSync(log).size;
      if (bytes <= MAX_LOG_BYTES) limit = MAX_LOG_BYTES;
      if (bytes <= limit) return;
      limit = 2 * bytes;
      beginAnew();
    } catch {
      // A disk that fails fails the next commit as well, which reports it.
    }
  };
}

function serve({path, writes}: Setup, port: NonNullable<typeof parentPort>): void {
  const database = new DatabaseSync(path, {timeout: BUSY_TIMEOUT_MS});
  // KiB. With SQLite's own 2 MiB, a commit of some hundred rows writes the pages that it shares several times.
  database.exec('pragma cache_size = -16000');
  // Each commit of a group has a savepoint, whose journal would otherwise be a file: it took a third of the time.
  database.exec('pragma temp_store = memory');
  database.exec(`pragma wal_autocheckpoint = ${LOG_PAGES}`);
  // A log that became longer is cut when it begins anew.
  database.exec(`pragma journal_size_limit = ${MAX_LOG_BYTES}`);
  const commit = createGroupCommit(database, writes);
  const limitLog = createLogLimit(database);
  const reply = (message: WriterReply) => port.postMessage(message);

  port.on('message', (request: WriterRequest) => {
    if (request === 'close') {
      database.close();
      port.close();
      return;
    }
    reply(commit(request));
    limitLog();
  });
}

if (parentPort) serve(workerData, parentPort);
