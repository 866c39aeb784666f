import {errorCode} from '../../error-code.ts';
import {algorithmOf, type Digest, digestOfAll} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import type {Metadata} from '../../storage/metadata.ts';

/** `missing`: a row without bytes. `damaged`: bytes that do not have the digest. `unreadable`: the disk fails to read them. */
export type BlobProblem = 'missing' | 'damaged' | 'unreadable';

/** Awaited after each chunk that was read; slows the reading down, or throws to end it. */
export type ReadingPace = (bytes: number) => Promise<void>;

/** What hashing the stored bytes of a blob shows. */
export type Inspection =
  /** `size` in bytes; `isRecorded` is false when the row named another size. */
  | {state: 'sound'; size: number; isRecorded: boolean}
  /** Not stored, or being deleted. */
  | {state: 'absent'}
  | {state: BlobProblem};

/** How file systems report bytes that the disk fails to read, or that do not match their checksum. */
const UNREADABLE: ReadonlySet<unknown> = new Set(['EIO', 'EBADMSG', 'EUCLEAN']);

export const noPace: ReadingPace = async () => {};

/** Hashes the stored bytes of a blob. @throws StoreMissing; what the pace throws */
export async function inspectBlob(
  {store, metadata}: {store: BlobStore; metadata: Pick<Metadata, 'blob'>},
  digest: Digest,
  pace: ReadingPace,
): Promise<Inspection> {
  const record = await metadata.blob(digest);
  if (record?.state !== 'ready') return {state: 'absent'};
  const found = await store.stat(digest);
  if (!found) return {state: 'missing'};
  try {
    const actual = await digestOfAll(paced(store.inspect(digest), pace), algorithmOf(digest));
    if (actual !== digest) return {state: 'damaged'};
  } catch (error) {
    if (errorCode(error) === 'ENOENT') return {state: 'missing'};
    if (UNREADABLE.has(errorCode(error))) return {state: 'unreadable'};
    throw error;
  }
  return {state: 'sound', size: found.size, isRecorded: found.size === record.size};
}

async function* paced(
  chunks: AsyncIterable<Uint8Array>,
  pace: ReadingPace,
): AsyncGenerator<Uint8Array, void> {
  for await (const chunk of chunks) {
    yield chunk;
    await pace(chunk.length);
  }
}
