/*
 * The spools' tree.
 *
 *   <path>/
 *     sha256-ab12….part               what a fill has of sha256:ab12…
 *     sha512-cd34….part
 *     upload-<id>.part                what a client has sent to the upload of this id
 */
import {constants} from 'node:fs';
import {mkdir, open, readdir, rm, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {algorithmOf, encodedOf, isDigest} from '../../oci/digest.ts';
import type {UploadId} from '../../oci/upload.ts';
import {diskBytes} from '../disk.ts';
import type {SpoolKey, Spools} from '../spool.ts';
import {namesIn, unlessMissing, withFolder} from './files.ts';
import {createReadPool, type ReadPool} from './read-pool.ts';
import {createFileSpool} from './spool.ts';

/** The file name of a digest's spool, or of an upload's, with the id. */
const PART = /^(?:sha(?:256|512)-[a-f0-9]+|upload-([a-f0-9-]+))\.part$/;

export interface SpoolsOptions {
  /** The folder. */
  path: string;
  /** The memory that files are read into; default its own. */
  pool?: ReadPool;
}

/**
 * Spools as files in the folder `path`, which is created at the first open. Those of digests belong to the one process
 * that uses the store; that of an upload, to the one that has just created its id.
 */
export function createSpools({path, pool = createReadPool()}: SpoolsOptions): Spools {
  const files = new SpoolFiles(path);

  return {
    async open(key) {
      const name = fileNameOf(key);
      const release = files.claim(key, name);
      try {
        await files.removal(name);
        const file = await withFolder(
          () => open(join(path, name), constants.O_RDWR | constants.O_CREAT),
          () => mkdir(path, {recursive: true}),
        );
        const {size} = await file.stat();
        return createFileSpool({key, path: join(path, name), file, size, pool, release});
      } catch (error) {
        release();
        throw error;
      }
    },

    async remove(key) {
      const name = fileNameOf(key);
      const release = files.claim(key, name);
      try {
        await rm(join(path, name), {force: true});
      } finally {
        release();
      }
    },

    async idleBytes() {
      let bytes = 0;
      for (const name of await namesIn(path)) if (PART.test(name)) bytes += await files.idleBytes(name);
      return bytes;
    },

    async sweep(before, isUnderWay) {
      let removed = 0;
      for (const name of (await unlessMissing(readdir(path))) ?? []) {
        const part = PART.exec(name);
        if (!part || !(await files.isIdle(name, before))) continue;
        const upload = part[1];
        if (upload !== undefined && (await isUnderWay(upload as UploadId))) continue;
        if (await files.removeUnused(name)) removed += 1;
      }
      return removed;
    },
  };
}

/** Which files are open, and which are being removed by a sweep. */
class SpoolFiles {
  readonly #path: string;
  readonly #inUse = new Set<string>();
  readonly #removing = new Map<string, Promise<void>>();

  constructor(path: string) {
    this.#path = path;
  }

  /** @returns what gives the file up. @throws Error while somebody else has it */
  claim(key: SpoolKey, name: string): () => void {
    if (this.#inUse.has(name)) {
      throw new Error(`the spool of ${key} is open already: one opener at a time can write to it`);
    }
    this.#inUse.add(name);
    return () => void this.#inUse.delete(name);
  }

  /** Resolves when the sweep that is removing the file, if any, has done so. */
  async removal(name: string): Promise<void> {
    await this.#removing.get(name);
  }

  async idleBytes(name: string): Promise<number> {
    if (this.#inUse.has(name)) return 0;
    return diskBytes((await unlessMissing(stat(join(this.#path, name))))?.size ?? 0);
  }

  async isIdle(name: string, before: number): Promise<boolean> {
    if (this.#inUse.has(name)) return false;
    const stats = await unlessMissing(stat(join(this.#path, name)));
    return stats !== undefined && stats.mtimeMs < before;
  }

  /** Anyone who opens the spool in the meantime waits until it is removed. */
  async removeUnused(name: string): Promise<boolean> {
    if (this.#inUse.has(name) || this.#removing.has(name)) return false;
    const removal = rm(join(this.#path, name), {force: true});
    this.#removing.set(
      name,
      removal.catch(() => {}),
    );
    await removal.finally(() => this.#removing.delete(name));
    return true;
  }
}

/** A path is only ever made from a parsed digest or upload id. */
const fileNameOf = (key: SpoolKey): string =>
  isDigest(key) ? `${algorithmOf(key)}-${encodedOf(key)}.part` : `upload-${key}.part`;
