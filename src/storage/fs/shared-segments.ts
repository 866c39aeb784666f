import type {FileHandle} from 'node:fs/promises';
import type {Piece} from '../spool.ts';
import {LARGEST_READ, type PooledBuffer, type ReadPool} from './read-pool.ts';
import {endedEarly, readPiece} from './read-range.ts';

/** A smaller part is read alone, not with what surrounds it. */
const MIN_SHARED_BYTES = LARGEST_READ / 4;

/** A part of a file, aligned to the size of the largest read. */
interface Segment {
  readonly memory: PooledBuffer;
  /** Resolves when it is read. */
  readonly filled: Promise<void>;
}

/** What readers of one file share: each segment is read once for all, and stays readable while the pool has it. */
export class SharedSegments {
  readonly #pool: ReadPool;
  /** Called when a segment is lost. */
  readonly #lost: () => void;
  readonly #segments = new Map<number, Segment>();

  /** @param lost called when the pool uses the memory of a segment for something else */
  constructor(pool: ReadPool, lost: () => void = () => {}) {
    this.#pool = pool;
    this.#lost = lost;
  }

  get isEmpty(): boolean {
    return this.#segments.size === 0;
  }

  /**
   * What follows `position`, at least one byte and at most up to, but not including, `end`.
   * @param size bytes of the file that do not change any more; `end` is at most that
   * @param isShared false to read without sharing
   * @throws what the file system says, or an error when the file ends before that
   */
  async piece(
    file: FileHandle,
    {position, end, size, isShared}: {position: number; end: number; size: number; isShared: boolean},
  ): Promise<Piece> {
    const index = Math.floor(position / LARGEST_READ);
    const base = index * LARGEST_READ;
    const length = Math.min(LARGEST_READ, size - base);
    const until = Math.min(end, base + length);
    const segment =
      this.#held(index) ??
      (isShared ? this.#begun(file, index, {length, wanted: until - position}) : undefined);
    if (!segment) return readPiece(file, position, until, this.#pool);
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

  /** Lets the pool overwrite these segments before those of other files. */
  demote(): void {
    for (const {memory} of this.#segments.values()) this.#pool.demote(memory);
  }

  /** Nobody gets what was read so far; whoever has a piece of it keeps it. */
  drop(): void {
    const dropped = [...this.#segments.values()];
    this.#segments.clear();
    for (const {memory} of dropped) this.#pool.forget(memory);
  }

  /** A segment that is in memory, or being read. */
  #held(index: number): Segment | undefined {
    const segment = this.#segments.get(index);
    if (segment) this.#pool.hold(segment.memory);
    return segment;
  }

  /** Begins to read a segment for all; undefined where a reader had better read what it wants alone. */
  #begun(
    file: FileHandle,
    index: number,
    {length, wanted}: {length: number; wanted: number},
  ): Segment | undefined {
    if (wanted < MIN_SHARED_BYTES && wanted < length) return undefined;
    const memory = this.#pool.takeWhole(length);
    if (!memory) return undefined;
    const filled = fill(file, memory.bytes.subarray(0, length), index * LARGEST_READ);
    const segment = {memory, filled};
    this.#segments.set(index, segment);
    memory.lost = () => {
      if (this.#segments.get(index) === segment) this.#segments.delete(index);
      this.#lost();
    };
    filled.catch(() => {
      memory.lost?.();
      this.#pool.forget(memory);
    });
    return segment;
  }
}

/** Reads as many bytes as `into` holds. @throws Error when the file ends before that */
async function fill(file: FileHandle, into: Buffer, position: number): Promise<void> {
  let filled = 0;
  while (filled < into.length) {
    const {bytesRead} = await file.read(into, filled, into.length - filled, position + filled);
    if (bytesRead === 0) throw endedEarly(position + filled, position + into.length);
    filled += bytesRead;
  }
}
