import type {Stats} from 'node:fs';
import {type FileHandle, open} from 'node:fs/promises';
import type {Piece} from '../spool.ts';
import {createReadPool, type ReadPool} from './read-pool.ts';
import {endedEarly, piecesInTurn} from './read-range.ts';
import {SharedSegments} from './shared-segments.ts';

/** Files that do not change while they have their name. Readers of the same part share one read of it. */
export interface SharedFiles {
  /** Opens the file at `path`, or joins those who read it. @throws what the file system says */
  open(path: string): Promise<OpenFile>;
  /** Whether somebody reads the file at `path` now. */
  isOpen(path: string): boolean;
  /** What is at `path` may be another file now, or none: who opens it from now on gets nothing of an earlier one. */
  forget(path: string): void;
  /** The same, if these are not the properties of the file that was read last. */
  compare(path: string, properties: FileProperties): void;
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

/** @param forgotten as of `createSharedFiles` */
export function createFileReading(pool = createReadPool(), forgotten?: (path: string) => void): FileReading {
  return {pool, shared: createSharedFiles(pool, forgotten)};
}

/** @param forgotten told of each path that is forgotten here, for those who read files in other threads */
export const createSharedFiles = (
  pool: ReadPool,
  forgotten: (path: string) => void = () => {},
): SharedFiles => new FilesByPath(pool, forgotten);

class FilesByPath implements SharedFiles {
  readonly #pool: ReadPool;
  readonly #forgotten: (path: string) => void;
  readonly #files = new Map<string, SharedFile>();

  constructor(pool: ReadPool, forgotten: (path: string) => void) {
    this.#pool = pool;
    this.#forgotten = forgotten;
  }

  async open(path: string): Promise<OpenFile> {
    const file = this.#at(path);
    const handle = await file.enter();
    return {
      size: file.size,
      read: (start, end) =>
        piecesInTurn(start, end, this.#pool, (position) => file.piece(handle, position, end)),
      close: () => file.leave(),
    };
  }

  isOpen(path: string): boolean {
    return this.#files.get(path)?.isOpen ?? false;
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

  #at(path: string): SharedFile {
    const known = this.#files.get(path);
    if (known) return known;
    const file: SharedFile = new SharedFile(path, this.#pool, () => {
      if (this.#files.get(path) === file) this.#files.delete(path);
    });
    this.#files.set(path, file);
    return file;
  }
}

/** One file: open while anybody reads it. The segments that the pool still has stay readable after that. */
class SharedFile {
  readonly #path: string;
  /** Called when it has neither readers nor segments. */
  readonly #unused: () => void;
  readonly #segments: SharedSegments;
  #opened: Promise<FileHandle> | undefined;
  #readers = 0;
  #properties: FileProperties | undefined;
  #isForgotten = false;

  constructor(path: string, pool: ReadPool, unused: () => void) {
    this.#path = path;
    this.#segments = new SharedSegments(pool, () => this.#endIfUnused());
    this.#unused = unused;
  }

  get isOpen(): boolean {
    return this.#readers > 0;
  }

  /** In bytes, of an open file. */
  get size(): number {
    return this.#properties?.size ?? 0;
  }

  /** Opens it for one more reader, who has to leave it. */
  async enter(): Promise<FileHandle> {
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
    const opened = this.#opened;
    this.#opened = undefined;
    this.#endIfUnused();
    const handle = await opened?.catch(() => undefined);
    await handle?.close();
  }

  /** What follows `position`, at most up to `end`. */
  async piece(handle: FileHandle, position: number, end: number): Promise<Piece> {
    if (position >= this.size) throw endedEarly(position, end);
    return this.#segments.piece(handle, {position, end, size: this.size, isShared: !this.#isForgotten});
  }

  isThe({ino, size, mtimeMs}: FileProperties): boolean {
    const known = this.#properties;
    return !known || (known.ino === ino && known.size === size && known.mtimeMs === mtimeMs);
  }

  /** Its readers go on, each by itself. */
  forget(): void {
    this.#isForgotten = true;
    this.#segments.drop();
  }

  async #open(): Promise<FileHandle> {
    const handle = await open(this.#path);
    try {
      const {ino, size, mtimeMs} = await handle.stat();
      // Nobody is reading an earlier file: it would still be open.
      if (!this.isThe({ino, size, mtimeMs})) this.#segments.drop();
      this.#properties = {ino, size, mtimeMs};
      return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  #endIfUnused(): void {
    if (this.#readers === 0 && this.#segments.isEmpty) this.#unused();
  }
}
