import {accessSync, constants, statfsSync, statSync} from 'node:fs';
import {dirname} from 'node:path';
import {DatabaseSync} from 'node:sqlite';
import {pathToFileURL} from 'node:url';
import {errorCode} from '../../error-code.ts';
import {DiskFull, type DiskProblem, type Metadata} from '../metadata.ts';
import {prepareOnce, type RunSql} from './prepared.ts';
import {BUSY_TIMEOUT_MS, prepareDatabase, type ReportMigration, requireSchema} from './schema.ts';
import {createWriter, diskProblemIn, type Writer, type WriterOptions} from './writer.ts';

/**
 * The connections to one database: one that reads, and one that commits. On a disk that is read-only, or too full for the
 * files that SQLite keeps beside the database, there is only the one that reads, until `reopen` succeeds.
 */
export interface Connections {
  run: RunSql;
  commit: Metadata['commit'];
  /** Why nothing can be committed at the moment; undefined while commits succeed, or fail for other reasons. */
  readonly refusal: DiskFull | undefined;
  /** Tries to open the database for writing, while nothing can be committed. @returns whether commits are possible */
  reopen(): Promise<boolean>;
  /** A further connection that reads. The caller closes it. */
  openReader(): DatabaseSync;
  close(): Promise<void>;
}

export interface ConnectionOptions extends WriterOptions {
  /** Is told when the database has to be migrated. */
  migrating?: ReportMigration | undefined;
}

/** @throws Error when the file is not a database of backref, has another schema, or cannot be opened; it says what to do */
export const openConnections = (options: ConnectionOptions): Connections =>
  new SqliteConnections(options, openFor(options));

interface Opened {
  reader: DatabaseSync;
  writer: Writer | undefined;
  refusal: DiskFull | undefined;
}

class SqliteConnections implements Connections {
  readonly #options: WriterOptions;
  #opened: Opened;
  /** A writer that takes no more commits, while it makes those that it has. */
  #ending: Writer | undefined;
  #runSql: RunSql;
  #reopening: Promise<boolean> | undefined;
  #closing: Promise<void> | undefined;

  constructor(options: WriterOptions, opened: Opened) {
    this.#options = options;
    this.#opened = opened;
    this.#runSql = prepareOnce(opened.reader);
  }

  get refusal(): DiskFull | undefined {
    return this.#opened.refusal;
  }

  run(sql: string, parameters: readonly unknown[]): readonly unknown[] {
    return this.#runSql(sql, parameters);
  }

  openReader(): DatabaseSync {
    const writer = this.#opened.writer ?? this.#ending;
    return writer ? openReader(this.#options.path) : openOnlyReader(this.#options.path);
  }

  async commit(...commit: Parameters<Metadata['commit']>): Promise<boolean> {
    const opened = this.#opened;
    const {writer, refusal} = opened;
    if (!writer) throw refusal;
    try {
      const done = await writer.commit(...commit);
      opened.refusal = undefined;
      return done;
    } catch (error) {
      if (error instanceof DiskFull && error.problem === 'read-only') opened.refusal = error;
      throw error;
    }
  }

  reopen(): Promise<boolean> {
    this.#reopening ??= this.#reopen().finally(() => {
      this.#reopening = undefined;
    });
    return this.#reopening;
  }

  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const {reader, writer} = this.#opened;
    if (reader.isOpen) reader.close();
    await writer?.close();
    await this.#reopening;
  }

  async #reopen(): Promise<boolean> {
    const {refusal, writer} = this.#opened;
    if (refusal === undefined) return true;
    if (problemOf(this.#options.path) === 'read-only') return false;
    // A commit that is made in the meantime is refused for the disk: the old writer would say that it is closed.
    this.#opened = {...this.#opened, writer: undefined};
    this.#ending = writer;
    await writer?.close();
    this.#ending = undefined;
    if (this.#closing) return false;
    return this.#openReaderAnew(refusal) && this.#openWriter();
  }

  /** In one go, so that no read comes in between: connections to a read-only disk make further ones read-only as well. */
  #openReaderAnew(refusal: DiskFull): boolean {
    const {path} = this.#options;
    if (this.#opened.reader.isOpen) this.#opened.reader.close();
    try {
      prepareDatabase(path);
      this.#readFrom(openReader(path), refusal);
      return true;
    } catch {
      this.#readWithoutWriting(refusal);
      return false;
    }
  }

  #readWithoutWriting(refusal: DiskFull): void {
    try {
      this.#readFrom(openOnlyReader(this.#options.path), refusal);
    } catch (error) {
      // The next attempt may find the disk in a better state.
      this.#runSql = () => {
        throw error;
      };
    }
  }

  #readFrom(reader: DatabaseSync, refusal: DiskFull): void {
    this.#opened = {reader, writer: undefined, refusal};
    this.#runSql = prepareOnce(reader);
  }

  #openWriter(): boolean {
    this.#opened = {reader: this.#opened.reader, writer: createWriter(this.#options), refusal: undefined};
    return true;
  }
}

