/** What the blobs' file system reports. Bytes. */
export interface DiskSpace {
  size: number;
  /** What this user may still write to it. */
  free: number;
}

/** The same, and what is known of the database's files. */
export interface DiskState extends DiskSpace {
  /** What the files of the database take up. */
  database: number;
  /** Whether the database is on the file system of the blobs. */
  isShared: boolean;
}

/** What is kept on a disk. */
export type StoredPart = 'blobs' | 'metadata';

/**
 * The disk failed to read or to write: nothing can be said of what is on it, least of all that it is not there. The message
 * is for the operator.
 */
export class DiskFailed extends Error {
  override readonly name = 'DiskFailed';
  readonly part: StoredPart;
  /** The code that the system or SQLite gave the failure, e.g. `EIO`. */
  readonly code: string;

  constructor(part: StoredPart, {path, code, cause}: {path: string; code: string; cause: Error}) {
    super(
      `the disk of the ${part} fails: ${cause.message} (${path}). Check that disk and how it is mounted: the log of the kernel says more`,
      {cause},
    );
    this.part = part;
    this.code = code;
  }
}

/** Is told each failure of a disk. */
export type ReportDiskFailure = (failure: DiskFailed) => void;

/** The disks that blobs and metadata are kept on. */
export interface Disk {
  /** @throws the system's error, e.g. while the disk is not mounted */
  measure(): Promise<DiskState>;
  /** A part of what `measure` tells, with one call of the system instead of seven. @throws as `measure` */
  space(): Promise<DiskSpace>;
  /**
   * Occupies a few MiB of the database's disk, so that they can be given up for a commit that deletes something when the
   * disk is full. Does nothing while they are occupied. @throws the system's error, e.g. ENOSPC; then nothing is occupied
   */
  occupyBallast(): Promise<void>;
  /** @returns the bytes that this made free */
  giveUpBallast(): Promise<number>;
}

/** File systems give space out in blocks of this many bytes. */
const BLOCK_BYTES = 4096;

/** What a file of this many bytes takes up on a disk. */
export const diskBytes = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES;
