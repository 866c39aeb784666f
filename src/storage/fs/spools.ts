/*
 * The spools' tree.
 *
 *   <path>/
 *     sha256-ab12….part               what a fill has of sha256:ab12…
 *     sha512-cd34….part
 */
import {constants} from 'node:fs';
import {mkdir, open, readdir, rm, stat} from 'node:fs/promises';
import {join} from 'node:path';
import {algorithmOf, type Digest, encodedOf} from '../../oci/digest.ts';
import type {Spools} from '../spool.ts';
import {createReadBuffers} from './buffers.ts';
import {unlessMissing} from './missing.ts';
import {createFileSpool} from './spool.ts';

const PART = /^sha(?:256|512)-[a-f0-9]+\.part$/;

/** Spools as files in the folder `path`, which is made at the first open and belongs to one process. */
export function createSpools({path}: {path: string}): Spools {
  const buffers = createReadBuffers();
  const inUse = new Set<string>();
  let sweeping: Promise<unknown> = Promise.resolve();

  const fileNameOf = (digest: Digest): string => `${algorithmOf(digest)}-${encodedOf(digest)}.part`;

  const removeOld = async (before: number): Promise<number> => {
    let removed = 0;
    for (const name of (await unlessMissing(readdir(path))) ?? []) {
      if (!PART.test(name) || inUse.has(name)) continue;
      const stats = await unlessMissing(stat(join(path, name)));
      if (!stats || stats.mtimeMs >= before || inUse.has(name)) continue;
      await rm(join(path, name), {force: true});
      removed++;
    }
    return removed;
  };

  return {
    async open(digest) {
      const name = fileNameOf(digest);
      if (inUse.has(name))
        throw new Error(`the spool of ${digest} is open already: one fill grows it at a time`);
      inUse.add(name);
      try {
        // A sweep that began earlier may be about to remove this very file.
        await sweeping;
        await mkdir(path, {recursive: true});
        const file = await open(join(path, name), constants.O_RDWR | constants.O_CREAT);
        const {size} = await file.stat();
        const release = () => void inUse.delete(name);
        return createFileSpool({digest, path: join(path, name), file, size, buffers, release});
      } catch (error) {
        inUse.delete(name);
        throw error;
      }
    },

    sweep(before) {
      const sweep = sweeping.then(() => removeOld(before));
      sweeping = sweep.catch(() => {});
      return sweep;
    },
  };
}
