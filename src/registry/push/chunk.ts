import {OciError} from '../../oci/errors.ts';
import {rangeLength} from '../../oci/range.ts';
import type {Chunk} from './push.ts';
import type {OpenUpload} from './uploads.ts';

/**
 * Takes a chunk into an upload. Whatever of it arrived before a fault stays: the upload's offset tells how much that
 * is, and a client goes on from there (dist-spec, Pushing a blob in chunks).
 * @throws OciError BLOB_UPLOAD_INVALID with 416 for a chunk that does not begin where the upload ends; SIZE_INVALID
 * for more or fewer bytes than were told; what reading and writing them throw
 */
export async function pour(chunk: Chunk, upload: OpenUpload): Promise<void> {
  const told = toldBytes(chunk);
  if (chunk.range && chunk.range.start !== upload.offset) {
    throw outOfOrder(upload.offset, `the chunk begins at byte ${chunk.range.start}`);
  }
  let given = 0;
  for await (const bytes of chunk.bytes) {
    given += bytes.length;
    if (told !== undefined && given > told) throw wrongSize(`the body has more than the ${told} bytes`);
    await upload.take(bytes);
  }
  if (told !== undefined && given < told) throw wrongSize(`the body has ${given} of the ${told} bytes`);
}

/**
 * The bytes that a chunk is to have.
 * @throws OciError SIZE_INVALID when its range and its length disagree
 */
function toldBytes({length, range}: Chunk): number | undefined {
  if (!range) return length;
  const size = rangeLength(range);
  if (length === undefined || length === size) return size;
  throw wrongSize(
    `Content-Length is ${length}, and Content-Range ${range.start}-${range.end} has ${size} bytes`,
  );
}

const wrongSize = (what: string): OciError =>
  new OciError('SIZE_INVALID', {
    message: `${what}${what.startsWith('Content') ? '' : ' that its headers tell'}; ask with GET where the upload stands and go on from there`,
  });

/** dist-spec, Pushing a blob in chunks: 416 with the range that is here. The upload stays as it is. */
export const outOfOrder = (offset: number, what: string): OciError =>
  new OciError('BLOB_UPLOAD_INVALID', {
    status: 416,
    message: `${what}, but this upload has ${offset} bytes: send the chunk that begins at byte ${offset}`,
    headers: {Range: rangeOf(offset)},
    detail: {offset},
  });

/** dist-spec, Pushing a blob in chunks: `Range: 0-0` also while nothing is here. */
export const rangeOf = (offset: number): string => `0-${Math.max(0, offset - 1)}`;
