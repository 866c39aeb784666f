import {collectDefaultMetrics, Gauge, Registry} from 'prom-client';

/** The metrics that are read on each scrape, instead of counted from events. Sizes in bytes. */
export interface GaugeSources {
  version: string;
  /** Connections of clients, less those of admin listeners. */
  openConnections(): number;
  /** Requests whose response has not ended. */
  requestsInFlight(): number;
  /** Downloads in progress. */
  fillsInFlight(): number;
  storedBytes(): Promise<number>;
  freeBytes(): Promise<number>;
  isMetadataWritable(): boolean;
  /** Blobs that were pushed here and are known to be missing or damaged. */
  damagedLocalBlobs(): number;
  /** What the disk is used for, and the most that the cache may use; infinite where nothing limits it. */
  cache(): Promise<CacheUsage>;
}

/** Bytes. */
export interface CacheUsage {
  blobs: number;
  spools: number;
  quarantine: number;
  database: number;
  reserved: number;
  limit: number;
}

const USES_OF_CACHE = ['blobs', 'spools', 'quarantine', 'database', 'reserved'] as const;

function registerCache(registry: Registry, cache: GaugeSources['cache']): void {
  const registers = [registry];
  new Gauge({
    name: 'backref_cache_limit_bytes',
    help: 'The most that the cache may use, by cache.maxSize and cache.minFree.',
    registers,
    async collect() {
      this.set((await cache()).limit);
    },
  });
  new Gauge({
    name: 'backref_cache_bytes',
    help: 'What the disk is used for, in blocks.',
    labelNames: ['kind'] as const,
    registers,
    async collect() {
      const usage = await cache();
      for (const kind of USES_OF_CACHE) this.set({kind}, usage[kind]);
    },
  });
}

export function registerGauges(
  registry: Registry,
  {
    version,
    openConnections,
    requestsInFlight,
    fillsInFlight,
    storedBytes,
    freeBytes,
    isMetadataWritable,
    damagedLocalBlobs,
    cache,
  }: GaugeSources,
): void {
  const registers = [registry];
  new Gauge({
    name: 'backref_build_info',
    help: 'Always 1; the labels name the versions.',
    labelNames: ['version', 'node'] as const,
    registers,
  }).set({version, node: process.versions.node}, 1);
  new Gauge({
    name: 'backref_connections',
    help: 'Open connections of clients; those of admin listeners are not counted.',
    registers,
    collect() {
      this.set(openConnections());
    },
  });
  new Gauge({
    name: 'backref_requests_in_flight',
    help: 'Requests whose response has not ended; the one that reads this is one of them.',
    registers,
    collect() {
      this.set(requestsInFlight());
    },
  });
  new Gauge({
    name: 'backref_fills_in_flight',
    help: 'Downloads of blobs in progress.',
    registers,
    collect() {
      this.set(fillsInFlight());
    },
  });
  new Gauge({
    name: 'backref_damaged_local_blobs',
    help: 'Blobs that were pushed here, are known to be missing or damaged, and were not pushed again since.',
    registers,
    collect() {
      this.set(damagedLocalBlobs());
    },
  });
  new Gauge({
    name: 'backref_metadata_writable',
    help: '0 while the metadata can only be read, since their disk is full or read-only; else 1.',
    registers,
    collect() {
      this.set(isMetadataWritable() ? 1 : 0);
    },
  });
  const measured = (name: string, help: string, measure: () => Promise<number>) =>
    new Gauge({
      name,
      help,
      registers,
      async collect() {
        try {
          this.set(await measure());
        } catch {
          // An unmounted disk has no number of bytes, and 0 would be wrong.
          this.remove();
        }
      },
    });
  measured('backref_stored_bytes', 'Bytes of stored blobs, counted once a minute.', storedBytes);
  measured('backref_free_bytes', 'Free bytes on the file system of the blobs.', freeBytes);
  registerCache(registry, cache);
}

let collected: Registry | undefined;

/**
 * CPU, memory, event loop and garbage collection of this process. All servers in a process share them, since their
 * collectors cannot be stopped: see docs/decisions/0033.
 */
export function processMetrics(): Registry {
  if (!collected) {
    collected = new Registry();
    collectDefaultMetrics({register: collected});
  }
  return collected;
}
