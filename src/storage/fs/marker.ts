import {randomUUID} from 'node:crypto';
import type {BigIntStats} from 'node:fs';
import {mkdir, open, rename, stat} from 'node:fs/promises';
import {join} from 'node:path';
import type {Digest} from '../../oci/digest.ts';
import {type ListedBlob, StoreMissing} from '../blob-store.ts';
import {sync, unlessMissing} from './files.ts';

/** The file in the store's folder that says which store it is: an id, which the metadata know as well. */
const NAME = 'backref-store';
/** Longer than a marker is. */
const MAX_BYTES = 256;
/** How many blobs of a store without a marker are looked for in the metadata before it counts as another store. */
const MAX_BLOBS_COMPARED = 1000;
/**
 * File systems count the time of a change in steps, of 10 ms at most, or of up to two seconds where they count whole ones. A
 * second change within this many milliseconds may have the time of the first.
 */
const STEP_MS = {fine: 100, coarse: 2000};

/** The part of the metadata that the marker needs. */
export interface StoreLedger {
  blobStore(): Promise<{id: string | undefined; hasBlobs: boolean}>;
  /** undefined for a blob that was not stored. */
  blob(digest: Digest): Promise<object | undefined>;
  commit(changes: readonly {type: 'blob-store.put'; id: string}[]): Promise<unknown>;
}

export interface Marker {
  /** Resolves when the folder is the store that the metadata belong to. @throws StoreMissing */
  expect(): Promise<void>;
  /**
   * As `expect`, but does not read a marker that has been read, and has not changed since. A network file system may take
   * a minute to tell that its files are gone, so nothing may be concluded from the absence of one. @throws StoreMissing
   */
  expectUnchanged(): Promise<void>;
}

export interface MarkerParts {
  /** The store's folder. */
  path: string;
  metadata: StoreLedger;
  /** The blobs in the folder, whatever its marker says. */
  list(): AsyncIterable<ListedBlob>;
  /** The time of the file system, in milliseconds since the epoch; default the system's. */
  now?: () => number;
}

/**
 * Tells a store whose disk is missing from one that has lost a blob. The marker is read each time: a disk comes and goes
 * without notice. A new store, without any blob in it, gets a marker. So does a store from before there were markers, once
 * it turns out to hold a blob that the metadata know; and one in which the operator has put an empty marker.
 */
export const createMarker = (parts: MarkerParts): Marker => new FileMarker(parts);

class FileMarker implements Marker {
  readonly #path: string;
  readonly #file: string;
  readonly #metadata: StoreLedger;
  readonly #list: MarkerParts['list'];
  readonly #now: () => number;
  #id: string | undefined;
  /** The marker that was read last, where its properties would show a change. */
  #known: ReadMarker | undefined;
  #identifying: Promise<void> | undefined;

  constructor({path, metadata, list, now = Date.now}: MarkerParts) {
    this.#path = path;
    this.#file = join(path, NAME);
    this.#metadata = metadata;
    this.#list = list;
    this.#now = now;
  }

