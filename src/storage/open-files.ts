import type {Clock} from '../clock.ts';
import type {BlobFiles} from './blob-files.ts';
import type {ReportDiskFailure} from './disk.ts';
import {createBlobFiles} from './fs/blob-files.ts';
import {createReadPool} from './fs/read-pool.ts';
import {createSharedFiles} from './fs/shared-files.ts';
import {watchFiles} from './fs/watched.ts';

export interface OpenFilesOptions {
  /** The folder of the blobs, for messages. */
  path: string;
  /** Bytes of memory that files are read into. */
  readBytes: number;
  clock: Clock;
  /** Is told each failure of a disk. */
  report: ReportDiskFailure;
}

/** What a thread needs that reads the files of blobs and does nothing else with the storage. */
export const openBlobFiles = ({path, readBytes, clock, report}: OpenFilesOptions): BlobFiles =>
  watchFiles(createBlobFiles(createSharedFiles(createReadPool(readBytes), {clock})), {path, report});
