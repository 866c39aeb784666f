import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import type {Limits} from './http/limits.ts';
import type {Verbs} from './http/routes.ts';
import {type AccessPolicy, WITHOUT_RULES} from './registry/access-policy.ts';
import {createCatalog} from './registry/catalog.ts';
import {createReconcile} from './registry/fallback-tag/reconcile.ts';
import {createReconciler} from './registry/fallback-tag/reconciler.ts';
import {createSynthesis} from './registry/fallback-tag/synthesize.ts';
import {createFallbackTagStore} from './registry/fallback-tag/upstream-tag.ts';
import {createGenerations, type Generations} from './registry/generations.ts';
import {createBackup} from './registry/maintenance/backup.ts';
import {createBlobWatch} from './registry/maintenance/blob-watch.ts';
import type {Capacity} from './registry/maintenance/capacity.ts';
import type {Evictor} from './registry/maintenance/evictor.ts';
import {createUploadExpiry} from './registry/maintenance/expiry.ts';
import {createIngest, type Ingest} from './registry/maintenance/ingest.ts';
import {createRestore} from './registry/maintenance/restore.ts';
import {createLocalPush} from './registry/push/local.ts';
import {createPush} from './registry/push/push.ts';
import {createThroughPush} from './registry/push/through.ts';
import {createUploads} from './registry/push/uploads.ts';
import {watchQuotas} from './registry/quota.ts';
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
import {UNLIMITED} from './registry/space.ts';
import type {Storage} from './storage/open.ts';
import {type WiredCacheCommands, wireCacheCommands} from './wire-cache-commands.ts';
import {type WiredContent, wireContent} from './wire-content.ts';
import {type IdentityParts, type WiredIdentity, wireIdentity} from './wire-identity.ts';
import {wireCapacity, wireCare, wireEvictor, wireMetrics, wireReadiness} from './wire-maintenance.ts';
import {type WiredOutage, wireOutage} from './wire-outage.ts';

export interface WireParts {
  storage: Storage;
  generations: Generations;
  registries(): Registries;
  /** The rules in force. */
  policy(): AccessPolicy;
  /** The settings in force of issuers and certificates. */
  logins: IdentityParts['logins'];
  /** For the proxy variables. */
  env: NodeJS.ProcessEnv;
  /** The server no longer accepts anything new. */
  isStopping(): boolean;
  /** Those of clients. */
  requests(): {inFlight(): number; handOver(): Promise<void>};
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
  /** What is written now and then, and at the end. */
  records: readonly {task: string; flush(): Promise<void>}[];
}

/**
 * Builds the parts of one server and connects them, by hand and in order: what a part needs is made before it.
 * Nothing happens until one of them is called.
 */
export function wire(config: Config, {storage: unwatched, ...others}: WireParts): Wired {
  const watch = createBlobWatch({...others, metadata: unwatched.metadata});
  const {generations} = others;
  const metadata = generations.watch(watch.metadata);
  const parts = {...others, storage: {...unwatched, metadata}};
  // What is served from memory then may not be what the disk would give.
  parts.events.on('disk.failed', () => generations.endAll());
  watchQuotas(parts);
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
  const {clock, events} = parts;
  const identity = wireIdentity(config, {...parts, metadata, changed: () => generations.end('logins')});
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
  const records = [
    {task: 'record the use of robots', flush: () => identity.robots.flush()},
    {task: 'count uses', flush: () => content.uses.flush()},
    {task: 'record pulls', flush: () => maintenance.pulls.flush()},
  ];
  return {content, referrers, push, identity, maintenance, verbs, records};
}

/** What ingests content into a store that no server works on: nothing of it stays in memory. */
export function wireIngest(parts: Pick<WireParts, 'storage' | 'clock' | 'events'>): Ingest {
  return ingestInto(
    parts,
    wireContent(
      {cache: {memory: 0}},
      {...parts, policy: () => WITHOUT_RULES, generations: createGenerations()},
      UNLIMITED,
      () => {},
    ),
  );
}

const ingestInto = (
  {storage: {metadata, spools}, clock}: Pick<WireParts, 'storage' | 'clock'>,
  {lifecycle, tags, memory}: WiredContent,
): Ingest => createIngest({metadata, spools, lifecycle, tags, memory, clock});

/** Referrers, and how upstreams are asked for them. */
type WiredReferrers = ReturnType<typeof wireReferrers>;

function wireReferrers(
  {storage, registries, generations, clock, events}: WireParts,
  {writeFence, memory, pull, tags, negativeCache, blobs}: WiredContent,
) {
  const {metadata} = storage;
  const capabilities = createCapabilities(clock, events);
  const fallbackTags = createFallbackTags({metadata, pull});
  const discovery = createDiscovery({capabilities, fallbackTags});
  const lists = createReferrerLists({metadata, discovery, memory, generations, writeFence, clock, events});
  const attached = createAttachedManifests({metadata, pull, tags, negativeCache, lists});
  return {
    capabilities,
    fallbackTags,
    discovery,
    lists,
    attached,
    referrers: createReferrers({pages: createReferrersPages(metadata), lists, generations, events}),
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
