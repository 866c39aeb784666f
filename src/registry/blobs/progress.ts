import type {Digest} from '../../oci/digest.ts';
import type {Piece} from '../../storage/spool.ts';
import type {Demand} from '../../upstream/port.ts';
import {DigestMismatch} from '../failure.ts';

/** How far a download is, and the newest of its bytes: written by one download, watched by any number of readers. */
export interface Progress {
  /** The whole length in bytes, where known; then it does not change any more. */
  readonly size: number | undefined;
  /** Bytes that are here. */
  readonly received: number;
  /** Bytes that readers may have: the last one only after the digest was verified. */
  readonly released: number;
  /** True once the upstream has answered with the blob. */
  readonly begun: boolean;
  readonly verified: boolean;
  /**
   * True while readers get nothing, because the blob is small: until it is verified, a spoiled download can be replaced
   * without their noticing. False for good once `endHold` was called.
   */
  readonly isHeld: boolean;
  /** What ended the download. */
  readonly failure: unknown;
  /** What was received when the spool failed; undefined where it has not, or only after the digest was verified. */
  readonly prefix: Prefix | undefined;
  /** Grows when the download starts over from zero: what was read before is not to be trusted. */
  readonly generation: number;
  /** Resolves at the next change. */
  moved(): Promise<void>;
  /** The bytes at an offset, up to the end of one piece in memory, to be released; undefined when they are only in the spool. */
  inMemory(at: number): Piece | undefined;

  /** The upstream has answered. */
  begin(size: number | undefined): void;
  /** Bytes of an earlier process are here; they are readable from the spool. */
  found(bytes: number): void;
  /**
   * Takes the next bytes, whose memory it frees when it drops them; the first `spooled` bytes can be read from the spool and
   * need not stay in memory.
   */
  take(chunk: Uint8Array, spooled: number): void;
  /** Drops from memory what can be read from the spool: its first `spooled` bytes. */
  forgetSpooled(spooled: number): void;
  startOver(): void;
  /** Gives readers what is here from now on: they have waited long enough. */
  endHold(): void;
  verify(): void;
  /** The spool has failed. @param digest of what was received */
  leaveOff(digest: Digest): void;
  fail(error: unknown): void;
}

/** The beginning of a blob that nobody has verified. */
export interface Prefix {
  readonly bytes: number;
  readonly digest: Digest;
}

/** Bytes that stay in memory at the head, for readers that keep up. */
const HEAD_BYTES = 1024 * 1024;
/** A blob of at most this many bytes is held back until it is verified; all of it stays in memory meanwhile. */
export const MAX_HELD_BYTES = HEAD_BYTES;
/** A small blob that is not here by then arrives at its readers as a large one does: what is between may not wait longer. */
export const MAX_HOLD_MS = 10_000;

/** A chunk of the head. */
class HeadChunk {
  /** Offsets of its first byte, and of the one after its last. */
  readonly start: number;
  readonly end: number;
  readonly #bytes: Uint8Array;
  #readers = 0;
  #isDropped = false;

  constructor(start: number, bytes: Uint8Array) {
    this.start = start;
    this.end = start + bytes.length;
    this.#bytes = bytes;
  }

  /** Its bytes from the offset `at` on. */
  piece(at: number): Piece {
    this.#readers += 1;
    const release = () => {
      this.#readers -= 1;
      this.#freeUnread();
    };
    return {bytes: this.#bytes.subarray(at - this.start), release};
  }

  /** Frees its memory when its last reader has left. */
  drop(): void {
    this.#isDropped = true;
    this.#freeUnread();
  }

  /**
   * Each chunk of a socket has memory of its own. The garbage collector would look through the whole heap to free it,
   * eight times for 100 MiB. Memory that others use a part of is left to it.
   */
  #freeUnread(): void {
    if (!this.#isDropped || this.#readers > 0) return;
    const {buffer, byteLength} = this.#bytes;
    if (buffer instanceof ArrayBuffer && buffer.byteLength === byteLength) buffer.transfer(0);
  }
}

export const createProgress = (): Progress => new DownloadProgress();

class DownloadProgress implements Progress {
  size: number | undefined;
  received = 0;
  begun = false;
  verified = false;
  failure: unknown;
  generation = 0;
  prefix: Prefix | undefined;
  #change = Promise.withResolvers<void>();
  #head: HeadChunk[] = [];
  #isHoldOver = false;

