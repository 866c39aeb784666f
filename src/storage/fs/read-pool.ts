const KIB = 1024;
const MIB = 1024 * KIB;
/** Sizes of buffers in bytes, the largest first. */
const SIZES = [MIB, 512 * KIB, 256 * KIB, 128 * KIB, 64 * KIB] as const;
/** The size of the largest buffer, in bytes. */
export const LARGEST_READ = SIZES[0];
const SMALLEST = 64 * KIB;
/** A buffer takes at most this share of what is free, so that buffers get smaller as readers get more. */
const SHARE = 1 / 8;
/** Of this process: a hundred clients of large blobs take no more, and a few have room to read together. */
const BUDGET = 16 * MIB;

/** The budget of each thread, in bytes. */
export const readBytesOf = (threads: number): number => Math.max(MIB, Math.floor(BUDGET / threads));

/** Memory that a file is read into. Whoever holds it may read it; nobody writes it after the read. */
export class PooledBuffer {
  readonly bytes: Buffer;
  /** How many readers use it now. */
  holders = 1;
  /** Its content may be used again until this is called; undefined when nobody will. */
  lost: (() => void) | undefined;

  constructor(bytes: Buffer) {
    this.bytes = bytes;
  }
}

/**
 * The memory of all who read files. It is used again, and what a reader has left in it stays readable until then. Buffers
 * get smaller as more of the budget is held. Once all of it is, each further one has 64 KiB, whatever the budget says:
 * waiting for clients that read slowly would stall all others.
 */
export interface ReadPool {
  /** Bytes of all buffers, whether or not somebody holds them. */
  readonly allocated: number;
  /** Bytes of the buffers that somebody holds. */
  readonly held: number;
  /** False when a reader should hold no more than it is sending. */
  readonly hasRoom: boolean;
  /** A buffer for a read of at most `wanted` bytes, 64 KiB to 1 MiB large; to be released. */
  take(wanted: number): PooledBuffer;
  /** One that holds all of the `wanted` bytes, at most 1 MiB; undefined when it would be too large a share. */
  takeWhole(wanted: number): PooledBuffer | undefined;
  /** Counts in one more who reads what is in it. */
  hold(buffer: PooledBuffer): void;
  /** Counts one out. */
  release(buffer: PooledBuffer): void;
  /** Nobody will ask for its content again. */
  forget(buffer: PooledBuffer): void;
  /** Changes the budget. @param budget bytes, at least 1 MiB. Buffers that readers hold stay until they are released */
  resize(budget: number): void;
  /**
   * Its content is wanted less than that of others: if nobody holds it, it is overwritten before them. The one that was
   * demoted last comes first, because the processor still has its memory in a cache.
   */
  demote(buffer: PooledBuffer): void;
}

/** @param budget bytes, at least 1 MiB */
export const createReadPool = (budget = BUDGET): ReadPool => new BudgetedPool(budget);

class BudgetedPool implements ReadPool {
  #budget: number;
  allocated = 0;
  held = 0;
  /** Without content. */
  readonly #spare = new Set<PooledBuffer>();
  /** With content that nobody reads now, the least recently used first. */
  readonly #left = new Set<PooledBuffer>();
  /** Those of them that were demoted, the last one at the end. */
  readonly #demoted: PooledBuffer[] = [];

  constructor(budget: number) {
    this.#budget = budget;
  }

  get hasRoom(): boolean {
    return this.#budget - this.held > SMALLEST / SHARE;
  }

  take(wanted: number): PooledBuffer {
    return this.#obtain(Math.min(sizeFor(wanted), this.#share()));
  }

  takeWhole(wanted: number): PooledBuffer | undefined {
    const size = sizeFor(wanted);
    return size <= this.#share() ? this.#obtain(size) : undefined;
  }

  hold(buffer: PooledBuffer): void {
    if (buffer.holders === 0) {
      this.#unlist(buffer);
      this.held += buffer.bytes.length;
    }
    buffer.holders += 1;
  }

  release(buffer: PooledBuffer): void {
    buffer.holders -= 1;
    if (buffer.holders > 0) return;
    this.held -= buffer.bytes.length;
    this.#list(buffer);
    this.#shrink();
  }

  forget(buffer: PooledBuffer): void {
    const isListed = buffer.holders === 0;
    if (isListed) this.#unlist(buffer);
    buffer.lost = undefined;
    if (isListed) this.#list(buffer);
  }

  resize(budget: number): void {
    this.#budget = budget;
    this.#shrink();
  }

  #shrink(): void {
    while (this.allocated > this.#budget && this.#evict());
  }

  demote(buffer: PooledBuffer): void {
    if (this.#left.delete(buffer)) this.#demoted.push(buffer);
  }

  /** The largest size of a buffer that is taken now. */
  #share(): number {
    const share = (this.#budget - this.held) * SHARE;
    return SIZES.find((size) => size <= share) ?? SMALLEST;
  }

  #obtain(size: number): PooledBuffer {
    const isFitting = ({bytes}: PooledBuffer): boolean => bytes.length === size;
    const spare = this.#spare.values().find(isFitting);
    if (spare) return this.#reuse(spare);
    while (this.allocated + size > this.#budget) {
      const oldest = this.#oldest();
      if (!oldest) break;
      if (isFitting(oldest)) return this.#reuse(oldest);
      this.#free(oldest);
    }
    this.allocated += size;
    this.held += size;
    return new PooledBuffer(Buffer.allocUnsafeSlow(size));
  }

  /** The buffer that can be missed most easily, of those that nobody holds. */
  #oldest(): PooledBuffer | undefined {
    const [spare] = this.#spare;
    const [left] = this.#left;
    return spare ?? this.#demoted.at(-1) ?? left;
  }

  #reuse(buffer: PooledBuffer): PooledBuffer {
    this.#lose(buffer);
    this.held += buffer.bytes.length;
    return new PooledBuffer(buffer.bytes);
  }

  #evict(): boolean {
    const oldest = this.#oldest();
    if (oldest) this.#free(oldest);
    return oldest !== undefined;
  }

  /** Gives memory back at once; the garbage collector would do it much later. */
  #free(buffer: PooledBuffer): void {
    this.#lose(buffer);
    this.allocated -= buffer.bytes.length;
    (buffer.bytes.buffer as ArrayBuffer).transfer(0);
  }

  #lose(buffer: PooledBuffer): void {
    this.#unlist(buffer);
    buffer.lost?.();
    buffer.lost = undefined;
  }

  #list(buffer: PooledBuffer): void {
    (buffer.lost ? this.#left : this.#spare).add(buffer);
  }

  #unlist(buffer: PooledBuffer): void {
    if (this.#left.delete(buffer) || this.#spare.delete(buffer)) return;
    const at = this.#demoted.lastIndexOf(buffer);
    if (at >= 0) this.#demoted.splice(at, 1);
  }
}

/** The smallest size that holds so many bytes, or the largest there is. */
const sizeFor = (wanted: number): number => SIZES.findLast((size) => size >= wanted) ?? LARGEST_READ;
