import {randomFill} from 'node:crypto';
import {open, rm, stat, statfs} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {promisify} from 'node:util';
import {type Disk, type DiskSpace, diskBytes} from '../disk.ts';
import {unlessMissing} from './files.ts';

export interface FsDiskOptions {
  /** The folder of the blobs. */
  blobs: string;
  /** The database file. */
  database: string;
}

const NAME = 'backref.ballast';
/** More than the commit of an eviction writes. */
const BALLAST_BYTES = 8 * 2 ** 20;
const CHUNK_BYTES = 2 ** 20;

/** The disks of a folder and of a database file. */
export function createFsDisk({blobs, database}: FsDiskOptions): Disk {
  const ballast = join(dirname(database), NAME);
  const space = async (): Promise<DiskSpace> => {
    const {blocks, bavail, bsize} = await statfs(blobs);
    return {size: blocks * bsize, free: bavail * bsize};
  };
  return {
    space,

    async measure() {
      const [ofFileSystem, ofBlobs, ofDatabase, sizes] = await Promise.all([
        space(),
        stat(blobs),
        stat(dirname(database)),
        Promise.all([database, `${database}-wal`, `${database}-shm`, ballast].map(sizeOf)),
      ]);
      return {
        ...ofFileSystem,
        database: sizes.reduce((sum, size) => sum + size, 0),
        isShared: ofBlobs.dev === ofDatabase.dev,
      };
    },

    async occupyBallast() {
      if ((await sizeOf(ballast)) >= BALLAST_BYTES) return;
      try {
        await writeBallast(ballast);
      } catch (error) {
        await rm(ballast, {force: true});
        throw error;
      }
    },

    async giveUpBallast() {
      const bytes = await sizeOf(ballast);
      await rm(ballast, {force: true});
      return bytes;
    },
  };
}

async function sizeOf(path: string): Promise<number> {
  return diskBytes((await unlessMissing(stat(path)))?.size ?? 0);
}

/** A file system that compresses would keep nothing free for a file of zeros. */
async function writeBallast(path: string): Promise<void> {
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES);
  const file = await open(path, 'w');
  try {
    for (let written = 0; written < BALLAST_BYTES; written += CHUNK_BYTES) {
      await promisify(randomFill)(chunk);
      await file.writeFile(chunk);
    }
    await file.sync();
  } finally {
    await file.close();
  }
}
