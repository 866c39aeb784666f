import {randomUUID} from 'node:crypto';
import type {Span} from './ranges.ts';

export interface Multipart {
  contentType: string;
  /** Bytes of the whole body. */
  length: number;
  body: AsyncIterable<Uint8Array>;
}

/** Several ranges in one body: `multipart/byteranges` (RFC 9110, section 14.6). */
export function multipart(
  spans: readonly Span[],
  size: number,
  mediaType: string,
  open: (span: Span) => Promise<AsyncIterable<Uint8Array>>,
): Multipart {
  const boundary = randomUUID();
  const parts = spans.map((span) => ({
    span,
    head: Buffer.from(
      `\r\n--${boundary}\r\nContent-Type: ${mediaType}\r\nContent-Range: bytes ${span.start}-${span.end}/${size}\r\n\r\n`,
    ),
  }));
  const tail = Buffer.from(`\r\n--${boundary}--\r\n`);
  const length = parts.reduce(
    (sum, {head, span}) => sum + head.length + span.end - span.start + 1,
    tail.length,
  );
  async function* body(): AsyncGenerator<Uint8Array, void> {
    for (const {span, head} of parts) {
      yield head;
      yield* await open(span);
    }
    yield tail;
  }
  return {contentType: `multipart/byteranges; boundary=${boundary}`, length, body: body()};
}
