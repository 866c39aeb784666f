import {join} from 'node:path';
import type {ExecutionContext} from 'ava';
import {ANONYMOUS} from '../../../src/caller.ts';
import {createEvents, type Events} from '../../../src/events.ts';
import type {Digest} from '../../../src/oci/digest.ts';
import {OciError} from '../../../src/oci/errors.ts';
import {parseName} from '../../../src/oci/name.ts';
import type {UploadId} from '../../../src/oci/upload.ts';
import {createAccess} from '../../../src/registry/access.ts';
import {createFills} from '../../../src/registry/blobs/fills.ts';
import {createBlobLifecycle} from '../../../src/registry/blobs/lifecycle.ts';
import {createManifests} from '../../../src/registry/manifests/manifests.ts';
import {createMemory} from '../../../src/registry/memory.ts';
import type {Route} from '../../../src/registry/namespace.ts';
import {createNegativeCache} from '../../../src/registry/negative-cache.ts';
import {createManifestPull} from '../../../src/registry/pull/manifest.ts';
import {createLocalPush} from '../../../src/registry/push/local.ts';
import type {Chunk, Push} from '../../../src/registry/push/push.ts';
import {createUploads, type Uploads} from '../../../src/registry/push/uploads.ts';
import {createFallbackTags} from '../../../src/registry/referrers/fallback-tag.ts';
import type {LocalPush, Registry} from '../../../src/registry/registries.ts';
import {createTags} from '../../../src/registry/tags/tags.ts';
import {createWriteFence} from '../../../src/registry/write-fence.ts';
import type {BlobStore} from '../../../src/storage/blob-store.ts';
import {createProcessClaims} from '../../../src/storage/claims.ts';
import {createFsBlobStore} from '../../../src/storage/fs/blob-store.ts';
import {createSpools} from '../../../src/storage/fs/spools.ts';
import type {Metadata} from '../../../src/storage/metadata.ts';
import type {Spools} from '../../../src/storage/spool.ts';
import {openSqliteMetadata} from '../../../src/storage/sqlite/metadata.ts';
import {createEmptyUpstream} from '../../../src/upstream/empty.ts';
import {createMovableClock, type MovableClock} from '../../support/backref.ts';
import {createFolder} from '../../support/folder.ts';

/** A registry `hosted.test` that keeps what is pushed, over real storage, without a server in front. */
export interface Hosted {
  readonly push: Push;
  readonly uploads: Uploads;
  readonly metadata: Metadata;
  readonly store: BlobStore;
  readonly spools: Spools;
  readonly clock: MovableClock;
  readonly events: Events;
  readonly folder: string;
  route(name?: string): Route;
  /** The same over what this one leaves behind, as another process finds it. */
  restart(): Promise<Hosted>;
}

export interface HostedOptions {
  policy?: Partial<LocalPush>;
  folder?: string;
  clock?: MovableClock;
  /** Takes the place of the spools in the folder. */
  spools?(real: Spools): Spools;
  /** Takes the place of the metadata. */
  metadata?(real: Metadata): Metadata;
}

const TAGS = {ttl: 60_000, maxStale: 0, keepDeleted: 0, absentTtl: 5000};
const REFERRERS = {mode: 'auto', ttl: 60_000, maxStale: 0, prefetch: 'off'} as const;
const POLICY: LocalPush = {
  mode: 'local',
  validate: {blobs: true, children: true, sizes: false},
  tags: 'deny',
  keep: undefined,
};

export async function createHosted(t: ExecutionContext, options: HostedOptions = {}): Promise<Hosted> {
  const folder = options.folder ?? (await createFolder(t));
  const clock = options.clock ?? createMovableClock();
  const opened = await openSqliteMetadata({path: join(folder, 'meta.db')});
  t.teardown(() => opened.close());
  const metadata = options.metadata?.(opened) ?? opened;
  const store = createFsBlobStore({path: join(folder, 'blobs'), metadata});
  const real = createSpools({path: join(folder, 'spool')});
  const spools = options.spools?.(real) ?? real;
  const events = createEvents();
  const writeFence = createWriteFence();
  const negativeCache = createNegativeCache(clock);
  const memory = createMemory(1024 * 1024);
  const access = createAccess({metadata, memory, clock, events});
  const coordination = createProcessClaims();
  const lifecycle = createBlobLifecycle({store, metadata, clock});
  const fills = createFills({spools, store, lifecycle, coordination, clock, events});
  const pull = createManifestPull({metadata, writeFence, clock, arrived: () => {}});
  const tags = createTags({metadata, pull, negativeCache, writeFence, clock, events});
  const manifests = createManifests({metadata, access, pull, tags, negativeCache, events});
  const fallbackTags = createFallbackTags({metadata, pull});
  const uploads = createUploads({metadata, spools, lifecycle, coordination, clock});
  const parts = {
    metadata,
    lifecycle,
    access,
    fills,
    pull,
    manifests,
    fallbackTags,
    tags,
    memory,
    negativeCache,
    clock,
    events,
  };
  const push = createLocalPush({...parts, uploads});
  const registry: Registry = {
    name: 'hosted.test',
    aliases: [],
    hosts: [],
    library: false,
    upstream: createEmptyUpstream('hosted.test'),
    hosted: true,
    push: {...POLICY, ...options.policy},
    maxManifest: 4 * 1024 * 1024,
    tags: TAGS,
    referrers: REFERRERS,
    rateLimitStatus: 503,
  };
  return {
    push,
    uploads,
    metadata,
    store,
    spools,
    clock,
    events,
    folder,
    route: (name = 'team/app') => ({
      registry,
      repository: {registry: registry.name, name: parseName(name)},
      asked: name,
    }),
    async restart() {
      await metadata.close();
      return createHosted(t, {...options, folder, clock});
    },
  };
}

export const caller = ANONYMOUS;

/** Bytes as a client sends them, in pieces, its headers telling what `told` says. */
export const chunkOf = (
  bytes: Uint8Array | readonly Uint8Array[],
  told: Partial<Pick<Chunk, 'length' | 'range'>> = {},
): Chunk => ({
  length: undefined,
  range: undefined,
  ...told,
  bytes: streamOf(bytes instanceof Uint8Array ? [bytes] : bytes),
});

async function* streamOf(pieces: readonly Uint8Array[]): AsyncGenerator<Uint8Array, void> {
  // Each piece is the reader's own: an upload is written behind whoever gives it.
  for (const piece of pieces) yield Buffer.from(piece);
}

/** A chunk that names its place. */
export const placed = (bytes: Uint8Array, start: number): Chunk =>
  chunkOf(bytes, {length: bytes.length, range: {start, end: start + bytes.length - 1}});

export const nothingMore = (): Chunk => chunkOf([], {length: 0});

/** Begins an upload in this repository. */
export async function begun({push}: Hosted, route: Route): Promise<UploadId> {
  const state = await push.begin(route, {algorithm: undefined, mount: undefined}, caller);
  if (state === 'mounted') throw new Error('nothing was to be mounted');
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

/** The refusal that a promise ends with. */
export async function refusalOf(work: Promise<unknown>): Promise<OciError> {
  try {
    await work;
  } catch (error) {
    if (error instanceof OciError) return error;
    throw error;
  }
  throw new Error('expected an OciError, but it was done');
}

/** All bytes of a stored blob. */
export async function storedBytes({store}: Hosted, digest: Digest): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of store.open(digest)) chunks.push(Buffer.from(chunk));
  return Buffer.concat(chunks);
}
