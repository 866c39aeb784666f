import {NOT_NEEDED} from '../clock.ts';
import {parseDigest} from '../oci/digest.ts';
import {OciError} from '../oci/errors.ts';
import {type ByteRange, rangeLength} from '../oci/range.ts';
import type {BlobAnswer, BlobFound} from '../registry/blobs/answer.ts';
import type {Blobs} from '../registry/blobs/blobs.ts';
import {sizeInDispute} from '../registry/failure.ts';
import {explain} from './answer.ts';
import {etagOf, ifRangeHolds, noneMatch} from './conditional.ts';
import {multipart} from './multipart.ts';
import {rangesOf} from './ranges.ts';
import {type Ctx, routed} from './routing.ts';
import {stream} from './send.ts';
import type {PushHandler} from './uploads.ts';

/** dist-spec, end-2, with the ranges of RFC 9110, section 14. */
export const getBlob = (blobs: Blobs) => async (ctx: Ctx) => {
  const route = routed(ctx);
  const digest = parseDigest(ctx.params['digest'] ?? '');
  const blob = await blobs.get(route, digest, ctx.state.caller, untilClosed(ctx));
  describe(ctx, blob);
  if (unchanged(ctx, blob)) return;
  const spans = spansOf(ctx, blob);
  if (spans === 'whole') return sendWhole(ctx, blob);
  const [first] = spans;
  if (spans.length === 1 && first) return sendPart(ctx, blob, first);
  await sendParts(ctx, blob, spans);
};

/** dist-spec, Checking if Content Exists; a range is ignored (RFC 9110, section 14.2). */
export const headBlob = (blobs: Blobs) => async (ctx: Ctx) => {
  const route = routed(ctx);
  const blob = await blobs.head(route, parseDigest(ctx.params['digest'] ?? ''), ctx.state.caller);
  describe(ctx, blob);
  if (unchanged(ctx, blob)) return;
  ctx.status = 200;
  ctx.set('Content-Length', String(blob.size));
};

/** dist-spec, end-10. */
export const deleteBlob: PushHandler = async (ctx, route, push) => {
  await push.deleteBlob(route, parseDigest(ctx.params['digest'] ?? ''), ctx.state.caller);
  ctx.body = null;
  ctx.status = 202;
};

/** Aborted when the answer has ended or its client has left. */
function untilClosed({res}: Ctx): AbortSignal {
  const closed = new AbortController();
  res.once('close', () => closed.abort(NOT_NEEDED));
  return closed.signal;
}

function describe(ctx: Ctx, {digest, report}: BlobFound): void {
  ctx.set('Content-Type', 'application/octet-stream');
  ctx.set('Docker-Content-Digest', digest);
  ctx.set('ETag', etagOf(digest));
  ctx.set('Accept-Ranges', 'bytes');
  explain(ctx, report);
}

function unchanged(ctx: Ctx, {digest}: BlobFound): boolean {
  if (!noneMatch(ctx.get('If-None-Match') || undefined, digest)) return false;
  ctx.status = 304;
  return true;
}

function spansOf(ctx: Ctx, {digest, size, promised, stored}: BlobAnswer): ByteRange[] | 'whole' {
  if (size === undefined || !ifRangeHolds(ctx.get('If-Range') || undefined, digest)) return 'whole';
  const range = ctx.get('Range') || undefined;
  const verdict = rangesOf(range, size);
  if (verdict === 'unsatisfiable') {
    if (promised !== undefined && rangesOf(range, promised) !== 'unsatisfiable') {
      throw sizeInDispute(digest, {named: size, promised});
    }
    throw new OciError('SIZE_INVALID', {
      status: 416,
      message: `the range "${ctx.get('Range').slice(0, 80)}" lies outside of the blob's ${size} bytes`,
      headers: {'Content-Range': `bytes */${size}`},
    });
  }
  // Several parts of a blob that is still arriving would wait for each other: the whole of it is as good an answer.
  return verdict !== 'whole' && verdict.length > 1 && !stored ? 'whole' : verdict;
}

async function sendWhole(ctx: Ctx, blob: BlobAnswer): Promise<void> {
  ctx.status = 200;
  if (blob.size !== undefined) ctx.set('Content-Length', String(blob.size));
  if (blob.bytes) ctx.body = blob.bytes;
  else await stream(ctx, await blob.open());
}

async function sendPart(ctx: Ctx, blob: BlobAnswer, range: ByteRange): Promise<void> {
  const bytes = await blob.open(range);
  ctx.status = 206;
  ctx.set('Content-Range', `bytes ${range.start}-${range.end}/${blob.size}`);
  ctx.set('Content-Length', String(rangeLength(range)));
  await stream(ctx, bytes);
}

async function sendParts(ctx: Ctx, blob: BlobAnswer, ranges: ByteRange[]): Promise<void> {
  const {contentType, length, body} = multipart(ranges, blob.size ?? 0, 'application/octet-stream', (range) =>
    blob.open(range),
  );
  ctx.status = 206;
  ctx.set('Content-Type', contentType);
  ctx.set('Content-Length', String(length));
  await stream(ctx, body);
}
