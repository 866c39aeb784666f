import {randomUUID} from 'node:crypto';
import parse from 'range-parser';
import {type ByteRange, rangeLength} from '../oci/range.ts';

/** `whole`: answer 200 with everything; `unsatisfiable`: answer 416. */
export type RangeVerdict = ByteRange[] | 'whole' | 'unsatisfiable';

/** A request for more ranges is answered with the whole (RFC 9110, section 14.2 allows a server to ignore ranges). */
const MAX_RANGES = 64;
const BYTES = /^bytes=/i;
const SUFFIX = /(?<=[=,]\s*)-(\d+)/g;

/**
 * Reads a `Range` header (RFC 9110, section 14). Other units and malformed ranges are ignored; overlapping ranges are
 * merged.
 * @param size of the content, in bytes
 */
export function rangesOf(header: string | undefined, size: number): RangeVerdict {
  const text = header?.trim();
  if (text === undefined || !BYTES.test(text)) return 'whole';
  // RFC 9110, section 14.1.2: a suffix longer than the content is all of it; range-parser calls it unsatisfiable.
  const bounded = text.replaceAll(SUFFIX, (_, length: string) => `-${Math.min(Number(length), size)}`);
  const parsed = parse(size, bounded, {combine: true});
  if (parsed === -2) return 'whole';
  if (parsed === -1) return 'unsatisfiable';
  return parsed.length > MAX_RANGES ? 'whole' : parsed.map(({start, end}) => ({start, end}));
}

/** The `Content-Range` of a part. @param size of the content, in bytes */
export const contentRange = ({start, end}: ByteRange, size: number): string =>
  `bytes ${start}-${end}/${size}`;

export interface Multipart {
  contentType: string;
  /** Bytes of the whole body. */
  length: number;
  body: AsyncIterable<Uint8Array>;
}

/** Several ranges in one body: `multipart/byteranges` (RFC 9110, section 14.6). A range is opened when it is reached. */
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
      `\r\n--${boundary}\r\nContent-Type: ${mediaType}\r\nContent-Range: ${contentRange(range, size)}\r\n\r\n`,
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
