/*
 * A backup is an OCI image layout (image-spec, "Image Layout") with one file more:
 *
 *   <folder>/
 *     backref-backup.json     the version of the format, and which store this is a backup of; written first
 *     oci-layout
 *     index.json              the contents; written last, and replaced as a whole
 *     blobs/sha256/ab12…      manifests and blobs
 *     blobs/sha512/cd34…
 *     tmp/                    copies under way
 */
import {randomUUID} from 'node:crypto';
import {createReadStream} from 'node:fs';
import {type FileHandle, mkdir, open, readdir, readFile, rename, rm, stat} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {errorCode} from '../../error-code.ts';
import {algorithmOf, createDigester, type Digest, encodedOf, isDigest} from '../../oci/digest.ts';
import type {BackupContents, BackupFolder} from '../backup-folder.ts';
import {indexText, parseIndex} from './backup-index.ts';
import {freeSpace, makeFolder, namesIn, sync, unlessMissing} from './files.ts';

const VERSION = 1;
const MARKER = 'backref-backup.json';
const INDEX = 'index.json';
const ALGORITHMS = ['sha256', 'sha512'];
/** What an empty folder may have in it: a file system's own folder, and what a first run left that was interrupted at once. */
const NEGLIGIBLE = new Set(['lost+found', `${MARKER}.new`]);

/** @param path of the folder; absolute */
export const createBackupFolder = (path: string): BackupFolder => new LayoutFolder(path);

class LayoutFolder implements BackupFolder {
  readonly #path: string;
  readonly #temporary: string;

  constructor(path: string) {
    this.#path = path;
    this.#temporary = join(path, 'tmp');
  }

