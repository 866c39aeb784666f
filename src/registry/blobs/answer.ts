import {errorCode} from '../../error-code.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import type {ByteRange} from '../../oci/range.ts';
import type {BlobFile} from '../../storage/blob-files.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {DiskFailed} from '../../storage/disk.ts';
import {BlobAbsent, SpoolFailed, toOciErrors} from '../failure.ts';
import {type CacheReport, MISS} from '../freshness.ts';
import type {Route} from '../namespace.ts';
import type {Repeat} from '../repeat.ts';
import type {Fill} from './fills.ts';
import type {Passage} from './passing.ts';
import type {Wanted} from './source.ts';

export interface BlobFound {
  readonly digest: Digest;
  /** Bytes; undefined only while the blob is read from an upstream that does not name its length. */
  readonly size: number | undefined;
  readonly report: CacheReport;
  /** Undefined where each request has to be looked at. */
  readonly repeat?: Repeat | undefined;
}

export interface BlobAnswer extends BlobFound {
  /** The bytes of a small blob, when they are in memory. */
  readonly bytes: Buffer | undefined;
  /** Where all of its bytes lie; undefined where they do not, and for a blob that may be held in memory. */
  readonly file?: BlobFile | undefined;
  /**
   * The size in bytes that a manifest names, while `size` is only what the upstream says: a range that fits one of them
   * and not the other can be neither served nor refused.
   */
  readonly promised: number | undefined;
  /** True when any part can be read at once, any number of times. */
  readonly stored: boolean;
  /**
   * The blob's bytes, or a part of them; the part must lie within `size`. Resolves when nothing but the bytes can fail.
   * A chunk is valid until the next one is asked for.
   * @throws as `Blobs.get`
   */
  open(part?: ByteRange): Promise<AsyncIterable<Uint8Array>>;
}

/** A part that begins further ahead of a running download than this is requested from the upstream directly. */
const MAX_AHEAD_BYTES = 8 * 1024 * 1024;

export const fromMemory = (digest: Digest, bytes: Buffer, report: CacheReport): BlobAnswer => ({
  digest,
  size: bytes.length,
  report,
  bytes,
  promised: undefined,
  stored: true,
  open: async (part) => once(part ? bytes.subarray(part.start, part.end + 1) : bytes),
});

/** A stored blob. When it is evicted before its file is open, the reader goes on with a passage of its own. */
export const fromStore = (
  store: BlobStore,
  passage: Passage,
  {digest, size, report, file}: BlobFound & {size: number} & Pick<BlobAnswer, 'file'>,
): BlobAnswer => ({
  digest,
  size,
  report,
  file,
  bytes: undefined,
  promised: undefined,
  stored: true,
  open: async (part) =>
    continued(store.open(digest, part), (given) =>
      part
        ? passage.part({digest, size}, part.start + given, part.end)
        : passage.whole({digest, size}, given),
    ),
});

/** A blob that is arriving. When the spool can no longer be written, each reader goes on with a passage of its own. */
export const fromFill = (
  fill: Fill,
  passage: Passage,
  found: BlobFound & Pick<BlobAnswer, 'promised'>,
): BlobAnswer => ({
  ...found,
  bytes: undefined,
  stored: false,
  open: async (part) =>
    part
      ? partOf(fill, passage, found, part)
      : continued(fill.read(), async (given, failure) => {
          // Of bytes that nobody has verified, those of another download may only be the continuation if they begin alike.
          if (given > 0 && !fill.whole && !fill.prefix) throw failure;
          return passage.whole(found, given, given > 0 ? fill.prefix : undefined);
        }),
});

/** A blob that cannot be kept here. */
export const fromUpstream = (
  passage: Passage,
  wanted: Wanted & Pick<BlobAnswer, 'promised'>,
): BlobAnswer => ({
  ...wanted,
  report: {...MISS, detail: 'uncached'},
  bytes: undefined,
  stored: false,
  open: async (part) => (part ? passage.part(wanted, part.start, part.end) : passage.whole(wanted, 0)),
});

async function partOf(
  fill: Fill,
  passage: Passage,
  wanted: Wanted,
  {start, end}: ByteRange,
): Promise<AsyncIterable<Uint8Array>> {
  if (start > fill.received + MAX_AHEAD_BYTES) return passage.part(wanted, start, end);
  return continued(fill.read(start, end), (given) => passage.part(wanted, start + given, end));
}

/** Goes on with `rest`, after the bytes that were given, when spool or disk fail, or the file is gone. */
async function* continued(
  bytes: AsyncIterable<Uint8Array>,
  rest: (given: number, failure: unknown) => Promise<AsyncIterable<Uint8Array>>,
): AsyncGenerator<Uint8Array, void> {
  let given = 0;
  try {
    for await (const chunk of bytes) {
      given += chunk.length;
      yield chunk;
    }
  } catch (error) {
    const isLost =
      error instanceof SpoolFailed || error instanceof DiskFailed || errorCode(error) === 'ENOENT';
    if (!isLost) throw error;
    // That the upstream lacks it says nothing about what the disk fails to read.
    const next = await rest(given, error).catch((absent: unknown) => {
      throw absent instanceof BlobAbsent ? error : absent;
    });
    yield* next;
  }
}

async function* once(bytes: Uint8Array): AsyncGenerator<Uint8Array, void> {
  yield bytes;
}

/** The answer whose failures to open are the errors of the pull that it is a part of. */
export const openable = (route: Route, answer: BlobAnswer): BlobAnswer => ({
  ...answer,
  open: (part) =>
    toOciErrors(route, async () => {
      try {
        return await answer.open(part);
      } catch (error) {
        throw error instanceof BlobAbsent ? blobUnknown(route, answer.digest) : error;
      }
    }),
});

export const blobUnknown = ({registry, asked}: Route, digest: Digest): OciError =>
  new OciError('BLOB_UNKNOWN', {
    message: `${registry.upstream.host} has no blob ${digest} in ${asked}`,
    detail: {name: asked, digest, upstream: registry.upstream.host},
  });
