import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import {createMetrics, type Metrics} from './observe/metrics.ts';
import type {DamagedBlobs} from './registry/blobs/damaged.ts';
import type {Fills} from './registry/blobs/fills.ts';
import type {BlobLifecycle} from './registry/blobs/lifecycle.ts';
import {createStoredBytes} from './registry/blobs/stored-bytes.ts';
import type {BlobWatch} from './registry/maintenance/blob-watch.ts';
import {type Capacity, type CapacityParts, createCapacity} from './registry/maintenance/capacity.ts';
import type {RootEvictionParts} from './registry/maintenance/evict-root.ts';
import {createEvictor, type Evictor} from './registry/maintenance/evictor.ts';
import {createQuarantineSweep, createSpoolSweep, type UploadExpiry} from './registry/maintenance/expiry.ts';
import {createGarbage} from './registry/maintenance/garbage.ts';
import {createLinkBound} from './registry/maintenance/link-bound.ts';
import {createProtection} from './registry/maintenance/protection.ts';
import {createReopening} from './registry/maintenance/reopening.ts';
import {createScrub} from './registry/maintenance/scrub.ts';
import {createStartCheck} from './registry/maintenance/start-check.ts';
import {createVerify} from './registry/maintenance/verify.ts';
import type {Memory} from './registry/memory.ts';
import {createReadiness, type Readiness, type ReadinessParts} from './registry/readiness.ts';
import type {Storage} from './storage/open.ts';
import {readVersion} from './version.ts';

/** @param makeRoom what evicts; it is made later, from parts that reserve room themselves */
export function wireCapacity(
  {cache: limits}: Pick<Config, 'cache'>,
  {storage: {metadata, store, spools, disk}, clock}: {storage: Storage; clock: Clock},
  makeRoom: CapacityParts['makeRoom'],
): Capacity {
  return createCapacity({limits, metadata, store, spools, disk, makeRoom, clock});
}

/** Requests that are counted before they are reported. */
interface CountedRequestsSource {
  inFlight(): number;
  handOver(): Promise<void>;
}

interface EvictorWiring
  extends Pick<RootEvictionParts, 'lifecycle' | 'memory' | 'lists' | 'uses' | 'fills' | 'generations'> {
  storage: Storage;
  capacity: Capacity;
  watch: BlobWatch;
  requests(): CountedRequestsSource;
  clock: Clock;
  events: Events;
}

/** What keeps the cache to its limit. */
export function wireEvictor(
  {cache, pins}: Pick<Config, 'cache' | 'pins'>,
  {
    storage: {metadata, store, spools, disk, claims: coordination},
    requests,
    clock,
    events,
    ...parts
  }: EvictorWiring,
): Evictor {
  return createEvictor({
    ...parts,
    handOver: () => requests().handOver(),
    metadata,
    store,
    spools,
    disk,
    coordination,
    protection: createProtection({pins, keep: cache.keep}),
    isBounded: cache.maxSize !== undefined || !Object.values(cache.minFree).includes(0),
    clock,
    events,
  });
}

interface CareParts {
  storage: Storage;
  lifecycle: BlobLifecycle;
  memory: Memory;
  expiry: UploadExpiry;
  clock: Clock;
  events: Events;
}

/** What looks after stored content: finds what is damaged, and removes what nobody needs. */
export function wireCare(
  {scrub, uploads}: Pick<Config, 'scrub' | 'uploads'>,
  {storage, lifecycle, memory, expiry, clock, events}: CareParts,
) {
  const {metadata, store, spools, claims: coordination} = storage;
  const content = {metadata, store, lifecycle, memory, coordination, clock, events};
  return {
    sweepSpools: createSpoolSweep({metadata, spools, clock}),
    reopenMetadata: createReopening({
      refusal: () => storage.refusal(),
      reopen: () => storage.reopen(),
      events,
    }),
    sweepQuarantine: createQuarantineSweep({store, clock}),
    boundLinks: createLinkBound({metadata, clock}),
    startCheck: createStartCheck({...content, spools}),
    verify: createVerify(content),
    scrub: createScrub({...content, every: scrub.every}),
    garbage: createGarbage({
      ...content,
      expireUploads: (before, signal) => expiry.run(before, signal),
      uploadLife: uploads.expireAfter,
    }),
  };
}

interface ReadinessWiring extends Pick<ReadinessParts, 'isStopping' | 'clock'> {
  storage: Storage;
  damaged: DamagedBlobs;
}

/** What probes ask. */
export function wireReadiness({storage, damaged, isStopping, clock}: ReadinessWiring): Readiness {
  const {store, metadata, spools} = storage;
  return createReadiness({
    store,
    metadata,
    spools,
    freeBytes: () => storage.freeBytes(),
    damagedLocalBlobs: () => damaged.count,
    isStopping,
    clock,
  });
}

interface MetricsWiring {
  storage: Storage;
  requests(): CountedRequestsSource;
  limits: {readonly openConnections: number};
  fills: Pick<Fills, 'inFlight'>;
  damaged: DamagedBlobs;
  capacity: Capacity;
  clock: Clock;
  events: Events;
}

export const wireMetrics = ({
  storage,
  requests,
  limits,
  fills,
  damaged,
  capacity,
  clock,
  events,
}: MetricsWiring): Metrics =>
  createMetrics(events, {
    version: readVersion(),
    handOver: () => requests().handOver(),
    requestsInFlight: () => requests().inFlight(),
    openConnections: () => limits.openConnections,
    fillsInFlight: () => fills.inFlight,
    storedBytes: createStoredBytes(storage.metadata, clock),
    freeBytes: () => storage.freeBlobBytes(),
    isMetadataWritable: () => storage.refusal() === undefined,
    damagedLocalBlobs: () => damaged.count,
    cache: () => capacity.measure(),
  });
