import {randomUUID} from 'node:crypto';
import {type ByteRange, rangeLength} from '../oci/range.ts';

export interface Multipart {
  contentType: string;
  /** Bytes of the whole body. */
  length: number;
  body: AsyncIterable<Uint8Array>;
}

/** Several ranges in one body: `multipart/byteranges` (RFC 9110, section 14.6). */
export function multipart(
  ranges: readonly ByteRange[],
  size: number,
  mediaType: string,
  open: (range: ByteRange) => Promise<AsyncIterable<Uint8Array>>,
): Multipart {
  const boundary = randomUUID();
  const parts = ranges.map((range) => ({
    range,
    head: Buffer.from(
      `\r\n--${boundary}\r\nContent-Type: ${mediaType}\r\nContent-Range: bytes ${range.start}-${range.end}/${size}\r\n\r\n`,
    ),
  }));
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);
  const length = parts.reduce((sum, {head, range}) => sum + head.length + rangeLength(range), tail.length);
  async function* body(): AsyncGenerator<Uint8Array, void> {
    for (const {range, head} of parts) {
      yield head;
      yield* await open(range);
    }
    yield tail;
  }
  return {contentType: `multipart/byteranges; boundary=${boundary}`, length, body: body()};
}
