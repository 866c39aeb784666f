import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import type {Limits} from './http/limits.ts';
import type {Verbs} from './http/routes.ts';
import {createAccess} from './registry/access.ts';
import {type AccessPolicy, WITHOUT_RULES} from './registry/access-policy.ts';
import {createBlobs} from './registry/blobs/blobs.ts';
import {createDamagedBlobs} from './registry/blobs/damaged.ts';
import {createFills} from './registry/blobs/fills.ts';
import {createBlobLifecycle} from './registry/blobs/lifecycle.ts';
import {createCatalog} from './registry/catalog.ts';
import {createReconcile} from './registry/fallback-tag/reconcile.ts';
import {createReconciler} from './registry/fallback-tag/reconciler.ts';
import {createSynthesis} from './registry/fallback-tag/synthesize.ts';
import {createFallbackTagStore} from './registry/fallback-tag/upstream-tag.ts';
import {createBackup} from './registry/maintenance/backup.ts';
import {createBlobWatch} from './registry/maintenance/blob-watch.ts';
import type {Capacity} from './registry/maintenance/capacity.ts';
import type {Evictor} from './registry/maintenance/evictor.ts';
import {createUploadExpiry} from './registry/maintenance/expiry.ts';
import {createIngest, type Ingest} from './registry/maintenance/ingest.ts';
import {createRestore} from './registry/maintenance/restore.ts';
import {createManifests} from './registry/manifests/manifests.ts';
import {createMemory} from './registry/memory.ts';
import {createNegativeCache} from './registry/negative-cache.ts';
import {createManifestPull, type ManifestPullParts} from './registry/pull/manifest.ts';
import {createLocalPush} from './registry/push/local.ts';
import {createPush} from './registry/push/push.ts';
import {createThroughPush} from './registry/push/through.ts';
import {createUploads} from './registry/push/uploads.ts';
import {createAttachedManifests} from './registry/referrers/attached.ts';
import {createCapabilities, createDiscovery} from './registry/referrers/discovery.ts';
import {createFallbackTags} from './registry/referrers/fallback-tag.ts';
import {createIndexRepository} from './registry/referrers/index-repository.ts';
import {createReferrerLists} from './registry/referrers/lists.ts';
import {createReferrersPages} from './registry/referrers/pages.ts';
import {createPrefetch} from './registry/referrers/prefetch.ts';
import {createReindex} from './registry/referrers/rebuild.ts';
import {createReferrers} from './registry/referrers/referrers.ts';
import type {Registries} from './registry/registries.ts';
import {type Space, UNLIMITED} from './registry/space.ts';
import {createTagLists} from './registry/tags/tag-lists.ts';
import {createTags} from './registry/tags/tags.ts';
import {createUses} from './registry/uses.ts';
import {createWriteFence} from './registry/write-fence.ts';
import type {Storage} from './storage/open.ts';
import {type WiredCacheCommands, wireCacheCommands} from './wire-cache-commands.ts';
import {type IdentityParts, type WiredIdentity, wireIdentity} from './wire-identity.ts';
import {wireCapacity, wireCare, wireEvictor, wireMetrics, wireReadiness} from './wire-maintenance.ts';
import {type WiredOutage, wireOutage} from './wire-outage.ts';

export interface WireParts {
  storage: Storage;
  registries(): Registries;
  /** The rules in force. */
  policy(): AccessPolicy;
  /** The settings in force of issuers and certificates. */
  logins: IdentityParts['logins'];
  /** For the proxy variables. */
  env: NodeJS.ProcessEnv;
  /** The server no longer accepts anything new. */
  isStopping(): boolean;
  /** Knows how many connections clients have open, and the limits in force. */
  limits: Pick<Limits, 'openConnections' | 'settings'>;
  clock: Clock;
  events: Events;
}

