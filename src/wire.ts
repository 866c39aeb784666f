import {dirname, join} from 'node:path';
import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import type {Verbs} from './http/routes.ts';
import {createMetrics} from './observe/metrics.ts';
import {createAccess} from './registry/access.ts';
import {createBlobs} from './registry/blobs/blobs.ts';
import {createFills, type Fills} from './registry/blobs/fills.ts';
import {createBlobLifecycle} from './registry/blobs/lifecycle.ts';
import {createStoredBytes} from './registry/blobs/stored-bytes.ts';
import {createCatalog} from './registry/catalog.ts';
import {createReconcile} from './registry/fallback-tag/reconcile.ts';
import {createReconciler, type Reconciler} from './registry/fallback-tag/reconciler.ts';
import {createTagReaders} from './registry/fallback-tag/synthesize.ts';
import {createUpstreamTags} from './registry/fallback-tag/upstream-tag.ts';
import {createSpoolSweep, createUploadExpiry, type UploadExpiry} from './registry/maintenance/expiry.ts';
import {createGarbage, type Garbage} from './registry/maintenance/garbage.ts';
import {createIngest, type Ingest} from './registry/maintenance/ingest.ts';
import {createManifests} from './registry/manifests/manifests.ts';
import {createMemory} from './registry/memory.ts';
import {createNegativeCache} from './registry/negative-cache.ts';
import {createManifestPull} from './registry/pull/manifest.ts';
import {createLocalPush} from './registry/push/local.ts';
import {createPushes} from './registry/push/push.ts';
import {createThroughPush} from './registry/push/through.ts';
import {createUploads} from './registry/push/uploads.ts';
import {createReadiness} from './registry/readiness.ts';
import {createCapabilities, createDiscovery} from './registry/referrers/discovery.ts';
import {createFallbackTags} from './registry/referrers/fallback-tag.ts';
import {createReferrerLists, type ReferrerLists} from './registry/referrers/lists.ts';
import {createReferrersPages} from './registry/referrers/pages.ts';
import {createPrefetch, type Prefetch} from './registry/referrers/prefetch.ts';
import {createReferrers} from './registry/referrers/referrers.ts';
import type {Registries} from './registry/registries.ts';
import {createTagLists} from './registry/tags/tag-lists.ts';
import {createTags} from './registry/tags/tags.ts';
import type {WriteFence} from './registry/write-fence.ts';
import type {BlobStore} from './storage/blob-store.ts';
import {createLeases, createProcessClaims} from './storage/claims.ts';
import {createFsBlobStore} from './storage/fs/blob-store.ts';
import {freeSpace} from './storage/fs/free-space.ts';
import type {Metadata} from './storage/metadata.ts';
import type {Spools} from './storage/spool.ts';
import {readVersion} from './version.ts';

/** What a server consists of. */
export interface Wired {
  verbs: Verbs;
  store: BlobStore;
  sweepSpools(): Promise<number>;
  fills: Fills;
  prefetch: Prefetch;
  lists: ReferrerLists;
  expiry: UploadExpiry;
  garbage: Garbage;
  ingest: Ingest;
  reconciler: Reconciler;
}

export interface WireParts {
  metadata: Metadata;
  spools: Spools;
  writes: WriteFence;
  registries(): Registries;
  /** The server takes nothing new any more. */
  isStopping(): boolean;
  /** Names this process among those that share the metadata. */
  owner: string;
  clock: Clock;
  events: Events;
}

/**
 * Builds the parts of one server and connects them, by hand and in order: what a part needs is made before it.
 * Nothing happens until one of them is called.
 */
export function wire(config: Config, parts: WireParts): Wired {
  const {metadata, spools, writes, registries, isStopping, owner, clock, events} = parts;
  const store = createFsBlobStore({path: join(config.storage.blobs.path, 'blobs'), metadata});
  const coordination = createProcessClaims();
  const memory = createMemory(config.cache.memory);
  const negativeCache = createNegativeCache(clock);
  const access = createAccess({metadata, memory, clock, events});
  const pull = createManifestPull({metadata, writes, clock, arrived: (arrival) => prefetch.arrived(arrival)});
  const tags = createTags({metadata, pull, negativeCache, writes, clock, events});
  const lifecycle = createBlobLifecycle({store, metadata, clock});
  const fills = createFills({spools, store, lifecycle, coordination, clock, events});
  const blobs = createBlobs({
    store,
    lifecycle,
    metadata,
    access,
    fills,
    negativeCache,
    memory,
    clock,
    events,
  });
  const manifests = createManifests({metadata, access, pull, tags, negativeCache, events});
  const capabilities = createCapabilities(clock, events);
  const fallbackTags = createFallbackTags({metadata, pull});
  const discovery = createDiscovery({capabilities, fallbackTags});
  const lists = createReferrerLists({metadata, discovery, memory, writes, clock, events});
  const referrers = createReferrers({pages: createReferrersPages(metadata), lists, events});
  const prefetch = createPrefetch({metadata, pull, lists, blobs, events});
  const tagLists = createTagLists({metadata, negativeCache, clock, events});
  const uploads = createUploads({metadata, spools, lifecycle, coordination, clock});
  const reconcile = createReconcile({
    metadata,
    capabilities,
    discovery,
    pull,
    upstreamTags: createUpstreamTags({metadata, tags, clock, events}),
    coordination: createLeases({metadata, owner, clock}),
    clock,
    events,
  });
  const reconciler = createReconciler({metadata, reconcile, registries, clock, events});
  const pushed = {
    metadata,
    lifecycle,
    access,
    negativeCache,
    memory,
    fills,
    pull,
    manifests,
    tags,
    tagLists,
    fallbackTags,
  };
  const pushes = createPushes({
    local: createLocalPush({...pushed, uploads, clock, events}),
    through: createThroughPush({...pushed, uploads, capabilities, lists, reconciler, clock, events}),
    store,
  });
  const expiry = createUploadExpiry({uploads, registries, events});
  const garbage = createGarbage({
    metadata,
    store,
    lifecycle,
    memory,
    expireUploads: expiry.run,
    coordination,
    uploadLife: config.uploads.expireAfter,
    clock,
    events,
  });
  const verbs = {
    manifests: createTagReaders({manifests, referrers, metadata, clock, events}),
    blobs,
    tagLists,
    catalog: createCatalog({metadata}),
    referrers,
    pushes,
    metrics: createMetrics(events, {
      version: readVersion(),
      fillsInFlight: () => fills.inFlight,
      storedBytes: createStoredBytes(metadata, clock),
      freeBytes: () => freeSpace(config.storage.blobs.path),
    }),
    readiness: createReadiness({
      store,
      metadata,
      spools,
      freeBytes: () => leastFree([config.storage.blobs.path, dirname(config.storage.metadata.path)]),
      isStopping,
      clock,
    }),
  };
  const ingest = createIngest({metadata, spools, lifecycle, tags, memory, clock});
  const sweepSpools = createSpoolSweep({metadata, spools, clock});
  return {verbs, store, sweepSpools, fills, prefetch, lists, expiry, garbage, ingest, reconciler};
}

/** Bytes left in the fullest of some folders' file systems. */
const leastFree = async (folders: readonly string[]): Promise<number> =>
  Math.min(...(await Promise.all(folders.map(freeSpace))));
