import type {Digest} from '../oci/digest.ts';
import type {BlobStore} from '../storage/blob-store.ts';
import {type CacheReport, MISS} from './answer.ts';
import {type Source, SpoolFailed} from './fill/download.ts';
import type {Fill} from './fill/fills.ts';
import {openPart, streamVerified} from './uncached.ts';

export interface BlobFound {
  readonly digest: Digest;
  /** Bytes; undefined only while an upstream that does not say is being read. */
  readonly size: number | undefined;
  readonly report: CacheReport;
}

/** Bytes `start` to `end`, both inclusive. */
export interface Part {
  start: number;
  end: number;
}

export interface BlobAnswer extends BlobFound {
  /** The bytes of a small blob, when they are in memory. */
  readonly bytes: Buffer | undefined;
  /** True when any part can be had at once, as often as wanted. */
  readonly stored: boolean;
  /** The blob's bytes, or a part of them; the part must lie within `size`. */
  open(part?: Part): Promise<AsyncIterable<Uint8Array>>;
}

/** A part that begins further than this beyond a running download is asked of the upstream at once. */
const FAR = 8 * 1024 * 1024;

export const fromMemory = (digest: Digest, bytes: Buffer, report: CacheReport): BlobAnswer => ({
  digest,
  size: bytes.length,
  report,
  bytes,
  stored: true,
  open: async (part) => only(part ? bytes.subarray(part.start, part.end + 1) : bytes),
});

export const fromStore = (
  store: BlobStore,
  digest: Digest,
  size: number,
  report: CacheReport,
): BlobAnswer => ({
  digest,
  size,
  report,
  bytes: undefined,
  stored: true,
  open: async (part) => store.open(digest, part),
});

/** A blob that is arriving. Who reads it goes on with a stream of his own when the spool can no longer be written. */
export const fromFill = (fill: Fill, source: Source, found: BlobFound): BlobAnswer => ({
  ...found,
  bytes: undefined,
  stored: false,
  open: async (part) =>
    part
      ? partOf(fill, source, part)
      : continued(fill.read(), (given) => streamVerified(source, found.digest, given)),
});

/** A blob that cannot be kept here. */
export const fromUpstream = (source: Source, digest: Digest, size: number | undefined): BlobAnswer => ({
  digest,
  size,
  report: {...MISS, detail: 'uncached'},
  bytes: undefined,
  stored: false,
  open: async (part) => (part ? openPart(source, part.start, part.end) : streamVerified(source, digest, 0)),
});

async function partOf(fill: Fill, source: Source, {start, end}: Part): Promise<AsyncIterable<Uint8Array>> {
  if (start > fill.received + FAR) return openPart(source, start, end);
  return continued(fill.read(start, end), async function* (given) {
    yield* await openPart(source, start + given, end);
  });
}

/** Goes on with `rest`, after the bytes that were given, when the spool failed. */
async function* continued(
  bytes: AsyncIterable<Uint8Array>,
  rest: (given: number) => AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array, void> {
  let given = 0;
  try {
    for await (const chunk of bytes) {
      given += chunk.length;
      yield chunk;
    }
    return;
  } catch (error) {
    if (!(error instanceof SpoolFailed)) throw error;
  }
  yield* rest(given);
}

async function* only(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}
