const KIB = 1024;
const LARGEST = 1024 * KIB;
const SMALLEST = 64 * KIB;

/** Sizes of the buffers that the readers of one store or spool folder read into. */
export interface ReadBuffers {
  /** Counts a reader in; gives the call, to be made once, that counts it out. */
  enter(): () => void;
  /** Bytes to read at once now, a multiple of 64 KiB. */
  size(): number;
}

/**
 * Large reads are fastest while few read, and hold the most memory when many do: the buffers shrink as readers grow.
 * Every read gets a fresh buffer. A chunk may still wait in a socket's queue when its reader asks for the next
 * one, so no buffer is ever filled twice.
 * @param budget bytes that the buffers of all readers share.
 */
export function createReadBuffers(budget = 16 * LARGEST): ReadBuffers {
  let readers = 0;
  return {
    enter() {
      readers++;
      return () => void readers--;
    },
    size() {
      const share = Math.floor(budget / Math.max(readers, 1));
      return Math.min(LARGEST, Math.max(SMALLEST, share - (share % SMALLEST)));
    },
  };
}
