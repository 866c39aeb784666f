import type {FileHandle} from 'node:fs/promises';

const KIB = 1024;
/** Sizes of buffers in bytes, the largest first. */
const CLASSES = [1024 * KIB, 512 * KIB, 256 * KIB, 128 * KIB, 64 * KIB] as const;
const SMALLEST = 64 * KIB;
/** Each reader holds a buffer that its consumer is sending and one that is being read ahead. */
const PER_READER = 2;

/** The buffers that the readers of one store or spool folder share. */
export interface ReadBuffers {
  /** Counts a reader in. @returns the call, to be made once, that counts it out */
  enter(): () => void;
  /** A buffer for the next read of at most `wanted` bytes; it holds at least 64 KiB, and is to be given back. */
  take(wanted: number): Buffer;
  /** Takes a buffer back. Nobody may read it any more: the next reader fills it. */
  give(buffer: Buffer): void;
}

/**
 * Large reads into memory that was used before are fastest, but take the most memory when there are many readers:
 * buffers are reused, and get smaller as readers get more.
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

/**
 * The bytes from `start` up to, but not including, `end`, one read ahead of the consumer. A chunk is valid until the next
 * one is asked for; then its memory is used again.
 * @throws what the file system says, or an error when the file ends before `end`
 */
export async function* readRange(
  file: FileHandle,
  start: number,
  end: number,
  buffers: ReadBuffers,
): AsyncGenerator<Uint8Array, void, void> {
  const read = async (position: number) => {
    const wanted = end - position;
    const buffer = buffers.take(wanted);
    try {
      const {bytesRead} = await file.read(buffer, 0, Math.min(buffer.length, wanted), position);
      return {buffer, bytesRead};
    } catch (error) {
      buffers.give(buffer);
      throw error;
    }
  };

  const leave = buffers.enter();
  let ahead: ReturnType<typeof read> | undefined;
  try {
    let position = start;
    if (position < end) ahead = read(position);
    while (ahead) {
      const {buffer, bytesRead} = await ahead;
      ahead = undefined;
      try {
        if (bytesRead === 0) throw new Error(`the file ended at byte ${position}, before byte ${end}`);
        position += bytesRead;
        if (position < end) ahead = read(position);
        // A failure of the read ahead belongs to the turn that awaits it.
        ahead?.catch(() => {});
        yield buffer.subarray(0, bytesRead);
      } finally {
        buffers.give(buffer);
      }
    }
  } finally {
    // The file may be closed once this iteration has ended, so nothing may still be reading it.
    const unused = await ahead?.catch(() => undefined);
    if (unused) buffers.give(unused.buffer);
    leave();
  }
}
