import {createReadStream} from 'node:fs';
import {open} from 'node:fs/promises';
import {pipeline, type Readable} from 'node:stream';
import {createGunzip, createZstdDecompress} from 'node:zlib';
import type {Image, Pull, Workload} from './workload.ts';

/** What a record of libCacheSim's `oracleGeneral` format holds, little-endian without gaps. */
const RECORD_BYTES = 24;
const TIME_AT = 0;
const ID_AT = 4;
const SIZE_AT = 12;
// The last 8 bytes are the place of the object's next request, which the simulation finds by itself.

const GZIP = 0x1f8b;
const ZSTD = 0x28b52ffd;
const SECONDS_PER_MINUTE = 60;
const NO_BLOBS = new Int32Array();

/**
 * Reads a trace in libCacheSim's `oracleGeneral` format, plain, or compressed by gzip or zstd. Each object becomes an image
 * of one content; its first size counts, and objects of 0 bytes are left out.
 * @throws Error when the file ends within a record, is damaged or holds nothing
 */
export async function readTrace(path: string): Promise<Workload> {
  const reader = new TraceReader();
  for await (const chunk of await openTrace(path)) reader.take(chunk);
  return reader.workload(path);
}

async function openTrace(path: string): Promise<AsyncIterable<Buffer>> {
  const head = Buffer.alloc(4);
  const file = await open(path);
  await file.read(head, 0, head.length, 0).finally(() => file.close());
  const stream: Readable = createReadStream(path);
  // An error on the way ends the iteration over the last stream.
  const through = (decompress: ReturnType<typeof createGunzip>) => pipeline(stream, decompress, () => {});
  if (head.readUInt32BE(0) === ZSTD) return through(createZstdDecompress());
  if (head.readUInt16BE(0) === GZIP) return through(createGunzip());
  return stream;
}

class TraceReader {
  readonly #contents = new Map<bigint, number>();
  readonly #sizes: number[] = [];
  readonly #images: Image[] = [];
  readonly #pulls: Pull[] = [];
  #rest: Buffer = Buffer.alloc(0);

  take(chunk: Buffer): void {
    const bytes = this.#rest.length > 0 ? Buffer.concat([this.#rest, chunk]) : chunk;
    let at = 0;
    for (; at + RECORD_BYTES <= bytes.length; at += RECORD_BYTES) this.#record(bytes, at);
    this.#rest = bytes.subarray(at);
  }

  workload(path: string): Workload {
    if (this.#rest.length > 0) throw new Error(`${path} ends within a record of ${RECORD_BYTES} bytes`);
    if (this.#pulls.length === 0) throw new Error(`${path} has no requests`);
    return {sizes: Float64Array.from(this.#sizes), images: this.#images, pulls: this.#pulls};
  }

  #record(bytes: Buffer, at: number): void {
    const size = bytes.readUInt32LE(at + SIZE_AT);
    if (size === 0) return;
    const id = bytes.readBigUInt64LE(at + ID_AT);
    let content = this.#contents.get(id);
    if (content === undefined) {
      content = this.#sizes.push(size) - 1;
      this.#contents.set(id, content);
      this.#images.push({manifest: content, blobs: NO_BLOBS});
    }
    const minute = Math.floor(bytes.readUInt32LE(at + TIME_AT) / SECONDS_PER_MINUTE);
    this.#pulls.push({at: minute, image: content, blobs: NO_BLOBS, isCrawl: false});
  }
}