/** Opens the database for reading and writing, or for reading alone where the disk does not let it be written. */
function openFor(options: ConnectionOptions): Opened {
  try {
    return openWritable(options);
  } catch (error) {
    const {path} = options;
    const problem = problemIn(error, path);
    if (problem === undefined) throw error;
    return {reader: readableOr(error, path), writer: undefined, refusal: refusalOf(path, problem, error)};
  }
}

/** @throws what keeps the database from being read and written */
function openWritable(options: ConnectionOptions): Opened {
  const {path, migrating} = options;
  prepareDatabase(path, migrating);
  // SQLite opens a file on a read-only disk all the same, and only fails to change it.
  if (problemOf(path) === 'read-only') throw refusalOf(path, 'read-only');
  return {reader: openReader(path), writer: createWriter(options), refusal: undefined};
}

function openReader(path: string): DatabaseSync {
  const database = new DatabaseSync(path, {readOnly: true, timeout: BUSY_TIMEOUT_MS});
  // KiB: a list of ten thousand referrers, or the inner pages of the indexes of a million manifests, which SQLite's own
  // 2 MiB would have it read from the file each time.
  database.exec('pragma cache_size = -16000');
  return database;
}

/** @throws the first error when there is no database to read; Error when its schema is another one */
function readableOr(first: unknown, path: string): DatabaseSync {
  let database: DatabaseSync;
  let isEmpty: boolean;
  try {
    database = openOnlyReader(path);
    isEmpty = database.prepare('select 1 from sqlite_schema').get() === undefined;
  } catch {
    throw first;
  }
  if (isEmpty) throw first;
  requireSchema(database, path);
  return database;
}

/**
 * A connection that needs nothing to be written. SQLite, "Immutable database": without a log, and while nobody writes,
 * the file alone is the database. With a log, what a process that was killed left beside it is used.
 */
function openOnlyReader(path: string): DatabaseSync {
  const log = statSync(`${path}-wal`, {throwIfNoEntry: false});
  if (log && log.size > 0) return openReader(path);
  const url = pathToFileURL(path);
  url.search = 'immutable=1';
  return new DatabaseSync(url, {readOnly: true});
}

const PROBLEM_TEXT: Record<DiskProblem, string> = {
  full: 'its disk is full',
  'read-only': 'its disk is read-only',
  failing: 'its disk is full, a quota is used up, or the disk fails',
};

const refusalOf = (path: string, problem: DiskProblem, cause?: unknown): DiskFull =>
  new DiskFull(problem, `metadata: ${path} can only be read: ${PROBLEM_TEXT[problem]}`, {cause});

/** With fewer free bytes, the log and its index may have no room. */
const MIN_FREE_BYTES = 1024 * 1024;
const SQLITE_CORRUPT = 11;
const SQLITE_CANTOPEN = 14;

/** What keeps the database from being written, when it is the disk. A wrong path, missing permission or a damaged file is not. */
function problemIn(error: unknown, path: string): DiskProblem | undefined {
  if (error instanceof DiskFull) return error.problem;
  const errcode = errcodeIn(error);
  const primary = (errcode ?? 0) & 0xff;
  const found = diskProblemIn(errcode);
  if (primary === SQLITE_CORRUPT) return undefined;
  const ofFolder = problemOf(dirname(path));
  if (found === undefined || primary === SQLITE_CANTOPEN) return ofFolder;
  return found === 'failing' ? (ofFolder ?? found) : found;
}

/** SQLite's code in an error or in what caused it. */
function errcodeIn(error: unknown): number | undefined {
  if (!(error instanceof Error)) return undefined;
  return 'errcode' in error ? Number(error.errcode) : errcodeIn(error.cause);
}

/** What a disk says of itself. @param path of a file or a folder on it */
function problemOf(path: string): DiskProblem | undefined {
  try {
    accessSync(path, constants.W_OK);
    const {bavail, bsize, files, ffree} = statfsSync(path);
    const isFull = bavail * bsize < MIN_FREE_BYTES || (files > 0 && ffree === 0);
    return isFull ? 'full' : undefined;
  } catch (error) {
    return errorCode(error) === 'EROFS' ? 'read-only' : undefined;
  }
}