/** The parts of one server, or of one library call. */
export interface Wired {
  content: WiredContent;
  referrers: WiredReferrers;
  push: WiredPush;
  identity: WiredIdentity;
  maintenance: WiredMaintenance & WiredOutage & WiredCacheCommands & {capacity: Capacity; evictor: Evictor};
  /** What the routes call. */
  verbs: Verbs;
}

/**
 * Builds the parts of one server and connects them, by hand and in order: what a part needs is made before it.
 * Nothing happens until one of them is called.
 */
export function wire(config: Config, {storage: unwatched, ...others}: WireParts): Wired {
  const watch = createBlobWatch({...others, metadata: unwatched.metadata});
  const parts = {...others, storage: {...unwatched, metadata: watch.metadata}};
  const capacity = wireCapacity(config, parts, (bytes, waiting) =>
    maintenance.evictor.makeRoom(bytes, waiting),
  );
  const content = wireContent(config, parts, capacity, (arrival) => referrers.prefetch.arrived(arrival));
  const referrers = wireReferrers(parts, content);
  const push = wirePush(parts, content, referrers);
  const evictor = wireEvictor(config, {...parts, ...content, capacity, watch, lists: referrers.lists});
  const maintenance = {
    ...wireMaintenance(config, parts, content, push),
    capacity,
    evictor,
    ...wireCacheCommands(config, {...parts, capacity, evictor}),
    ...wireOutage({...parts, ...content, ...referrers, pins: config.pins}),
  };
  const {storage, clock, events} = parts;
  const {metadata} = storage;
  const identity = wireIdentity(config, {...parts, metadata});
  const {manifests, blobs, tagLists} = content;
  const verbs = {
    manifests: createSynthesis({manifests, referrers: referrers.referrers, metadata, clock, events}),
    blobs,
    tagLists,
    catalog: createCatalog({metadata, access: content.access}),
    referrers: referrers.referrers,
    push: push.push,
    metrics: wireMetrics({...parts, ...content, capacity}),
    readiness: wireReadiness({...parts, ...content}),
    login: identity.login,
  };
  return {content, referrers, push, identity, maintenance, verbs};
}

/** What ingests content into a store that no server works on: nothing of it stays in memory. */
export function wireIngest(parts: Pick<WireParts, 'storage' | 'clock' | 'events'>): Ingest {
  return ingestInto(
    parts,
    wireContent({cache: {memory: 0}}, {...parts, policy: () => WITHOUT_RULES}, UNLIMITED, () => {}),
  );
}

const ingestInto = (
  {storage: {metadata, spools}, clock}: Pick<WireParts, 'storage' | 'clock'>,
  {lifecycle, tags, memory}: WiredContent,
): Ingest => createIngest({metadata, spools, lifecycle, tags, memory, clock});

/** Tags, manifests and blobs, and how they are pulled. */
type WiredContent = ReturnType<typeof wireContent>;

function wireContent(
  {cache}: {cache: Pick<Config['cache'], 'memory'>},
  {storage, policy, clock, events}: Pick<WireParts, 'storage' | 'policy' | 'clock' | 'events'>,
  space: Space,
  arrived: ManifestPullParts['arrived'],
) {
  const {metadata, store, spools, claims: coordination} = storage;
  const writeFence = createWriteFence();
  const memory = createMemory(cache.memory);
  const negativeCache = createNegativeCache(clock);
  const access = createAccess({metadata, memory, policy, clock, events});
  const pull = createManifestPull({metadata, writeFence, clock, arrived});
  const damaged = createDamagedBlobs(events);
  const lifecycle = createBlobLifecycle({store, metadata, space, memory, damaged, clock});
  const fills = createFills({spools, space, store, lifecycle, coordination, clock, events});
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
  const tags = createTags({metadata, pull, negativeCache, writeFence, clock, events});
  const tagLists = createTagLists({metadata, access, negativeCache, clock, events});
  const uses = createUses({metadata, clock});
  const manifests = createManifests({
    metadata,
    access,
    pull,
    tags,
    negativeCache,
    uses,
    events,
    arrived,
  });
  return {
    space,
    writeFence,
    memory,
    negativeCache,
    access,
    pull,
    damaged,
    lifecycle,
    fills,
    blobs,
    tags,
    tagLists,
    uses,
    manifests,
  };
}

