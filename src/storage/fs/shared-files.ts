import type {Stats} from 'node:fs';
import {type FileHandle, open} from 'node:fs/promises';
import {LARGEST_READ, type PooledBuffer, type ReadPool} from './read-pool.ts';
import {endedEarly, type Piece, piecesInTurn, readPiece} from './read-range.ts';

/** Files that do not change while they have their name. Readers of the same part share one read of it. */
export interface SharedFiles {
  /** Opens the file at `path`, or joins those who read it. @throws what the file system says */
  open(path: string): Promise<OpenFile>;
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

/** A smaller part is read alone, not with what surrounds it. */
const MIN_SHARED_BYTES = LARGEST_READ / 4;

export const createSharedFiles = (pool: ReadPool): SharedFiles => new FilesByPath(pool);

class FilesByPath implements SharedFiles {
  readonly #pool: ReadPool;
  readonly #files = new Map<string, SharedFile>();

  constructor(pool: ReadPool) {
    this.#pool = pool;
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

  forget(path: string): void {
    this.#files.get(path)?.forget();
    this.#files.delete(path);
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

/** A part of a file, aligned to the size of the largest read. */
interface Segment {
  readonly memory: PooledBuffer;
  /** Resolves when it is read. */
  readonly filled: Promise<void>;
}

/** One file: open while anybody reads it. The segments that the pool still has stay readable after that. */
class SharedFile {
  readonly #path: string;
  readonly #pool: ReadPool;
  /** Called when it has neither readers nor segments. */
  readonly #unused: () => void;
  readonly #segments = new Map<number, Segment>();
  #opened: Promise<FileHandle> | undefined;
  #readers = 0;
  #properties: FileProperties | undefined;
  #isForgotten = false;

  constructor(path: string, pool: ReadPool, unused: () => void) {
    this.#path = path;
    this.#pool = pool;
    this.#unused = unused;
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
    const index = Math.floor(position / LARGEST_READ);
    const base = index * LARGEST_READ;
    const length = Math.min(LARGEST_READ, this.size - base);
    const until = Math.min(end, base + length);
    const segment = this.#held(index) ?? this.#begun(handle, index, {length, wanted: until - position});
    if (!segment) return readPiece(handle, position, until, this.#pool);
    const {memory, filled} = segment;
    const release = () => this.#pool.release(memory);
    try {
      await filled;
    } catch (error) {
      release();
      throw error;
    }
    return {bytes: memory.bytes.subarray(position - base, until - base), release};
  }

  isThe({ino, size, mtimeMs}: FileProperties): boolean {
    const known = this.#properties;
    return !known || (known.ino === ino && known.size === size && known.mtimeMs === mtimeMs);
  }

  /** Its readers go on, each by itself. */
  forget(): void {
    this.#isForgotten = true;
    this.#dropSegments();
  }

  async #open(): Promise<FileHandle> {
    const handle = await open(this.#path);
    try {
      const {ino, size, mtimeMs} = await handle.stat();
      // Nobody is reading an earlier file: it would still be open.
      if (!this.isThe({ino, size, mtimeMs})) this.#dropSegments();
      this.#properties = {ino, size, mtimeMs};
      return handle;
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** A segment that is in memory, or being read. */
  #held(index: number): Segment | undefined {
    const segment = this.#segments.get(index);
    if (segment) this.#pool.hold(segment.memory);
    return segment;
  }

  /** Begins to read a segment for all; undefined where a reader had better read what it wants alone. */
  #begun(
    handle: FileHandle,
    index: number,
    {length, wanted}: {length: number; wanted: number},
  ): Segment | undefined {
    if (this.#isForgotten || (wanted < MIN_SHARED_BYTES && wanted < length)) return undefined;
    const memory = this.#pool.takeWhole(length);
    if (!memory) return undefined;
    const filled = fill(handle, memory.bytes.subarray(0, length), index * LARGEST_READ);
    const segment = {memory, filled};
    this.#segments.set(index, segment);
    memory.lost = () => {
      if (this.#segments.get(index) === segment) this.#segments.delete(index);
      this.#endIfUnused();
    };
    filled.catch(() => {
      memory.lost?.();
      this.#pool.forget(memory);
    });
    return segment;
  }

  #dropSegments(): void {
    const dropped = [...this.#segments.values()];
    this.#segments.clear();
    for (const {memory} of dropped) this.#pool.forget(memory);
  }

  #endIfUnused(): void {
    if (this.#readers === 0 && this.#segments.size === 0) this.#unused();
  }
}

/** Reads as many bytes as `into` holds. @throws Error when the file ends before that */
async function fill(handle: FileHandle, into: Buffer, position: number): Promise<void> {
  let filled = 0;
  while (filled < into.length) {
    const {bytesRead} = await handle.read(into, filled, into.length - filled, position + filled);
    if (bytesRead === 0) throw endedEarly(position + filled, position + into.length);
    filled += bytesRead;
  }
}
