import type {DatabaseSync} from 'node:sqlite';
import {DummyDriver, Kysely, SqliteAdapter, SqliteIntrospector, SqliteQueryCompiler} from 'kysely';
import {errorCode} from '../../error-code.ts';
import {DiskFailed, type ReportDiskFailure} from '../disk.ts';
import {DiskFull, type Metadata, type MetadataReads, type MetadataSnapshot} from '../metadata.ts';
import {compileWrites, createReads, type Writes} from '../sql/metadata.ts';
import {bind, Placeholder, type RunStatement, type Statement} from '../sql/statement.ts';
import type {Tables} from '../sql/tables.ts';
import {type Connections, openConnections} from './connections.ts';
import {prepareOnce, type RunSql} from './prepared.ts';
import type {ReportMigration} from './schema.ts';
import {diskProblemIn} from './writer.ts';

/** Metadata on a disk that may not let them be changed. */
export interface SqliteMetadata extends Metadata, Pick<Connections, 'reopen'> {
  /** Why nothing can be committed at the moment; undefined while commits succeed, or fail for other reasons. */
  refusal(): DiskFull | undefined;
}

/**
 * Metadata in one SQLite file, with its `-wal` and `-shm` beside it. Reads run on this thread and take microseconds;
 * commits are made by a thread of their own, in groups. On a disk that is full or read-only, an existing database is opened
 * for reading alone.
 * @param path of the file; it and its folder are created when they do not exist.
 * @param report is told each failure of the disk, also those of commits
 * @param migrating is told when the schema is an older one, and once it has been brought up to date
 * @throws Error when the file is not a database of backref, has a newer schema, or cannot be opened; it says what to do.
 */
export async function openSqliteMetadata({
  path,
  report = () => {},
  migrating,
}: {
  path: string;
  report?: ReportDiskFailure;
  migrating?: ReportMigration | undefined;
}): Promise<SqliteMetadata> {
  const {db, writes} = sharedStatements();
  const connections = openConnections({path, writes, thread: THREAD, migrating});
  const disk = {path, report};
  return {
    ...readsOf(db, (...query) => connections.run(...query), disk),
    snapshot: async () => reportingFailures(disk, () => openSnapshot(db, connections.openReader(), disk)),
    async commit(changes, preconditions) {
      try {
        return await connections.commit(changes, preconditions);
      } catch (error) {
        if (error instanceof DiskFull && error.problem === 'failing') report(failureOf(path, error));
        throw error;
      }
    },
    refusal: () => connections.refusal,
    reopen: () => connections.reopen(),
    close: () => connections.close(),
  };
}

/** The file of the database, and who is told when its disk fails. */
interface WatchedFile {
  path: string;
  report: ReportDiskFailure;
}

let statements: {db: Kysely<Tables>; writes(): Writes} | undefined;

/** What never varies between databases. Compiling it takes as long as everything else that opening a new one does. */
function sharedStatements() {
  if (!statements) {
    const db = createCompiler();
    let writes: Writes | undefined;
    statements = {db, writes: () => (writes ??= compileWrites(db))};
  }
  return statements;
}

function readsOf(db: Kysely<Tables>, runSql: RunSql, disk: WatchedFile): MetadataReads {
  const run: RunStatement = <Args, Row>(query: Statement<Args, Row>, args: Args) =>
    reportingFailures(disk, () => runSql(query.sql, bind(query, args))) as readonly Row[];
  return createReads(db, run);
}

/** @throws DiskFailed where SQLite says that the disk failed; what else the read throws */
function reportingFailures<T>({path, report}: WatchedFile, read: () => T): T {
  try {
    return read();
  } catch (error) {
    const errcode = error instanceof Error && 'errcode' in error ? Number(error.errcode) : undefined;
    if (!(error instanceof Error) || diskProblemIn(errcode) === undefined) throw error;
    const failure = failureOf(path, error);
    report(failure);
    throw failure;
  }
}

const failureOf = (path: string, cause: Error): DiskFailed =>
  new DiskFailed('metadata', {path, code: errorCode(cause) ?? 'SQLITE_IOERR', cause});

/** A read transaction on a connection of its own: in WAL mode it sees one state, and holds up no commit. */
function openSnapshot(db: Kysely<Tables>, database: DatabaseSync, disk: WatchedFile): MetadataSnapshot {
  // The transaction begins with its first read.
  database.exec('begin; select 1 from repository limit 1');
  return {
    ...readsOf(db, prepareOnce(database), disk),
    async close() {
      if (database.isOpen) database.close();
    },
  };
}

/** The sources run as they are, and built: the thread's program lies beside this file under the same extension. */
const THREAD = new URL(`./writer-thread${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url);

/**
 * Writes what never varies into the text. As a parameter, a value that a partial index depends on makes SQLite prepare
 * the statement anew each time, which takes ten times as long as running it.
 */
class Compiler extends SqliteQueryCompiler {
  protected override appendValue(value: unknown): void {
    if (value instanceof Placeholder) super.appendValue(value);
    else this.appendImmediateValue(value);
  }
}

/**
 * A query builder that compiles for SQLite and is connected to nothing: queries are compiled once and then run on
 * `node:sqlite` itself, which takes a third of the time and, in the writer, lets nothing in between two statements.
 */
export const createCompiler = (): Kysely<Tables> =>
  new Kysely<Tables>({
    dialect: {
      createAdapter: () => new SqliteAdapter(),
      createDriver: () => new DummyDriver(),
      createIntrospector: (db) => new SqliteIntrospector(db),
      createQueryCompiler: () => new Compiler(),
    },
  });