  async begin(store: string): Promise<void> {
    await this.#explainFull(async () => {
      await this.#expectTarget(store);
      await rm(this.#temporary, {recursive: true, force: true});
      await makeFolder(this.#temporary);
      await makeFolder(join(this.#path, 'blobs'));
      for (const algorithm of ALGORITHMS) await makeFolder(join(this.#path, 'blobs', algorithm));
      await sync(join(this.#path, 'blobs'));
      await this.#replace('oci-layout', ['{"imageLayoutVersion":"1.0.0"}\n']);
    });
  }

  async contents(): Promise<BackupContents> {
    const names = await unlessMissing(this.#names());
    if (!names) throw new Error(`There is no folder ${this.#path}: name the folder of a backup.`);
    if (!(await this.#marker())) {
      throw new Error(`${this.#path} is not a backup: there is no ${MARKER} in it.`);
    }
    const text = await unlessMissing(readFile(join(this.#path, INDEX), 'utf8'));
    if (text === undefined) {
      throw new Error(
        `The backup ${this.#path} is not complete: there is no ${INDEX} in it. Its run was interrupted: run "backref backup" again.`,
      );
    }
    try {
      return parseIndex(text);
    } catch (error) {
      throw damaged(join(this.#path, INDEX), error);
    }
  }

  async size(digest: Digest): Promise<number | undefined> {
    return (await unlessMissing(stat(this.pathOf(digest))))?.size;
  }

  open(digest: Digest): AsyncIterable<Uint8Array> {
    return createReadStream(this.pathOf(digest));
  }

  put(digest: Digest, chunks: AsyncIterable<Uint8Array>): Promise<boolean> {
    return this.#explainFull(async () => {
      const temporary = join(this.#temporary, randomUUID());
      try {
        const digester = createDigester(algorithmOf(digest));
        await writeFile(temporary, async (file) => {
          for await (const chunk of chunks) {
            digester.update(chunk);
            await file.writeFile(chunk);
          }
        });
        if (digester.digest() !== digest) return false;
        await rename(temporary, this.pathOf(digest));
        return true;
      } finally {
        await rm(temporary, {force: true});
      }
    });
  }

  async complete(contents: BackupContents, at: number): Promise<void> {
    await this.#explainFull(async () => {
      for (const algorithm of ALGORITHMS) await sync(join(this.#path, 'blobs', algorithm));
      await this.#replace(INDEX, indexText(contents, at));
    });
  }

  async prune(keep: {has(digest: Digest): boolean}): Promise<void> {
    for (const algorithm of ALGORITHMS) {
      const folder = join(this.#path, 'blobs', algorithm);
      for (const name of await namesIn(folder)) {
        const digest = `${algorithm}:${name}`;
        if (isDigest(digest) && !keep.has(digest)) await rm(join(folder, name), {force: true});
      }
    }
    await rm(this.#temporary, {recursive: true, force: true});
  }

  pathOf(digest: Digest): string {
    return join(this.#path, 'blobs', algorithmOf(digest), encodedOf(digest));
  }

  freeBytes(): Promise<number> {
    return freeSpace(this.#path);
  }

  /** Makes sure that the folder may take a backup of this store, and says so in it. */
  async #expectTarget(store: string): Promise<void> {
    await this.#makeFolder();
    const marker = await this.#marker();
    if (marker === undefined) {
      const other = (await this.#names()).find((name) => !NEGLIGIBLE.has(name));
      if (other !== undefined) {
        throw new Error(
          `${this.#path} is not empty and not a backup: "${other}" is in it. Name an empty or a new folder.`,
        );
      }
      await this.#replace(MARKER, [`${JSON.stringify({version: VERSION, store})}\n`]);
    } else if (marker !== store) {
      throw new Error(
        `${this.#path} holds the backup of another store (${marker}; this one is ${store}). It stays as it is: name another folder.`,
      );
    }
  }

  /** In a parent that exists: a disk that is not mounted is not replaced by a folder. */
  async #makeFolder(): Promise<void> {
    try {
      await mkdir(this.#path);
      await sync(dirname(this.#path));
    } catch (error) {
      const code = errorCode(error);
      if (code === 'ENOENT') {
        throw new Error(
          `The folder that ${this.#path} would be in does not exist: create it, or mount its disk.`,
        );
      }
      if (code !== 'EEXIST') throw error;
    }
  }

  async #names(): Promise<string[]> {
    try {
      return await readdir(this.#path);
    } catch (error) {
      if (errorCode(error) === 'ENOTDIR') throw new Error(`${this.#path} is not a folder.`);
      throw error;
    }
  }

  /** The id of the store that this is a backup of; undefined where there is no backup. */
  async #marker(): Promise<string | undefined> {
    await this.#names();
    const file = join(this.#path, MARKER);
    const text = await unlessMissing(readFile(file, 'utf8'));
    if (text === undefined) return undefined;
    const {version, store} = parseMarker(text, file);
    if (version !== VERSION) {
      throw new Error(
        `${this.#path} is a backup of version ${version}; this backref knows version ${VERSION}. Use the backref that wrote it, or a newer one.`,
      );
    }
    return store;
  }

  /** Replaces a file at once, durably. */
  async #replace(name: string, texts: Iterable<string>): Promise<void> {
    const draft = join(this.#path, `${name}.new`);
    await writeFile(draft, async (file) => {
      for (const text of texts) await file.writeFile(text);
    });
    await rename(draft, join(this.#path, name));
    await sync(this.#path);
  }

  async #explainFull<T>(work: () => Promise<T>): Promise<T> {
    try {
      return await work();
    } catch (error) {
      const code = errorCode(error);
      if (code !== 'ENOSPC' && code !== 'EDQUOT') throw error;
      throw new Error(
        `There is no space left in ${this.#path} (${code}). An earlier backup in it is still complete. Free space and run this again: it continues.`,
        {cause: error},
      );
    }
  }
}

/** Writes a file, in place of one that is there, and has it on the disk. */
async function writeFile(path: string, write: (file: FileHandle) => Promise<void>): Promise<void> {
  const file = await open(path, 'w');
  try {
    await write(file);
    await file.sync();
  } finally {
    await file.close();
  }
}

function parseMarker(text: string, file: string): {version: number; store: string} {
  try {
    const {version, store} = JSON.parse(text);
    if (typeof version === 'number' && typeof store === 'string') return {version, store};
    throw new Error('it does not name a version and a store');
  } catch (error) {
    throw damaged(file, error);
  }
}

const damaged = (file: string, error: unknown): Error =>
  new Error(`The backup is damaged: ${file}: ${error instanceof Error ? error.message : String(error)}.`, {
    cause: error,
  });