/** Referrers, and how upstreams are asked for them. */
type WiredReferrers = ReturnType<typeof wireReferrers>;

function wireReferrers(
  {storage, registries, clock, events}: WireParts,
  {writeFence, memory, pull, tags, negativeCache, blobs}: WiredContent,
) {
  const {metadata} = storage;
  const capabilities = createCapabilities(clock, events);
  const fallbackTags = createFallbackTags({metadata, pull});
  const discovery = createDiscovery({capabilities, fallbackTags});
  const lists = createReferrerLists({metadata, discovery, memory, writeFence, clock, events});
  const attached = createAttachedManifests({metadata, pull, tags, negativeCache, lists});
  return {
    capabilities,
    fallbackTags,
    discovery,
    lists,
    attached,
    referrers: createReferrers({pages: createReferrersPages(metadata), lists, events}),
    prefetch: createPrefetch({attached, blobs, metadata, registries, events}),
  };
}

/** What accepts pushes, and maintains the fallback tags of upstreams. */
type WiredPush = ReturnType<typeof wirePush>;

function wirePush(
  {storage, registries, limits, clock, events}: WireParts,
  {space, lifecycle, access, negativeCache, memory, fills, pull, manifests, tags, tagLists}: WiredContent,
  {capabilities, fallbackTags, discovery, lists}: WiredReferrers,
) {
  const {metadata, store, spools, claims, leases} = storage;
  const maxHeld = () => limits.settings.uploads.unfinished;
  const uploads = createUploads({metadata, spools, space, lifecycle, coordination: claims, maxHeld, clock});
  const reconcile = createReconcile({
    metadata,
    capabilities,
    discovery,
    pull,
    upstreamTags: createFallbackTagStore({metadata, tags, clock, events}),
    coordination: leases,
    clock,
    events,
  });
  const reconciler = createReconciler({metadata, reconcile, registries, clock, events});
  const local = createLocalPush({
    metadata,
    lifecycle,
    access,
    negativeCache,
    memory,
    fills,
    pull,
    manifests,
    tags,
    fallbackTags,
    uploads,
    clock,
    events,
  });
  const through = createThroughPush({
    metadata,
    access,
    negativeCache,
    memory,
    pull,
    tags,
    tagLists,
    fallbackTags,
    capabilities,
    lists,
    uploads,
    reconciler,
    clock,
    events,
  });
  return {uploads, reconciler, push: createPush({local, through, store})};
}

/** Work that no client's request asks for. */
type WiredMaintenance = ReturnType<typeof wireMaintenance>;

function wireMaintenance(config: Config, parts: WireParts, content: WiredContent, {uploads}: WiredPush) {
  const {storage, registries, clock, events} = parts;
  const {writeFence, memory, lifecycle, tags, tagLists} = content;
  const {metadata, store, spools, claims: coordination} = storage;
  const expiry = createUploadExpiry({uploads, registries, events});
  const backupFolder = (path: string) => storage.backupFolder(path);
  return {
    expiry,
    ...wireCare(config, {...parts, ...content, expiry}),
    ingest: ingestInto(parts, content),
    backup: createBackup({metadata, store, backupFolder, coordination, clock}),
    restore: createRestore({
      metadata,
      spools,
      lifecycle,
      tags,
      memory,
      registries,
      backupFolder,
      freeBytes: () => storage.freeBlobBytes(),
      coordination,
      clock,
    }),
    reindex: createReindex({metadata, clock}),
    indexRepository: createIndexRepository({metadata, writeFence, tagLists, clock}),
  };
}
