import {mkdir, open, rm, writeFile} from 'node:fs/promises';
import {constants} from 'node:os';
import {join} from 'node:path';
import {fileURLToPath} from 'node:url';
import {findExecutable} from '../rig/executable.ts';
import type {Scope} from '../rig/scope.ts';

const SHIM = fileURLToPath(new URL('failing-disk.c', import.meta.url));
/** Several times what the cache may take, and what a run pushes. */
const SIZE = '192m';
const FILLING = Buffer.alloc(64 * 1024);

/** How system calls of the server fail. */
export interface DiskFault {
  reads?: 'EIO';
  writes?: 'EIO' | 'EDQUOT' | 'EROFS';
  /** Default blobs and metadata. */
  only?: 'blobs' | 'metadata';
  /** How many calls succeed before one fails; default 0. */
  spared?: number;
}

/** The disk of the server under test, which can be filled, made to fail, and hidden. */
export interface Disk {
  /** The server's data folder. */
  readonly folder: string;
  /** What cannot be injected on this machine, with the reason. */
  readonly lacking: readonly string[];
  /** Whether the disk is small, so that it can be full. */
  readonly canBeFull: boolean;
  /** Whether system calls can be made to fail. */
  readonly canFail: boolean;
  /** The variables of the server's environment. */
  readonly env: Record<string, string>;
  /** Takes all the space there is but so many bytes. */
  fill(spared: number): Promise<void>;
  /** Gives the space back. */
  empty(): Promise<void>;
  /** Makes system calls fail; undefined none. */
  fail(fault: DiskFault | undefined): Promise<void>;
  /** Mounts an empty disk over the blobs, as when theirs is not mounted. */
  hideBlobs(): Promise<void>;
  showBlobs(): Promise<void>;
}

/** Mounts a small disk and compiles the library that fails for it, where this machine lets us. */
export async function createDisk(scope: Scope): Promise<Disk> {
  const root = join(scope.folder, 'disk');
  const folder = join(root, 'data');
  const lacking: string[] = [];
  await mkdir(root);
  const canBeFull = await attempt(lacking, 'a full disk (ENOSPC), blobs that are not mounted', () =>
    scope.run('mount', ['-t', 'tmpfs', '-o', `size=${SIZE}`, 'tmpfs', root]),
  );
  await mkdir(folder);
  const control = join(scope.folder, 'disk-control');
  await writeFile(control, Buffer.alloc(4));
  const library = join(scope.folder, 'failing-disk.so');
  const canFail = await attempt(lacking, 'a disk that fails (EIO), a used-up quota (EDQUOT)', async () => {
    if (!(await findExecutable('cc'))) throw new Error('there is no C compiler');
    await scope.run('cc', ['-O2', '-shared', '-fPIC', '-o', library, SHIM, '-ldl']);
  });
  const env = canFail ? {LD_PRELOAD: library, CHAOS_DISK: control, CHAOS_FOLDER: folder} : {};
  const filling = join(root, 'filling');
  const blobs = join(folder, 'blobs');
  return {
    folder,
    lacking,
    canBeFull,
    canFail,
    env,
    fill: (spared) => fillFile(filling, spared),
    empty: () => rm(filling, {force: true}),
    async fail(fault = {}) {
      const file = await open(control, 'r+');
      await file.write(controlBytes(fault), 0, 4, 0);
      await file.close();
    },
    async hideBlobs() {
      await scope.run('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', blobs]);
    },
    async showBlobs() {
      await scope.run('umount', ['--lazy', blobs]);
    },
  };
}

async function attempt(lacking: string[], what: string, work: () => Promise<unknown>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    lacking.push(`${what}: ${error instanceof Error ? error.message : error}`);
    return false;
  }
}

function controlBytes({reads, writes, only, spared = 0}: DiskFault): Buffer {
  const scopes = {blobs: 'b', metadata: 'm'} as const;
  const errno = (code: keyof typeof constants.errno | undefined) => (code ? constants.errno[code] : 0);
  return Buffer.from([errno(reads), errno(writes), only ? scopes[only].charCodeAt(0) : 0, spared]);
}

/** Writes until the disk is full, then gives `spared` bytes back. */
async function fillFile(path: string, spared: number): Promise<void> {
  const file = await open(path, 'w');
  let size = 0;
  try {
    for (;;) size += (await file.write(FILLING)).bytesWritten;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
    await file.truncate(Math.max(0, size - spared));
  } finally {
    await file.close();
  }
}
