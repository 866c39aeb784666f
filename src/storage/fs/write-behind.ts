import type {FileHandle} from 'node:fs/promises';

const MIB = 1024 * 1024;
/** Bytes that may wait for the disk before `append` holds its caller back. */
const MAX_BYTES_IN_FLIGHT = MIB;
/** Buffers handed to one system call; Linux allows 1,024. */
const MAX_BATCH = 256;

/** Bytes on their way to the end of one file, in order. */
export interface WriteBehind {
  /** Bytes that are in the file. */
  readonly size: number;
  /** What the file system said to the write that failed; undefined while none has. */
  readonly failure: unknown;
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
export const createWriteBehind = (file: FileHandle, size: number): WriteBehind => new FileWriter(file, size);

class FileWriter implements WriteBehind {
  readonly #file: FileHandle;
  #written: number;
  #waiting: Uint8Array[] = [];
  #bytesInFlight = 0;
  #failure: {error: unknown} | undefined;
  #work: Promise<void> | undefined;
  #room = Promise.withResolvers<void>();

  constructor(file: FileHandle, size: number) {
    this.#file = file;
    this.#written = size;
  }

  get size(): number {
    return this.#written;
  }

  get failure(): unknown {
    return this.#failure?.error;
  }

  async append(chunk: Uint8Array): Promise<void> {
    this.#rethrow();
    if (chunk.byteLength === 0) return;
    this.#waiting.push(chunk);
    this.#bytesInFlight += chunk.byteLength;
    this.#work ??= this.#writeWaiting();
    while (this.#bytesInFlight > MAX_BYTES_IN_FLIGHT && this.#work) await this.#room.promise;
    this.#rethrow();
  }

  async drain(): Promise<void> {
    while (this.#work) await this.#work;
    this.#rethrow();
  }

  async stop(): Promise<void> {
    this.#waiting = [];
    await this.#work;
  }

  async #writeWaiting(): Promise<void> {
    try {
      while (this.#waiting.length > 0) {
        await this.#write(this.#waiting.splice(0, MAX_BATCH));
        if (this.#bytesInFlight <= MAX_BYTES_IN_FLIGHT) this.#makeRoom();
      }
    } catch (error) {
      this.#failure = {error};
      this.#waiting = [];
    } finally {
      this.#work = undefined;
      this.#makeRoom();
    }
  }

  async #write(batch: Uint8Array[]): Promise<void> {
    let rest = batch;
    while (rest.length > 0) {
      const {bytesWritten} = await this.#file.writev(rest, this.#written);
      this.#written += bytesWritten;
      this.#bytesInFlight -= bytesWritten;
      rest = remainder(rest, bytesWritten);
    }
  }

  /** Resumes the callers that wait in `append`. */
  #makeRoom(): void {
    this.#room.resolve();
    this.#room = Promise.withResolvers();
  }

  #rethrow(): void {
    if (this.#failure) throw this.#failure.error;
  }
}

/** The chunks without their first `written` bytes. */
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
