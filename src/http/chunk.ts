import type {Clock} from '../clock.ts';
import {OciError} from '../oci/errors.ts';
import {rangeLength} from '../oci/range.ts';
import type {Chunk} from '../registry/push/push.ts';
import {bodyOf, lengthOf} from './body.ts';
import type {Ctx} from './routing.ts';

/** dist-spec, Pushing a blob in chunks: `start-end`. Some clients write it as RFC 9110 has it, with unit and length. */
const CONTENT_RANGE = /^(?:bytes )?(\d{1,15})-(\d{1,15})(?:\/(?:\d+|\*))?$/;

/**
 * The bytes of an upload that a request carries.
 * @throws OciError 400 for a range that is malformed or of another length than the body
 */
export function chunkOf(ctx: Ctx, clock: Clock): Chunk {
  const length = lengthOf(ctx.req);
  const range = parseContentRange(ctx.get('Content-Range') || undefined);
  const bytes = bodyOf(ctx, clock, 'BLOB_UPLOAD_INVALID');
  if (!range) return {length, range, bytes};
  const counted = rangeLength(range);
  if (length !== undefined && length !== counted) throw disagreement(counted, String(length));
  return {length: counted, range, bytes: exactly(counted, bytes)};
}

function parseContentRange(text: string | undefined): Chunk['range'] {
  if (text === undefined) return undefined;
  const [, start, end] = CONTENT_RANGE.exec(text.trim()) ?? [];
  if (Number(start) <= Number(end)) return {start: Number(start), end: Number(end)};
  throw new OciError('BLOB_UPLOAD_INVALID', {
    message: `Content-Range is "${text.slice(0, 80)}": write the first and the last byte's place, e.g. 0-1023 for the first KiB`,
  });
}

/** A body whose length was not told has to keep to its range all the same. */
const exactly = (count: number, bytes: AsyncIterable<Uint8Array>): AsyncIterable<Uint8Array> => ({
  [Symbol.asyncIterator]() {
    const source = bytes[Symbol.asyncIterator]();
    const end = async () => {
      await source.return?.();
      return {done: true as const, value: undefined};
    };
    let left = count;
    return {
      async next() {
        const next = await source.next();
        if (next.done && left > 0) throw disagreement(count, String(count - left));
        if (next.done) return next;
        left -= next.value.length;
        if (left >= 0) return next;
        await end();
        throw disagreement(count, `more than ${count}`);
      },
      return: end,
    };
  },
});

const disagreement = (counted: number, found: string): OciError =>
  new OciError('SIZE_INVALID', {
    message: `Content-Range names ${counted} bytes, but the body has ${found}`,
  });
