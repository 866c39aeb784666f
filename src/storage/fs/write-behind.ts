import type {FileHandle} from 'node:fs/promises';

const MIB = 1024 * 1024;
/** Bytes that may wait for the disk before `append` holds its caller back. */
const IN_FLIGHT = MIB;
/** Buffers handed to one system call; Linux allows 1,024. */
const BATCH = 256;

/** Bytes on their way to the end of one file, in order. */
export interface WriteBehind {
  /** Bytes that are in the file. */
  readonly size: number;
  /** Takes a chunk, which nobody may change afterwards. Resolves when more may follow. Throws as `drain` does. */
  append(chunk: Uint8Array): Promise<void>;
  /**
   * Resolves when all that was appended is in the file.
   * @throws what the file system said to any of the writes, e.g. ENOSPC; nothing is written after a failure.
   */
  drain(): Promise<void>;
  /** Drops what waits, and resolves when no write is under way. Never throws. */
  stop(): Promise<void>;
}

/** Writes behind the caller to `file` from offset `size` on. */
export function createWriteBehind(file: FileHandle, size: number): WriteBehind {
  let written = size;
  let waiting: Uint8Array[] = [];
  let bytesInFlight = 0;
  let failure: {error: unknown} | undefined;
  let work: Promise<void> | undefined;
  let room = Promise.withResolvers<void>();

  const write = async (batch: Uint8Array[]): Promise<void> => {
    let rest = batch;
    while (rest.length > 0) {
      const {bytesWritten} = await file.writev(rest, written);
      written += bytesWritten;
      bytesInFlight -= bytesWritten;
      rest = remainder(rest, bytesWritten);
    }
  };

  const pump = async (): Promise<void> => {
    try {
      while (waiting.length > 0) {
        await write(waiting.splice(0, BATCH));
        if (bytesInFlight > IN_FLIGHT) continue;
        room.resolve();
        room = Promise.withResolvers();
      }
    } catch (error) {
      failure = {error};
      waiting = [];
    } finally {
      work = undefined;
      room.resolve();
      room = Promise.withResolvers();
    }
  };

  const rethrow = (): void => {
    if (failure) throw failure.error;
  };

  return {
    get size() {
      return written;
    },
    async append(chunk) {
      rethrow();
      if (chunk.byteLength === 0) return;
      waiting.push(chunk);
      bytesInFlight += chunk.byteLength;
      work ??= pump();
      while (bytesInFlight > IN_FLIGHT && work) await room.promise;
      rethrow();
    },
    async drain() {
      while (work) await work;
      rethrow();
    },
    async stop() {
      waiting = [];
      await work;
    },
  };
}

/** What of the chunks is left after `written` bytes. */
function remainder(chunks: Uint8Array[], written: number): Uint8Array[] {
  let offset = written;
  const next = chunks.findIndex((chunk) => {
    if (chunk.byteLength > offset) return true;
    offset -= chunk.byteLength;
    return false;
  });
  if (next === -1) return [];
  const [first, ...others] = chunks.slice(next);
  return first ? [first.subarray(offset), ...others] : [];
}
