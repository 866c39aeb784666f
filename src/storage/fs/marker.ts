import {randomUUID} from 'node:crypto';
import {mkdir, open, readFile, rename} from 'node:fs/promises';
import {join} from 'node:path';
import type {Digest} from '../../oci/digest.ts';
import {type ListedBlob, StoreMissing} from '../blob-store.ts';
import {sync} from './durable.ts';
import {unlessMissing} from './missing.ts';

/** The file in the store's folder that tells which store it is: an id, which the metadata know as well. */
const NAME = 'backref-store';
/** Blobs of a store without marker that are looked for in the metadata before it is taken for another one. */
const MAX_BLOBS_COMPARED = 1000;

/** What is known of the store outside of it: the part of the metadata that the marker needs. */
export interface StoreLedger {
  blobStore(): Promise<{id: string | undefined; hasBlobs: boolean}>;
  /** undefined for a blob that was not stored. */
  blob(digest: Digest): Promise<object | undefined>;
  commit(changes: readonly {type: 'blob-store.put'; id: string}[]): Promise<unknown>;
}

export interface Marker {
  /** Resolves when the folder is the store that the metadata belong to. @throws StoreMissing */
  expect(): Promise<void>;
}

export interface MarkerParts {
  /** The store's folder. */
  path: string;
  metadata: StoreLedger;
  /** The blobs in the folder, whatever its marker says. */
  list(): AsyncIterable<ListedBlob>;
}

/**
 * Tells a store whose disk is missing from one that has lost a blob. The marker is read anew each time: a disk comes
 * and goes without notice. A new store, without any blob in it, gets one. So does a store from before there were markers,
 * once it turns out to hold a blob that the metadata know; and one in which the operator has put an empty marker.
 */
export function createMarker({path, metadata, list}: MarkerParts): Marker {
  const file = join(path, NAME);
  let id: string | undefined;
  let settling: Promise<void> | undefined;

  async function read(): Promise<string | undefined> {
    try {
      return (await unlessMissing(readFile(file, 'utf8')))?.trim();
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StoreMissing(`the blob store ${path} cannot be read: ${reason}`, {cause: error});
    }
  }

  async function write(content: string): Promise<void> {
    await mkdir(path, {recursive: true});
    const draft = `${file}.new`;
    const handle = await open(draft, 'w');
    try {
      await handle.writeFile(`${content}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, file);
    await sync(path);
  }

  async function holdsKnownBlob(): Promise<boolean> {
    let compared = 0;
    for await (const {digest} of list()) {
      if (await metadata.blob(digest)) return true;
      compared += 1;
      if (compared === MAX_BLOBS_COMPARED) break;
    }
    return false;
  }

  /** Gives the store the marker that it lacks, and notes what it says. */
  async function mark(found: string | undefined, noted: string | undefined): Promise<void> {
    const content = noted ?? (found || randomUUID());
    if (found !== content) await write(content);
    if (noted !== content) await metadata.commit([{type: 'blob-store.put', id: content}]);
    id = content;
  }

  async function isEmpty(): Promise<boolean> {
    for await (const _ of list()) return false;
    return true;
  }

  async function settle(): Promise<void> {
    const found = await read();
    const {id: noted, hasBlobs} = await metadata.blobStore();
    if (noted !== undefined && found === noted) {
      id = noted;
      return;
    }
    if (noted === undefined && !hasBlobs && (await isEmpty())) return mark(found, noted);
    const isOurs = found === '' || (noted === undefined && hasBlobs && (await holdsKnownBlob()));
    if (!isOurs) throw noted !== undefined || hasBlobs ? missing(found) : unknown();
    // A full or read-only disk can still be read; the marker is written when that is possible again.
    await mark(found, noted).catch(() => {});
  }

  const missing = (found: string | undefined): StoreMissing =>
    new StoreMissing(
      `the blob store ${path} is missing: ${found ? `${NAME} in it is that of another store` : `there is no ${NAME} in it`}. ` +
        `Mount its disk again, or restore the folder. If its blobs are lost for good, create an empty file ${file}: backref then goes on with what is there.`,
    );

  /** With new metadata every blob would be garbage, although it is the metadata that are missing. */
  const unknown = (): StoreMissing =>
    new StoreMissing(
      `the blob store ${path} holds blobs, and the metadata know none of them. ` +
        `Restore the metadata, or correct storage.metadata.path. If the metadata are lost for good, replace ${file} with an empty file: backref then starts over, and garbage collection removes the blobs.`,
    );

  return {
    async expect() {
      if (id !== undefined && (await read()) === id) return;
      settling ??= settle().finally(() => {
        settling = undefined;
      });
      await settling;
    },
  };
}
