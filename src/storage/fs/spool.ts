import {type FileHandle, rm} from 'node:fs/promises';
import type {Piece, Spool, SpoolKey} from '../spool.ts';
import {LARGEST_READ, type ReadPool} from './read-pool.ts';
import {readPiece, readRange} from './read-range.ts';
import {SharedSegments} from './shared-segments.ts';
import {createWriteBehind, type WriteBehind} from './write-behind.ts';

export interface FileSpoolOptions {
  key: SpoolKey;
  path: string;
  /** Open for reading and writing; the spool closes it. */
  file: FileHandle;
  /** Bytes that are in the file already. */
  size: number;
  pool: ReadPool;
  /** Called once, when the path may be opened again. */
  release: () => void;
}

/**
 * A spool over an open file. A reader that is at work when the spool is discarded goes on to its end: the file lives
 * as long as it is open, under whatever name, so a published blob's readers are not cut off.
 */
export function createFileSpool({key, path, file, size, pool, release}: FileSpoolOptions): Spool {
  const content = new SpoolContent({key, file, size, pool});
  let released = false;
  let closing: Promise<void> | undefined;
  let discarding: Promise<void> | undefined;

  const giveUpPath = (): void => {
    if (!released) release();
    released = true;
  };

  const close = async (): Promise<void> => {
    await content.close();
    await discarding;
    giveUpPath();
  };

  const discard = async (): Promise<void> => {
    await content.stop();
    await rm(path, {force: true});
    giveUpPath();
    await content.closeFile();
  };

  return {
    key,
    path,
    get size() {
      return content.size;
    },
    get failure() {
      return content.failure;
    },
    append: (chunk) => content.append(chunk),
    read: (start, end) => content.read(start, end),
    piece: (start, end) => content.piece(start, end),
    flush: () => content.flush(),
    truncate: () => content.truncate(),
    async close() {
      closing ??= discarding ?? close();
      await closing;
    },
    // Once the path is given up, somebody else may open it: a spool that was closed first leaves its file there.
    async discard() {
      discarding ??= released ? Promise.resolve() : discard();
      await discarding;
    },
  };
}

/** What is in the file of a spool: one writer, any number of readers. The file is closed when the last one has left. */
class SpoolContent {
  readonly #key: SpoolKey;
  readonly #file: FileHandle;
  readonly #pool: ReadPool;
  readonly #segments: SharedSegments;
  #writer: WriteBehind;
  /** Counts truncations, so that a reader from before one cannot go on with what came after it. */
  #generation = 0;
  #readers = 0;
  #isOpen = true;
  readonly #readersLeft = Promise.withResolvers<void>();
  #fileClosed: Promise<void> | undefined;

  constructor({key, file, size, pool}: Pick<FileSpoolOptions, 'key' | 'file' | 'size' | 'pool'>) {
    this.#key = key;
    this.#file = file;
    this.#pool = pool;
    this.#segments = new SharedSegments(pool);
    this.#writer = createWriteBehind(file, size);
  }

  get size(): number {
    return this.#writer.size;
  }

  get failure(): unknown {
    return this.#writer.failure;
  }

  async append(chunk: Uint8Array): Promise<void> {
    this.#expectOpen();
    await this.#writer.append(chunk);
  }

  async *read(start: number, end: number): AsyncGenerator<Uint8Array, void, void> {
    this.#expectReadable(start, end);
    const generation = this.#generation;
    this.#readers++;
    try {
      for await (const chunk of readRange(this.#file, start, end, this.#pool)) {
        this.#expectNotEmptied(generation);
        yield chunk;
      }
    } finally {
      this.#leave();
    }
  }

  async piece(start: number, end: number): Promise<Piece> {
    this.#expectReadable(start, end);
    const generation = this.#generation;
    this.#readers++;
    try {
      const piece = await this.#pieceOf(start, end);
      if (generation !== this.#generation) piece.release();
      this.#expectNotEmptied(generation);
      return piece;
    } finally {
      this.#leave();
    }
  }

  async flush(): Promise<void> {
    this.#expectOpen();
    await this.#writer.drain();
    await this.#file.datasync();
  }

  async truncate(): Promise<void> {
    this.#expectOpen();
    this.#generation++;
    await this.#writer.stop();
    await this.#file.truncate(0);
    this.#segments.drop();
    this.#writer = createWriteBehind(this.#file, 0);
  }

  /** Writes what is left and closes the file when its readers have left. */
  async close(): Promise<void> {
    this.#isOpen = false;
    // What could not be written is not in the file, and its size says so to whoever opens it next.
    await this.#writer.drain().catch(() => {});
    await this.#closeAfterReaders();
  }

  /** Drops what is not written yet. */
  async stop(): Promise<void> {
    this.#isOpen = false;
    await this.#writer.stop();
  }

  /** Closes the file at once, or without being waited for when its last reader leaves. */
  async closeFile(): Promise<void> {
    const closed = this.#closeAfterReaders();
    if (this.#readers === 0) await closed;
    else closed.catch(() => {});
  }

  #closeAfterReaders(): Promise<void> {
    this.#fileClosed ??= (async () => {
      if (this.#readers > 0) await this.#readersLeft.promise;
      this.#segments.drop();
      await this.#file.close();
    })();
    return this.#fileClosed;
  }

  /** Only segments that are whole are shared: what follows them still grows. */
  #pieceOf(start: number, end: number): Promise<Piece> {
    const whole = this.size - (this.size % LARGEST_READ);
    if (start >= whole) return readPiece(this.#file, start, end, this.#pool);
    const range = {position: start, end: Math.min(end, whole), size: whole, isShared: true};
    return this.#segments.piece(this.#file, range);
  }

  #leave(): void {
    this.#readers--;
    if (this.#readers === 0 && this.#fileClosed) this.#readersLeft.resolve();
  }

  #expectReadable(start: number, end: number): void {
    this.#expectOpen();
    if (0 <= start && start <= end && end <= this.size) return;
    throw new RangeError(`bytes ${start} to ${end} are not within the ${this.size} that the spool holds`);
  }

  #expectNotEmptied(generation: number): void {
    if (generation !== this.#generation)
      throw new Error(`the spool of ${this.#key} was emptied while it was read`);
  }

  #expectOpen(): void {
    if (!this.#isOpen) throw new Error(`the spool of ${this.#key} is closed`);
  }
}
