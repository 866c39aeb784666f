import type {Digest} from '../oci/digest.ts';

/** The local file that a fill grows. Partial spools outlive the process and are rehashed and resumed by the next. */
export interface Spool {
  readonly digest: Digest;
  /** The file's path, for a store on the same disk that can rename it. */
  readonly path: string;
  /** Bytes that `read` can give: handed to the file system, not necessarily durable. */
  readonly size: number;
  /**
   * Takes the next bytes. Resolves when more may follow; written behind in order, bounded in memory.
   * @throws what the file system said, e.g. ENOSPC, at this append or at a later one.
   */
  append(chunk: Uint8Array): Promise<void>;
  /**
   * Bytes of `start` up to and without `end`; `end` is at most `size`. A chunk is valid until the next one is asked
   * for. Any number of readers at once.
   */
  read(start: number, end: number): AsyncIterable<Uint8Array>;
  /** Resolves when everything appended is readable and durable. */
  flush(): Promise<void>;
  /** Empties the spool, to start once more from zero. */
  truncate(): Promise<void>;
  /** Closes the file and leaves it for the next process. Readers at work end first. Idempotent. */
  close(): Promise<void>;
  /** Closes and removes the file. Idempotent. */
  discard(): Promise<void>;
}

export interface Spools {
  /** Opens the spool of a digest; `size` tells what an earlier process left in it. One opener at a time. */
  open(digest: Digest): Promise<Spool>;
  /** Removes what is older than `before` (milliseconds since the epoch) and not open. Gives the number removed. */
  sweep(before: number): Promise<number>;
}
