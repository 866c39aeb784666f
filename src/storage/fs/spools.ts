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
import type {SpoolKey, Spools} from '../spool.ts';
import {createReadBuffers} from './buffers.ts';
import {unlessMissing} from './missing.ts';
import {createFileSpool} from './spool.ts';

/** Of a digest, or with the id of an upload. */
const PART = /^(?:sha(?:256|512)-[a-f0-9]+|upload-([a-f0-9-]+))\.part$/;

/**
 * Spools as files in the folder `path`, which is made at the first open. Those of digests belong to the one process that
 * works on the store; one of an upload, to whoever has just made its id.
 */
export function createSpools({path}: {path: string}): Spools {
  const buffers = createReadBuffers();
  const inUse = new Set<string>();
  /** Removals by a sweep that are under way. */
  const removing = new Map<string, Promise<void>>();

  const isOld = async (name: string, before: number): Promise<boolean> => {
    const stats = await unlessMissing(stat(join(path, name)));
    return stats !== undefined && stats.mtimeMs < before;
  };

  /** Whoever opens the spool in the meantime waits until this is over. */
  const removeUnused = async (name: string): Promise<boolean> => {
    if (inUse.has(name) || removing.has(name)) return false;
    const removal = rm(join(path, name), {force: true});
    removing.set(
      name,
      removal.catch(() => {}),
    );
    await removal.finally(() => removing.delete(name));
    return true;
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
        await removing.get(name);
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

    async sweep(before, isUnderWay) {
      let removed = 0;
      for (const name of (await unlessMissing(readdir(path))) ?? []) {
        const part = PART.exec(name);
        if (!part || inUse.has(name) || !(await isOld(name, before))) continue;
        const upload = part[1];
        if (upload !== undefined && (await isUnderWay(upload as UploadId))) continue;
        if (await removeUnused(name)) removed += 1;
      }
      return removed;
    },
  };
}

/** A path is only ever made from a parsed digest or upload id. */
const fileNameOf = (key: SpoolKey): string =>
  isDigest(key) ? `${algorithmOf(key)}-${encodedOf(key)}.part` : `upload-${key}.part`;
