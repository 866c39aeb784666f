const KIB = 1024;
/** Sizes of buffers, the largest first. */
const CLASSES = [1024 * KIB, 512 * KIB, 256 * KIB, 128 * KIB, 64 * KIB] as const;
const SMALLEST = 64 * KIB;
/** Each reader holds a buffer that its consumer is sending and one that is being read ahead. */
const PER_READER = 2;

/** The buffers that the readers of one store or spool folder share. */
export interface ReadBuffers {
  /** Counts a reader in; gives the call, to be made once, that counts it out. */
  enter(): () => void;
  /** A buffer for the next read of at most `wanted` bytes; it holds at least 64 KiB. Give it back. */
  take(wanted: number): Buffer;
  /** Nobody may look into the buffer any more: the next reader fills it. */
  give(buffer: Buffer): void;
}

/**
 * Large reads into memory that was used before are fastest, and hold the most memory when many read: buffers are
 * reused, and shrink as readers grow.
 * @param budget bytes that the buffers of all readers share.
 */
export function createReadBuffers(budget = 32 * 1024 * KIB): ReadBuffers {
  const free = new Map<number, Buffer[]>(CLASSES.map((size) => [size, []]));
  let readers = 0;
  let allocated = 0;

  function sizeFor(wanted: number): number {
    const share = budget / (PER_READER * Math.max(readers, 1));
    const fitting = CLASSES.filter((size) => size <= share && (size < 2 * wanted || size === SMALLEST));
    return fitting[0] ?? SMALLEST;
  }

  return {
    enter() {
      readers++;
      return () => void readers--;
    },
    take(wanted) {
      const size = sizeFor(wanted);
      const used = free.get(size)?.pop();
      if (used) return used;
      allocated += size;
      return Buffer.allocUnsafeSlow(size);
    },
    give(buffer) {
      if (allocated <= budget) free.get(buffer.length)?.push(buffer);
      else allocated -= buffer.length;
    },
  };
}
