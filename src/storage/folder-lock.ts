/** Locks a data folder for this process. @throws Occupied while another process has it */
export type LockFolder = (folder: string) => FolderLock;

export interface FolderLock {
  /** Idempotent. The locks of a process end with it. */
  release(): void;
}

/** Two servers on one folder would not know of each other's downloads and removals. */
export class Occupied extends Error {
  override readonly name = 'Occupied';

  constructor(folder: string) {
    super(
      `another backref is using ${folder}: stop it, or give this one a folder of its own with storage.path`,
    );
  }
}
