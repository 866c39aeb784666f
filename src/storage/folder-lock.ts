/** Takes a data folder for one process at a time. @throws Occupied while somebody else has it */
export type LockFolder = (folder: string) => FolderLock;

export interface FolderLock {
  /** Idempotent. A process that dies gives its locks back. */
  release(): void;
}

/** Two servers on one folder would not see each other's downloads, nor what the other removes. */
export class Occupied extends Error {
  override readonly name = 'Occupied';

  constructor(folder: string) {
    super(
      `another backref is using ${folder}: stop it, or give this one a folder of its own with storage.path`,
    );
  }
}
