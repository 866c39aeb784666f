import {OciError} from '../oci/errors.ts';
import {type ByteRange, rangeLength} from '../oci/range.ts';
import type {BlobAnswer} from '../registry/blobs/answer.ts';
import type {Blobs} from '../registry/blobs/blobs.ts';
import {sizeInDispute} from '../registry/failure.ts';
import type {Route} from '../registry/namespace.ts';
import type {Push} from '../registry/push/push.ts';
import {type Answer, contentHeaders, type Handler, ifRangeHolds, noneMatch} from './answer.ts';
import {contentRange, multipart, rangesOf} from './ranges.ts';
import {digestInPath, headerOf, type Request} from './request.ts';

const MEDIA_TYPE = 'application/octet-stream';

/** dist-spec, end-2, with the ranges of RFC 9110, section 14. */
export const getBlob =
  (blobs: Blobs): Handler<Route> =>
  async (request, route, caller) => {
    const blob = await blobs.get(route, digestInPath(request), caller, request.closed());
    const {digest, report, repeat} = blob;
    const headers = {...contentHeaders(digest, report), 'Accept-Ranges': 'bytes'};
    if (noneMatch(headerOf(request, 'if-none-match'), digest)) {
      // Only who opens a file sees whether it is still there.
      return {status: 304, headers, report, repeat: blob.bytes && repeat};
    }
    const content = await contentOf(blob, rangesAsked(request, blob));
    return {
      ...content,
      headers: {'Content-Type': MEDIA_TYPE, ...headers, ...content.headers},
      report,
      repeat,
    };
  };

/** dist-spec, Checking if Content Exists; a range is ignored (RFC 9110, section 14.2). */
export const headBlob =
  (blobs: Blobs): Handler<Route> =>
  async (request, route, caller) => {
    const {digest, size, report, repeat} = await blobs.head(route, digestInPath(request), caller);
    const headers = {...contentHeaders(digest, report), 'Accept-Ranges': 'bytes'};
    if (noneMatch(headerOf(request, 'if-none-match'), digest)) return {status: 304, headers, report, repeat};
    const described = {'Content-Type': MEDIA_TYPE, ...headers, ...lengthHeader(size)};
    return {status: 200, headers: described, report, repeat};
  };

/** dist-spec, end-10. */
export const deleteBlob =
  (push: Push): Handler<Route> =>
  async (request, route, caller) => {
    await push.deleteBlob(route, digestInPath(request), caller);
    return {status: 202, headers: {}};
  };

const lengthHeader = (size: number | undefined) => ({
  'Content-Length': size === undefined ? undefined : String(size),
});

function rangesAsked(
  request: Request,
  {digest, size, promised, stored}: BlobAnswer,
): readonly ByteRange[] | 'whole' {
  if (size === undefined || !ifRangeHolds(headerOf(request, 'if-range'), digest)) return 'whole';
  const field = headerOf(request, 'range');
  const ranges = rangesOf(field, size);
  if (ranges === 'unsatisfiable') {
    if (promised !== undefined && rangesOf(field, promised) !== 'unsatisfiable') {
      throw sizeInDispute(digest, {named: size, promised});
    }
    throw new OciError('SIZE_INVALID', {
      status: 416,
      message: `the range "${field?.slice(0, 80)}" lies outside of the blob's ${size} bytes`,
      headers: {'Content-Range': `bytes */${size}`},
    });
  }
  // Parts of a blob that is still arriving would wait for each other, and the whole blob is a valid answer too.
  return ranges !== 'whole' && ranges.length > 1 && !stored ? 'whole' : ranges;
}

async function contentOf(blob: BlobAnswer, ranges: readonly ByteRange[] | 'whole'): Promise<Answer> {
  if (ranges === 'whole') return whole(blob);
  const [first] = ranges;
  return ranges.length === 1 && first ? part(blob, first) : parts(blob, ranges);
}

async function whole(blob: BlobAnswer): Promise<Answer> {
  const {size, bytes, file} = blob;
  return {status: 200, headers: lengthHeader(size), body: bytes ?? (await blob.open()), file};
}

async function part(blob: BlobAnswer, range: ByteRange): Promise<Answer> {
  const headers = {'Content-Range': contentRange(range, blob.size ?? 0), ...lengthHeader(rangeLength(range))};
  return {status: 206, headers, body: await blob.open(range)};
}

function parts(blob: BlobAnswer, ranges: readonly ByteRange[]): Answer {
  const {contentType, length, body} = multipart(ranges, blob.size ?? 0, MEDIA_TYPE, (range) =>
    blob.open(range),
  );
  return {status: 206, headers: {'Content-Type': contentType, ...lengthHeader(length)}, body};
}
