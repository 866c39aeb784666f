import type {Digest} from '../oci/digest.ts';
import type {UploadId} from '../oci/upload.ts';

/** What a spool holds the beginning of: the blob that a fill downloads, or what a client uploads. */
export type SpoolKey = Digest | UploadId;

/** Bytes of a file in memory that is held until it is released. */
export interface Piece {
  readonly bytes: Uint8Array;
  release(): void;
}

/** The local file that a fill or an upload appends to. Partial spools outlive the process; the next one rehashes and resumes them. */
export interface Spool {
  readonly key: SpoolKey;
  /** The file's path, for a store on the same disk that can rename it. */
  readonly path: string;
  /** Bytes that `read` can give: handed to the file system, not necessarily durable. */
  readonly size: number;
  /** What the file system said to the write that failed; undefined while none has. */
  readonly failure: unknown;
  /**
   * Takes the next bytes. Resolves when more may follow; written behind in order, bounded in memory.
   * @throws what the file system says, e.g. ENOSPC, at this append or at a later one
   */
  append(chunk: Uint8Array): Promise<void>;
  /**
   * The bytes from `start` up to, but not including, `end`, which is at most `size`. A chunk is valid until the next one is asked
   * for. Any number of readers at once.
   */
  read(start: number, end: number): AsyncIterable<Uint8Array>;
  /**
   * Some of the bytes from `start` on, up to, but not including, `end`, which is greater and at most `size`. Readers share
   * what they read. To be released.
   */
  piece(start: number, end: number): Promise<Piece>;
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
  /** Opens the spool of a digest or an upload; `size` is what was left in it. One opener at a time. */
  open(key: SpoolKey): Promise<Spool>;
  /** Removes a spool. Does nothing when there is none. @throws Error while it is open */
  remove(key: SpoolKey): Promise<void>;
  /** What the spools that are not open take up on the disk, in bytes. */
  idleBytes(): Promise<number>;
  /**
   * Removes the spools that are not open and have not grown since `before` (milliseconds since the epoch), except those
   * of uploads under way. Others may open and remove spools meanwhile.
   * @param isUnderWay whether a client may continue an upload
   * @returns the number removed
   */
  sweep(before: number, isUnderWay: (upload: UploadId) => Promise<boolean>): Promise<number>;
}
