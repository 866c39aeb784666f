import type {Stats} from 'node:fs';
import {type FileHandle, open, stat} from 'node:fs/promises';
import type {Cancel, Clock} from '../../clock.ts';
import {errorCode} from '../../error-code.ts';
import type {Piece} from '../spool.ts';
import {createReadPool, type ReadPool} from './read-pool.ts';
import {endedEarly, piecesInTurn} from './read-range.ts';
import {SharedSegments} from './shared-segments.ts';

/** Files that do not change while they have their name. Readers of the same part share one read of it. */
export interface SharedFiles {
  /** Opens the file at `path`, or joins those who read it. @throws what the file system says */
  open(path: string): Promise<OpenFile>;
  /**
   * What is at `path` may be another file now, or none: who opens it from now on gets nothing of an earlier one, which is
   * closed with its last reader.
   */
  forget(path: string): void;
  /** The same, if these are not the properties of the file that was read last. */
  compare(path: string, properties: FileProperties): void;
  /** Closes the files that nobody reads. Those that are read are closed with their last reader. */
  close(): Promise<void>;
}

/** A file for one reader, who gets all of it, whatever becomes of its name. */
export interface OpenFile {
  /** In bytes. */
  readonly size: number;
  /**
   * The bytes from `start` up to, but not including, `end`. A chunk is valid until the next one is asked for.
   * @throws what the file system says, or an error when the file ends before `end`
   */
  read(start: number, end: number): AsyncGenerator<Uint8Array, void, void>;
  /** To be called once, when nothing is being read. */
  close(): Promise<void>;
}

/** What tells a file from another one at the same path. */
export type FileProperties = Pick<Stats, 'ino' | 'size' | 'mtimeMs'>;

/** What files are read with in one thread. */
export interface FileReading {
  readonly pool: ReadPool;
  readonly shared: SharedFiles;
}

export interface SharedFilesOptions {
  /** Is told of each path that is forgotten here, for those who read files in other threads. */
  forgotten?: ((path: string) => void) | undefined;
  /** Without it, a file is not kept open when its last reader has left. */
  clock?: Clock | undefined;
}

export function createFileReading(pool = createReadPool(), options: SharedFilesOptions = {}): FileReading {
  return {pool, shared: createSharedFiles(pool, options)};
}

export const createSharedFiles = (pool: ReadPool, options: SharedFilesOptions = {}): SharedFiles =>
  new FilesByPath(pool, options);

class FilesByPath implements SharedFiles {
  readonly #pool: ReadPool;
  readonly #forgotten: (path: string) => void;
  readonly #files = new Map<string, SharedFile>();
  readonly #kept: KeptFiles;

  constructor(pool: ReadPool, {forgotten = () => {}, clock}: SharedFilesOptions) {
    this.#pool = pool;
    this.#forgotten = forgotten;
    this.#kept = new KeptFiles(clock);
  }

  async open(path: string): Promise<OpenFile> {
    await this.#look(path);
    const file = this.#at(path);
    const handle = await file.enter();
    return {
      size: file.size,
      read: (start, end) =>
        piecesInTurn(start, end, this.#pool, (position) => file.piece(handle, position, end)),
      close: () => file.leave(),
    };
  }

  forget(path: string): void {
    this.#files.get(path)?.forget();
    this.#files.delete(path);
    this.#forgotten(path);
  }

  compare(path: string, properties: FileProperties): void {
    const file = this.#files.get(path);
    if (file && !file.isThe(properties)) this.forget(path);
  }

  close(): Promise<void> {
    return this.#kept.end();
  }

  /** Forgets an open file if another one has its path now, or none. @throws what the file system says */
  async #look(path: string): Promise<void> {
    if (!this.#files.get(path)?.isOpen) return;
    try {
      this.compare(path, await stat(path));
    } catch (error) {
      this.forget(path);
      throw error;
    }
  }

  #at(path: string): SharedFile {
    const known = this.#files.get(path);
    if (known) return known;
    const file: SharedFile = new SharedFile(path, {
      pool: this.#pool,
      kept: this.#kept,
      unused: () => {
        if (this.#files.get(path) === file) this.#files.delete(path);
      },
    });
    this.#files.set(path, file);
    return file;
  }
}

/** How many files stay open that nobody reads, in each thread. */
const MAX_KEPT = 64;
/** They stay open for at least this time, in milliseconds, and at most for twice as long. */
const KEEP_MS = 250;

/** Files that nobody reads, and that stay open for a moment: one that is asked for often is not opened each time. */
class KeptFiles {
  readonly #clock: Clock | undefined;
  /** The one that was left last at the end. */
  readonly #files = new Set<SharedFile>();
  /** Those of them that were here when the last `KEEP_MS` began. */
  #idle = new Set<SharedFile>();
  #cancel: Cancel | undefined;
  #hasEnded = false;

