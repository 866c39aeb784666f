import type {ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import type {Digest} from '../../../src/oci/digest.ts';
import {OciError} from '../../../src/oci/errors.ts';
import type {UploadId} from '../../../src/oci/upload.ts';
import type {Garbage} from '../../../src/registry/maintenance/garbage.ts';
import type {Route} from '../../../src/registry/namespace.ts';
import type {Chunk, Push} from '../../../src/registry/push/push.ts';
import type {Uploads} from '../../../src/registry/push/uploads.ts';
import type {BlobStore} from '../../../src/storage/blob-store.ts';
import type {Metadata} from '../../../src/storage/metadata.ts';
import {createMovableClock, type MovableClock} from '../../support/backref.ts';
import {type InProcess, type WiredOptions, wireInProcess} from '../../support/wired.ts';

/** A registry that keeps what is pushed, wired over real storage without a server in front. */
export interface Hosted {
  readonly push: Push;
  readonly uploads: Uploads;
  readonly garbage: Garbage;
  readonly metadata: Metadata;
  readonly store: BlobStore;
  readonly clock: MovableClock;
  readonly folder: string;
  route(name?: string): Route;
  /** Ends this one. @returns another over the same folder, as after a restart of the process */
  restart(): Promise<Hosted>;
}

export type HostedOptions = Pick<WiredOptions<MovableClock>, 'folder' | 'metadata' | 'spools'>;

export const createHosted = async (t: ExecutionContext, options: HostedOptions = {}): Promise<Hosted> =>
  hostedIn(await wireInProcess(t, {...options, registries: [{library: false}], clock: createMovableClock()}));

function hostedIn(wired: InProcess<MovableClock>): Hosted {
  const {storage, clock, folder} = wired;
  const route = (name = 'team/app') => wired.route(name);
  return {
    push: wired.push.push,
    uploads: wired.push.uploads,
    garbage: wired.maintenance.garbage,
    metadata: storage.metadata,
    store: storage.store,
    clock,
    folder,
    route,
    restart: async () => hostedIn(await wired.restart()),
  };
}

export const caller = ANONYMOUS;

/** Bytes as a client sends them, in pieces, with what its headers declare. */
export const chunkOf = (
  bytes: Uint8Array | readonly Uint8Array[],
  declared: Partial<Pick<Chunk, 'length' | 'range'>> = {},
): Chunk => ({
  length: undefined,
  range: undefined,
  ...declared,
  bytes: streamOf(bytes instanceof Uint8Array ? [bytes] : bytes),
});

async function* streamOf(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  // The reader owns each piece: an upload is still being written when the next piece is asked for.
  for (const piece of pieces) yield Buffer.from(piece);
}

/** A chunk that declares its place and length. */
export const placed = (bytes: Uint8Array, start: number): Chunk =>
  chunkOf(bytes, {length: bytes.length, range: {start, end: start + bytes.length - 1}});

export const noMoreBytes = (): Chunk => chunkOf([], {length: 0});

/** Begins an upload in this repository. */
export async function begun({push}: Hosted, route: Route): Promise<UploadId> {
  const state = await push.begin(route, {algorithm: undefined, mount: undefined}, caller);
  if (state === 'mounted') throw new Error('expected an upload, but a blob was mounted');
  return state.id;
}

/** Uploads a whole blob. */
export async function pushBlob(
  hosted: Hosted,
  {bytes, digest}: {bytes: Buffer; digest: Digest},
  route = hosted.route(),
): Promise<void> {
  await hosted.push.finish(route, await begun(hosted, route), digest, chunkOf(bytes), caller);
}

/** The OciError that a promise rejects with. */
export async function refusalOf(work: Promise<unknown>): Promise<OciError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof OciError) return error;
    throw error;
  }
  throw new Error('expected an OciError, but it succeeded');
}

/** All bytes of a stored blob. */
export async function storedBytes({store}: Hosted, digest: Digest): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of store.open(digest)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