  get isHeld(): boolean {
    if (this.#isHoldOver || this.verified) return false;
    return this.size !== undefined && this.size <= MAX_HELD_BYTES;
  }

  get released(): number {
    if (this.verified) return this.received;
    if (this.isHeld) return 0;
    return Math.max(0, Math.min(this.received, (this.size ?? this.received) - 1));
  }

  moved(): Promise<void> {
    return this.#change.promise;
  }

  inMemory(at: number): Piece | undefined {
    const chunk = this.#head.findLast(({start}) => start <= at);
    return chunk && at < chunk.end ? chunk.piece(at) : undefined;
  }

  begin(size: number | undefined): void {
    this.size = size;
    this.begun = true;
    this.#announce();
  }

  found(bytes: number): void {
    this.received = bytes;
  }

  take(chunk: Uint8Array, spooled: number): void {
    this.#head.push(new HeadChunk(this.received, chunk));
    this.received += chunk.length;
    this.forgetSpooled(Math.min(spooled, this.received - HEAD_BYTES));
    this.#announce();
  }

  forgetSpooled(spooled: number): void {
    const kept = this.#head.findIndex(({end}) => end > spooled);
    for (const chunk of this.#head.splice(0, kept === -1 ? this.#head.length : kept)) chunk.drop();
  }

  startOver(): void {
    if (this.isHeld) {
      this.begun = false;
      this.size = undefined;
    }
    this.#head = [];
    this.received = 0;
    this.generation += 1;
    this.#announce();
  }

  endHold(): void {
    this.#isHoldOver = true;
    this.#announce();
  }

  verify(): void {
    this.verified = true;
    this.#announce();
  }

  leaveOff(digest: Digest): void {
    this.prefix = {bytes: this.received, digest};
  }

  fail(error: unknown): void {
    this.failure = error;
    this.#announce();
  }

  #announce(): void {
    this.#change.resolve();
    this.#change = Promise.withResolvers();
  }
}

/**
 * Resolves when readers can have the first byte of a download.
 * @returns its size in bytes where known
 * @throws what ended the download
 */
export async function untilBegun(progress: Progress): Promise<{size: number | undefined}> {
  while (!progress.begun || progress.isHeld) {
    if (progress.failure !== undefined) throw progress.failure;
    await progress.moved();
  }
  return {size: progress.size};
}

/** The bytes of a download that are no longer in memory, up to, but not including, `limit`. */
export interface BytesBehind {
  /** Some of those from `at` on, of a download that was not verified; to be released. */
  read(at: number, limit: number): Promise<Piece>;
  /** All of those from `at` on, of a download that was verified. */
  rest(at: number, limit: number): AsyncIterable<Uint8Array>;
}

/**
 * The bytes of a download from `start` to `end`, both inclusive, while they arrive.
 * @param behind what is no longer in memory
 * @throws DigestMismatch when it starts over after a byte was given, or what ended the download
 */
export async function* follow(
  progress: Progress,
  behind: BytesBehind,
  start = 0,
  end = Number.POSITIVE_INFINITY,
): AsyncGenerator<Uint8Array, void> {
  let {generation} = progress;
  let at = start;
  while (at <= end) {
    if (generation !== progress.generation) {
      if (at > start) throw new DigestMismatch('the download started over');
      generation = progress.generation;
    }
    const limit = Math.min(progress.released, end + 1);
    if (at < limit) {
      const held = progress.inMemory(at);
      if (!held && progress.verified) return yield* behind.rest(at, limit);
      const piece =
        held ??
        (await behind.read(at, limit).catch((error: unknown) => {
          // The spool cannot be read while it is emptied to start over, nor once it has been closed.
          if (generation === progress.generation) throw progress.failure ?? error;
        }));
      if (!piece) continue;
      try {
        if (generation !== progress.generation) continue;
        const bytes = piece.bytes.subarray(0, limit - at);
        at += bytes.length;
        yield bytes;
      } finally {
        piece.release();
      }
    } else {
      if (progress.verified) return;
      if (progress.failure !== undefined) throw progress.failure;
      await progress.moved();
    }
  }
}

/** The requests that wait for one download; the download is wanted while there are any. */
export interface Waiters extends Demand {
  /** Counts one more. @returns what ends its wait; idempotent */
  join(): () => void;
}

/** @param stopping aborted when the download is to end */
export function createWaiters(stopping: AbortSignal): Waiters {
  const listeners = new Set<() => void>();
  let count = 0;

  function add(change: 1 | -1): void {
    const before = count > 0;
    count += change;
    if (before === count > 0) return;
    // A listener may end its watch, or another's, and begin a new one.
    for (const listener of [...listeners]) if (listeners.has(listener)) listener();
  }

  return {
    stopping,
    get wanted() {
      return count > 0;
    },
    watch(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    join() {
      let joined = true;
      add(1);
      return () => {
        if (joined) add(-1);
        joined = false;
      };
    },
  };
}
