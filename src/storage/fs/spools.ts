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
import type {SpoolKey, Spools} from '../spool.ts';
import {createReadBuffers} from './buffers.ts';
import {unlessMissing} from './missing.ts';
import {createFileSpool} from './spool.ts';

const PART = /^(?:sha(?:256|512)-[a-f0-9]+|upload-[a-f0-9-]+)\.part$/;

/**
 * Spools as files in the folder `path`, which is made at the first open. Those of digests belong to the one process that
 * works on the store; one of an upload, to whoever has just made its id.
 */
export function createSpools({path}: {path: string}): Spools {
  const buffers = createReadBuffers();
  const inUse = new Set<string>();
  let sweeping: Promise<unknown> = Promise.resolve();

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

  const claim = (key: SpoolKey, name: string): void => {
    if (inUse.has(name)) throw new Error(`the spool of ${key} is open already: it is grown by one at a time`);
    inUse.add(name);
  };

  return {
    async open(key) {
      const name = fileNameOf(key);
      claim(key, name);
      try {
        // A sweep that began earlier may be about to remove this very file.
        await sweeping;
        await mkdir(path, {recursive: true});
        const file = await open(join(path, name), constants.O_RDWR | constants.O_CREAT);
        const {size} = await file.stat();
        const release = () => void inUse.delete(name);
        return createFileSpool({key, path: join(path, name), file, size, buffers, release});
      } catch (error) {
        inUse.delete(name);
        throw error;
      }
    },

    async remove(key) {
      const name = fileNameOf(key);
      claim(key, name);
      try {
        await rm(join(path, name), {force: true});
      } finally {
        inUse.delete(name);
      }
    },

    sweep(before) {
      const sweep = sweeping.then(() => removeOld(before));
      sweeping = sweep.catch(() => {});
      return sweep;
    },
  };
}

/** A path is only ever made from a parsed digest or upload id. */
const fileNameOf = (key: SpoolKey): string =>
  isDigest(key) ? `${algorithmOf(key)}-${encodedOf(key)}.part` : `upload-${key}.part`;