  constructor(clock: Clock | undefined) {
    this.#clock = clock;
  }

  /** @returns false where it has to be closed */
  add(file: SharedFile): boolean {
    if (!this.#clock || this.#hasEnded) return false;
    this.#files.add(file);
    this.#cancel ??= this.#clock.after(KEEP_MS, this.#expire);
    const [oldest] = this.#files;
    if (this.#files.size > MAX_KEPT) void oldest?.close();
    return true;
  }

  delete(file: SharedFile): void {
    this.#files.delete(file);
    this.#idle.delete(file);
  }

  /** Closes them all. */
  async clear(): Promise<void> {
    await Promise.all([...this.#files].map((file) => file.close()));
  }

  async end(): Promise<void> {
    this.#hasEnded = true;
    this.#cancel?.();
    await this.clear();
  }

  readonly #expire = (): void => {
    for (const file of this.#idle) void file.close();
    this.#idle = new Set(this.#files);
    this.#cancel = this.#idle.size > 0 ? this.#clock?.after(KEEP_MS, this.#expire) : undefined;
  };
}

interface SharedFileParts {
  readonly pool: ReadPool;
  readonly kept: KeptFiles;
  /** Called when it is closed and has no segments. */
  readonly unused: () => void;
}

/**
 * One file: open while anybody reads it, and for a moment after that. The segments that the pool still has stay readable
 * when it is closed.
 */
class SharedFile {
  readonly #path: string;
  readonly #parts: SharedFileParts;
  readonly #segments: SharedSegments;
  #opened: Promise<FileHandle> | undefined;
  #readers = 0;
  #properties: FileProperties | undefined;
  /** Whether it may stay open without readers: it is what was at its path last, and could be read. */
  #isSound = false;
  #isForgotten = false;

  constructor(path: string, parts: SharedFileParts) {
    this.#path = path;
    this.#parts = parts;
    this.#segments = new SharedSegments(parts.pool, () => this.#endIfUnused());
  }

  /** In bytes, of an open file. */
  get size(): number {
    return this.#properties?.size ?? 0;
  }

  /** Whether somebody reads it, or it has stayed open. */
  get isOpen(): boolean {
    return this.#opened !== undefined;
  }

  /** Opens it for one more reader, who has to leave it. */
  async enter(): Promise<FileHandle> {
    this.#parts.kept.delete(this);
    this.#readers += 1;
    this.#opened ??= this.#open();
    try {
      return await this.#opened;
    } catch (error) {
      await this.leave();
      throw error;
    }
  }

  async leave(): Promise<void> {
    this.#readers -= 1;
    if (this.#readers > 0) return;
    // Nobody is behind who would read them next.
    this.#segments.demote();
    const isKept = this.#isSound && this.#parts.kept.add(this);
    if (!isKept) await this.#close();
  }

  /** What follows `position`, at most up to `end`. */
  async piece(handle: FileHandle, position: number, end: number): Promise<Piece> {
    if (position >= this.size) throw endedEarly(position, end);
    try {
      const range = {position, end, size: this.size, isShared: !this.#isForgotten};
      return await this.#segments.piece(handle, range);
    } catch (error) {
      this.#isSound = false;
      throw error;
    }
  }

  isThe({ino, size, mtimeMs}: FileProperties): boolean {
    const known = this.#properties;
    return !known || (known.ino === ino && known.size === size && known.mtimeMs === mtimeMs);
  }

  /** Its readers go on, each by itself. */
  forget(): void {
    this.#isForgotten = true;
    this.#isSound = false;
    this.#segments.drop();
    if (this.#readers === 0) void this.close();
  }

  /** Closes it while nobody reads it. Never rejects: its readers have got all that they had asked for. */
  async close(): Promise<void> {
    await this.#close().catch(() => {});
  }

  async #close(): Promise<void> {
    const opened = this.#opened;
    this.#opened = undefined;
    this.#parts.kept.delete(this);
    this.#endIfUnused();
    const handle = await opened?.catch(() => undefined);
    await handle?.close();
  }

  async #open(): Promise<FileHandle> {
    this.#isSound = false;
    const handle = await this.#openHandle();
    try {
      const {ino, size, mtimeMs} = await handle.stat();
      // Nobody is reading an earlier file: it would still be open.
      if (!this.isThe({ino, size, mtimeMs})) this.#segments.drop();
      this.#properties = {ino, size, mtimeMs};
      this.#isSound = !this.#isForgotten;
      return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** Those that stay open without readers give way to one that is read. */
  async #openHandle(): Promise<FileHandle> {
    try {
      return await open(this.#path);
    } catch (error) {
      if (errorCode(error) !== 'EMFILE') throw error;
      await this.#parts.kept.clear();
      return open(this.#path);
    }
  }

  #endIfUnused(): void {
    if (!this.#opened && this.#segments.isEmpty) this.#parts.unused();
  }
}
