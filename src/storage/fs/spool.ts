import {type FileHandle, rm} from 'node:fs/promises';
import type {Spool, SpoolKey} from '../spool.ts';
import type {ReadBuffers} from './buffers.ts';
import {readRange} from './read-range.ts';
import {createWriteBehind} from './write-behind.ts';

export interface FileSpoolOptions {
  key: SpoolKey;
  path: string;
  /** Open for reading and writing; the spool closes it. */
  file: FileHandle;
  /** Bytes that are in the file already. */
  size: number;
  buffers: ReadBuffers;
  /** Called once, when the path may be opened again. */
  release: () => void;
}

/**
 * A spool over an open file. A reader that is at work when the spool is discarded goes on to its end: the file lives
 * as long as it is open, under whatever name, so a published blob's readers are not cut off.
 */
export function createFileSpool({key, path, file, size, buffers, release}: FileSpoolOptions): Spool {
  let writer = createWriteBehind(file, size);
  /** Counts truncations, so that a reader from before one cannot go on with what came after it. */
  let generation = 0;
  let readers = 0;
  let lastReaderLeft: (() => void) | undefined;
  let released = false;
  let fileClosed: Promise<void> | undefined;
  let closing: Promise<void> | undefined;
  let discarding: Promise<void> | undefined;

  const expectOpen = (): void => {
    if (closing || discarding) throw new Error(`the spool of ${key} is closed`);
  };

  const giveUpPath = (): void => {
    if (released) return;
    released = true;
    release();
  };

  const closeFile = (): Promise<void> => {
    fileClosed ??= (async () => {
      if (readers > 0) await new Promise<void>((resolve) => (lastReaderLeft = resolve));
      await file.close();
    })();
    return fileClosed;
  };

  const close = async (): Promise<void> => {
    // What could not be written is not in the file, and its size says so to whoever opens it next.
    await writer.drain().catch(() => {});
    await closeFile();
    await discarding;
    giveUpPath();
  };

  const discard = async (): Promise<void> => {
    await writer.stop();
    await rm(path, {force: true});
    giveUpPath();
    if (readers === 0) await closeFile();
    else closeFile().catch(() => {});
  };

  return {
    key,
    path,
    get size() {
      return writer.size;
    },

    async append(chunk) {
      expectOpen();
      await writer.append(chunk);
    },

    async *read(start, end) {
      expectOpen();
      if (!(0 <= start && start <= end && end <= writer.size)) {
        throw new RangeError(
          `bytes ${start} to ${end} are not within the ${writer.size} that the spool holds`,
        );
      }
      const begun = generation;
      readers++;
      try {
        for await (const chunk of readRange(file, start, end, buffers)) {
          if (generation !== begun) throw new Error(`the spool of ${key} was emptied while it was read`);
          yield chunk;
        }
      } finally {
        readers--;
        if (readers === 0) lastReaderLeft?.();
      }
    },

    async flush() {
      expectOpen();
      await writer.drain();
      await file.datasync();
    },

    async truncate() {
      expectOpen();
      generation++;
      await writer.stop();
      await file.truncate(0);
      writer = createWriteBehind(file, 0);
    },

    async close() {
      closing ??= discarding ?? close();
      await closing;
    },

    // Once the path is given up it may be another opener's: a spool that was closed first leaves its file there.
    async discard() {
      discarding ??= released ? Promise.resolve() : discard();
      await discarding;
    },
  };
}
