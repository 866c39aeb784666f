import {mkdirSync, realpathSync} from 'node:fs';
import {dirname, join} from 'node:path';
import type {Clock} from '../clock.ts';
import type {Config} from '../config.ts';
import type {BackupFolder} from './backup-folder.ts';
import type {BlobFiles} from './blob-files.ts';
import type {BlobStore} from './blob-store.ts';
import {createLeases, createProcessClaims} from './claims.ts';
import type {Coordination} from './coordination.ts';
import type {Disk, ReportDiskFailure} from './disk.ts';
import {type FolderLock, Occupied} from './folder-lock.ts';
import {createBackupFolder} from './fs/backup-folder.ts';
import {createBlobFiles} from './fs/blob-files.ts';
import {createFsBlobStore} from './fs/blob-store.ts';
import {createFsDisk} from './fs/disk.ts';
import {freeSpace} from './fs/files.ts';
import {createReadPool, readBytesOf} from './fs/read-pool.ts';
import {createFileReading} from './fs/shared-files.ts';
import {createSpools} from './fs/spools.ts';
import {watchFiles, watchSpools, watchStore} from './fs/watched.ts';
import type {DiskFull, Metadata} from './metadata.ts';
import type {Spools} from './spool.ts';
import {lockFolder} from './sqlite/folder-lock.ts';
import {openSqliteMetadata} from './sqlite/metadata.ts';
import {isOutdated, type ReportMigration} from './sqlite/schema.ts';

/** Where content and its metadata are kept. */
export interface Storage {
  readonly metadata: Metadata;
  readonly store: BlobStore;
  /** The files of the blobs in the store. */
  readonly files: BlobFiles;
  /**
   * Leaves memory to other threads that read the blobs.
   * @param threads how many read them, this one included
   * @returns the bytes that each of them reads files into
   */
  shareReads(threads: number): number;
  readonly spools: Spools;
  /** Coordinates work within this process. */
  readonly claims: Coordination;
  /** Coordinates the processes that share the metadata. */
  readonly leases: Coordination;
  /** Opens the folder of a backup. @param path absolute */
  backupFolder(path: string): BackupFolder;
  readonly disk: Disk;
  /** Bytes left on the disk of the blobs. @throws the system's error */
  freeBlobBytes(): Promise<number>;
  /** Bytes left on the fullest of the disks that are used. @throws the system's error */
  freeBytes(): Promise<number>;
  /** Why the metadata can only be read at the moment; undefined while they can be changed. */
  refusal(): DiskFull | undefined;
  /** Tries to open metadata for writing that could only be read. @returns whether they can be written */
  reopen(): Promise<boolean>;
  close(): Promise<void>;
}

export interface OpenStorageParts {
  /** Names this process among those that share the metadata. */
  owner: string;
  clock: Clock;
  /** Is told each failure of a disk. */
  diskFailed?: ReportDiskFailure;
  /** Is told before the database of an older version is migrated, and once it has been. */
  migrating?: ReportMigration;
  /** Is told the path of each file of a blob that has been replaced or removed, for whoever reads it elsewhere. */
  forgotten?: (path: string) => void;
}

/**
 * Opens the storage that the configuration names, with the adapters that it chooses. The blob store need not exist yet.
 * @throws Error when the metadata cannot be opened; its message says what to do
 */
export async function openStorage(
  {blobs, metadata: {path}}: Config['storage'],
  {owner, clock, diskFailed: report = () => {}, migrating, forgotten}: OpenStorageParts,
): Promise<Storage> {
  const metadata = await openSqliteMetadata({path, report, migrating});
  const watched = {path: blobs.path, report};
  const reading = createFileReading(createReadPool(), {forgotten, clock});
  const store = createFsBlobStore({path: join(blobs.path, 'blobs'), metadata, reading});
  const disk = createFsDisk({blobs: blobs.path, database: path});
  // The ballast is more than the files that SQLite keeps beside the database while it is open.
  const isFull = metadata.refusal() !== undefined && metadata.refusal()?.problem !== 'read-only';
  if (isFull && (await disk.giveUpBallast()) > 0) await metadata.reopen();
  return {
    metadata,
    store: watchStore(store, watched),
    files: watchFiles(createBlobFiles(reading.shared), watched),
    shareReads(threads) {
      const bytes = readBytesOf(threads);
      reading.pool.resize(bytes);
      return bytes;
    },
    spools: watchSpools(createSpools({path: join(blobs.path, 'spool'), pool: reading.pool}), watched),
    claims: createProcessClaims(),
    leases: createLeases({metadata, owner, clock}),
    backupFolder: createBackupFolder,
    disk,
    refusal: () => metadata.refusal(),
    reopen: () => metadata.reopen(),
    freeBlobBytes: () => freeSpace(blobs.path),
    freeBytes: async () => Math.min(...(await Promise.all([blobs.path, dirname(path)].map(freeSpace)))),
    async close() {
      await reading.shared.close();
      await metadata.close();
    },
  };
}

/**
 * As `openStorage`, for a process that may run beside a server. A database of an older version is migrated only while this
 * process has the locks: a server of that version could neither read nor write it any more.
 * @throws Occupied while another process holds one of the locks, and the database is of an older version
 */
export async function openStorageBeside(
  storage: Config['storage'],
  parts: OpenStorageParts,
): Promise<Storage> {
  if (!isOutdated(storage.metadata.path)) return openStorage(storage, parts);
  // Without support for locks a server has none either. If the disk fails, opening the storage reports it.
  const lock = lockStorage(storage, () => {});
  try {
    return await openStorage(storage, parts);
  } finally {
    lock.release();
  }
}

/**
 * Locks the data folder, and the folder of the blobs if it is another one, so that no other process removes their content.
 * @param failed called with a folder that cannot be locked because its file system has no locks or is read-only; the
 * server can serve without the lock
 * @throws Occupied while another process holds one of the locks
 */
export function lockStorage(
  {path, blobs}: Config['storage'],
  failed: (folder: string, error: unknown) => void,
): FolderLock {
  const locks = new Map<string, FolderLock>();
  const release = () => {
    for (const lock of locks.values()) lock.release();
  };
  for (const folder of [path, blobs.path]) {
    try {
      mkdirSync(folder, {recursive: true});
      const real = realpathSync(folder);
      if (!locks.has(real)) locks.set(real, lockFolder(real));
    } catch (error) {
      if (error instanceof Occupied) {
        release();
        throw error;
      }
      failed(folder, error);
    }
  }
  return {release};
}
