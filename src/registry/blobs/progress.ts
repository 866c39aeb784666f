import type {Demand} from '../../upstream/port.ts';

/** How far a download is, and the newest of its bytes: written by one download, watched by any number of readers. */
export interface Progress {
  /** The whole length in bytes, once and where known. */
  readonly size: number | undefined;
  /** Bytes that are here. */
  readonly received: number;
  /** Bytes that readers may have: the last one only after the digest was found right. */
  readonly released: number;
  /** True once the upstream has answered with the blob. */
  readonly begun: boolean;
  readonly verified: boolean;
  /** What ended the download. */
  readonly failure: unknown;
  /** Grows when the download starts once more from zero: what was read before is not to be trusted. */
  readonly generation: number;
  /** Resolves at the next change. */
  moved(): Promise<void>;
  /** The bytes at an offset, as far as one piece in memory goes; undefined when they are only in the spool. */
  inMemory(at: number): Uint8Array | undefined;

  /** The upstream has answered. */
  begin(size: number | undefined): void;
  /** Bytes of an earlier process are here; they are readable from the spool. */
  found(bytes: number): void;
  /** Takes the next bytes; `spooled` bytes can be read from the spool and need not stay in memory. */
  take(chunk: Uint8Array, spooled: number): void;
  /** Drops from memory what can be read from the spool: its first `spooled` bytes. */
  forgetSpooled(spooled: number): void;
  startOver(): void;
  verify(): void;
  fail(error: unknown): void;
}

/** Bytes that stay in memory at the head, for readers that keep up. */
const HEAD_BYTES = 1024 * 1024;

interface Piece {
  readonly start: number;
  readonly bytes: Uint8Array;
}

export function createProgress(): Progress {
  let size: number | undefined;
  let received = 0;
  let begun = false;
  let verified = false;
  let failure: unknown;
  let generation = 0;
  let change = Promise.withResolvers<void>();
  let pieces: Piece[] = [];

  function announce(): void {
    change.resolve();
    change = Promise.withResolvers();
  }

  function forgetUpTo(offset: number): void {
    const kept = pieces.findIndex(({start, bytes}) => start + bytes.length > offset);
    if (kept !== 0) pieces = kept === -1 ? [] : pieces.slice(kept);
  }

  return {
    get size() {
      return size;
    },
    get received() {
      return received;
    },
    get released() {
      return verified ? received : Math.max(0, Math.min(received, (size ?? received) - 1));
    },
    get begun() {
      return begun;
    },
    get verified() {
      return verified;
    },
    get failure() {
      return failure;
    },
    get generation() {
      return generation;
    },
    moved: () => change.promise,
    inMemory(at) {
      const piece = pieces.findLast(({start}) => start <= at);
      return piece && at < piece.start + piece.bytes.length
        ? piece.bytes.subarray(at - piece.start)
        : undefined;
    },
    begin(total) {
      size = total;
      begun = true;
      announce();
    },
    found(bytes) {
      received = bytes;
    },
    take(chunk, spooled) {
      pieces.push({start: received, bytes: chunk});
      received += chunk.length;
      forgetUpTo(Math.min(spooled, received - HEAD_BYTES));
      announce();
    },
    forgetSpooled: forgetUpTo,
    startOver() {
      pieces = [];
      received = 0;
      generation += 1;
      announce();
    },
    verify() {
      verified = true;
      announce();
    },
    fail(error) {
      failure = error;
      announce();
    },
  };
}

/** Those who wait for one download; the download is wanted while there are any. */
export interface Waiters extends Demand {
  /** Counts one who waits. @returns what ends that; idempotent */
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