  async expect(): Promise<void> {
    if (this.#id !== undefined && (await this.#read())?.content === this.#id) return;
    this.#identifying ??= this.#identify().finally(() => {
      this.#identifying = undefined;
    });
    await this.#identifying;
  }

  async expectUnchanged(): Promise<void> {
    const known = this.#known;
    if (known && known.content === this.#id && (await this.#isStill(known))) return;
    await this.expect();
  }

  async #isStill({properties}: ReadMarker): Promise<boolean> {
    const now = await this.#orMissing(stat(this.#file, {bigint: true}));
    return now !== undefined && isSameFile(properties, now);
  }

  /** Undefined where the marker is missing. */
  async #read(): Promise<ReadMarker | undefined> {
    const read = await this.#orMissing(readMarker(this.#file));
    this.#known = read && isSettled(read.properties, this.#now()) ? read : undefined;
    return read;
  }

  /** @throws StoreMissing where the marker can be neither read nor said to be missing */
  async #orMissing<T>(answer: Promise<T>): Promise<T | undefined> {
    try {
      return await unlessMissing(answer);
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StoreMissing(`the blob store ${this.#path} cannot be read: ${reason}`, {cause: error});
    }
  }

  /** Finds out whether the folder is the store that the metadata belong to, and gives it the marker that it lacks. */
  async #identify(): Promise<void> {
    const found = (await this.#read())?.content;
    const {id: noted, hasBlobs} = await this.#metadata.blobStore();
    if (noted !== undefined && found === noted) {
      this.#id = noted;
      return;
    }
    if (noted === undefined && !hasBlobs && (await this.#isEmpty())) return this.#mark(found, noted);
    const isOurs = found === '' || (noted === undefined && hasBlobs && (await this.#holdsKnownBlob()));
    if (!isOurs) throw noted !== undefined || hasBlobs ? this.#missing(found) : this.#unknown();
    // A full or read-only disk can still be read; the marker is written when that is possible again.
    await this.#mark(found, noted).catch(() => {});
  }

  async #isEmpty(): Promise<boolean> {
    for await (const _ of this.#list()) return false;
    return true;
  }

  async #holdsKnownBlob(): Promise<boolean> {
    let compared = 0;
    for await (const {digest} of this.#list()) {
      if (await this.#metadata.blob(digest)) return true;
      compared += 1;
      if (compared === MAX_BLOBS_COMPARED) break;
    }
    return false;
  }

  /** Writes the marker where it is missing, and records what it says. */
  async #mark(found: string | undefined, noted: string | undefined): Promise<void> {
    const content = noted ?? (found || randomUUID());
    if (found !== content) await this.#write(content);
    if (noted !== content) await this.#metadata.commit([{type: 'blob-store.put', id: content}]);
    this.#id = content;
  }

  async #write(content: string): Promise<void> {
    await mkdir(this.#path, {recursive: true});
    const draft = `${this.#file}.new`;
    const handle = await open(draft, 'w');
    try {
      await handle.writeFile(`${content}\n`);
      await handle.sync();
    } finally {
      await handle.close();
    }
    await rename(draft, this.#file);
    await sync(this.#path);
  }

  #missing(found: string | undefined): StoreMissing {
    return new StoreMissing(
      `the blob store ${this.#path} is missing: ${found ? `${NAME} in it is that of another store` : `there is no ${NAME} in it`}. ` +
        `Mount its disk again, or restore the folder. If its blobs are lost for good, create an empty file ${this.#file}: backref then goes on with what is there.`,
    );
  }

  /** With new metadata every blob would be garbage, although it is the metadata that are missing. */
  #unknown(): StoreMissing {
    return new StoreMissing(
      `the blob store ${this.#path} holds blobs, and the metadata know none of them. ` +
        `Restore the metadata, or correct storage.metadata.path. If the metadata are lost for good, replace ${this.#file} with an empty file: backref then starts over, and garbage collection removes the blobs.`,
    );
  }
}

interface ReadMarker {
  readonly content: string;
  readonly properties: BigIntStats;
}

/** @throws what the file system says */
async function readMarker(path: string): Promise<ReadMarker> {
  const file = await open(path);
  try {
    const properties = await file.stat({bigint: true});
    const {bytesRead, buffer} = await file.read(Buffer.alloc(MAX_BYTES), 0, MAX_BYTES, 0);
    return {content: buffer.toString('utf8', 0, bytesRead).trim(), properties};
  } finally {
    await file.close();
  }
}

/** Whether a later change gives the file another time. */
function isSettled({ctimeNs, ctimeMs}: BigIntStats, now: number): boolean {
  const step = ctimeNs % 1_000_000_000n === 0n ? STEP_MS.coarse : STEP_MS.fine;
  return now - Number(ctimeMs) > step;
}

const isSameFile = (before: BigIntStats, now: BigIntStats): boolean =>
  now.dev === before.dev &&
  now.ino === before.ino &&
  now.size === before.size &&
  now.ctimeNs === before.ctimeNs;
