import {randomUUID} from 'node:crypto';
import {join} from 'node:path';
import {type Commands, createCommands} from './admin/commands.ts';
import {type AdminSocket, createAdminSocket, Occupied} from './admin/socket.ts';
import {type Clock, systemClock} from './clock.ts';
import type {Config, RegistryConfig} from './config.ts';
import {createEvents, type Events} from './events.ts';
import {createApp} from './http/app.ts';
import {createListener, type Listener} from './http/listener.ts';
import type {Verbs} from './http/routes.ts';
import {createMetrics} from './observe/metrics.ts';
import {createAbsences} from './registry/absences.ts';
import {createAccess} from './registry/access.ts';
import {createBlobs} from './registry/blobs.ts';
import {createCatalog} from './registry/catalog.ts';
import {createFills, type Fills} from './registry/fill/fills.ts';
import {createManifestPull} from './registry/manifest-pull.ts';
import {createManifests} from './registry/manifests.ts';
import {createMemory} from './registry/memory.ts';
import {createCapabilities} from './registry/referrers/capability.ts';
import {createDiscovery} from './registry/referrers/discovery.ts';
import {createFallbackTags} from './registry/referrers/fallback-tag.ts';
import {createIndexRepository} from './registry/referrers/index-repository.ts';
import {createReferrerLists} from './registry/referrers/lists.ts';
import {createPrefetch, type Prefetch} from './registry/referrers/prefetch.ts';
import {createReferrers} from './registry/referrers/referrers.ts';
import {createReindex} from './registry/referrers/reindex.ts';
import {createTagReaders} from './registry/referrers/tag-readers.ts';
import {createRegistries, type Registry} from './registry/registries.ts';
import {createTagLists} from './registry/tag-lists.ts';
import {createTags} from './registry/tags.ts';
import {createFsBlobStore} from './storage/fs/blob-store.ts';
import {createSpools} from './storage/fs/spools.ts';
import type {Metadata} from './storage/metadata.ts';
import type {Spools} from './storage/spool.ts';
import {openSqliteMetadata} from './storage/sqlite/metadata.ts';
import {createUpstream} from './upstream/client.ts';

export interface Address {
  host: string;
  port: number;
  /** As a client on this machine reaches it. */
  url: string;
}

export interface BackrefServer {
  readonly events: Events;
  /**
   * Opens the store and accepts requests, and commands over the local socket in the data folder; asks no upstream.
   * @throws what the system says: EADDRINUSE, EACCES, a database that cannot be opened; Error when another server
   * works on the data folder
   */
  listen(): Promise<Address>;
  /** Opens the store, be it without listening, and gives what an operator may do to it. @throws as `listen` */
  commands(): Promise<Commands>;
  /** Ends requests under way within the configured grace, keeps partial spools, frees port and files. Idempotent. */
  close(): Promise<void>;
}

export interface ServerDeps {
  clock?: Clock;
  /** For the proxy variables and credential helpers of upstreams; default the process's. */
  env?: NodeJS.ProcessEnv;
}

/** Spools that nobody resumed for so many milliseconds are removed. */
const SPOOL_LIFE = 24 * 60 * 60 * 1000;

/** One server: everything that it consists of is made and wired here, and held by nobody else. */
export function createServer(
  config: Config,
  {clock = systemClock, env = process.env}: ServerDeps = {},
): BackrefServer {
  const events = createEvents();
  const pseudonym = `backref-${randomUUID()}`;
  const upstreams = (options: RegistryConfig) =>
    createUpstream(options.upstream, {clock, events, via: pseudonym, env});
  const registries = createRegistries(
    config.registries.map((entry) => registryOf(entry, upstreams(entry))),
    config.registries.find((entry) => entry.default)?.name,
  );
  const spools = createSpools({path: join(config.storage.blobs.path, 'spool')});
  let running: Promise<Running> | undefined;
  let closing: Promise<void> | undefined;

  async function start(): Promise<Running> {
    const metadata = await openSqliteMetadata({path: config.storage.metadata.path});
    const {verbs, fills, prefetch} = wire(config, {metadata, spools, clock, events});
    const app = createApp({verbs, registries: () => registries, pseudonym, clock, events});
    const commands = createCommands({
      reindex: createReindex({metadata, clock}),
      indexRepository: createIndexRepository({metadata, clock}),
      registries: () => registries,
    });
    const socket = createAdminSocket(config.storage.blobs.path, commands);
    return {metadata, fills, prefetch, commands, socket, listener: createListener(app, clock)};
  }

  /** A file system without sockets, or one that may not be written to, is no reason not to serve. */
  async function takeCommands(socket: AdminSocket): Promise<void> {
    try {
      await socket.listen();
    } catch (error) {
      if (error instanceof Occupied) throw error;
      events.emit('background.failed', {task: 'listen for commands', error});
    }
  }

  async function stop(): Promise<void> {
    const {listener, socket, prefetch, fills, metadata} = (await running) ?? {};
    // In one turn: from here on nothing new is taken, by either of them.
    await Promise.all([listener?.close(config.shutdown.grace), socket?.close()]);
    prefetch?.close();
    await fills?.close();
    await metadata?.close();
    for (const {upstream} of registries.all) upstream.close();
  }

  return {
    events,
    async listen() {
      running ??= start();
      const {listener, socket} = await running;
      const {host} = config.listen;
      await takeCommands(socket);
      const port = await listener.listen(host, config.listen.port);
      spools
        .sweep(clock.now() - SPOOL_LIFE)
        .catch((error) => events.emit('background.failed', {task: 'sweep old spools', error}));
      return {host, port, url: `http://${reachable(host)}:${port}`};
    },
    async commands() {
      running ??= start();
      return (await running).commands;
    },
    close() {
      closing ??= stop();
      return closing;
    },
  };
}

interface Wired {
  verbs: Verbs;
  fills: Fills;
  prefetch: Prefetch;
}

interface Running extends Omit<Wired, 'verbs'> {
  metadata: Metadata;
  listener: Listener;
  commands: Commands;
  socket: AdminSocket;
}

interface Parts {
  metadata: Metadata;
  spools: Spools;
  clock: Clock;
  events: Events;
}

function wire(config: Config, {metadata, spools, clock, events}: Parts): Wired {
  const store = createFsBlobStore({path: join(config.storage.blobs.path, 'blobs')});
  const memory = createMemory(config.cache.memory);
  const absences = createAbsences(clock);
  const access = createAccess({metadata, clock});
  const pull = createManifestPull({metadata, clock, arrived: (arrival) => prefetch.arrived(arrival)});
  const tags = createTags({metadata, pull, absences, clock});
  const fills = createFills({spools, store, metadata, clock, events});
  const blobs = createBlobs({store, metadata, access, fills, absences, memory, clock, events});
  const manifests = createManifests({metadata, access, pull, tags, absences, memory, events});
  const capabilities = createCapabilities(clock, events);
  const discovery = createDiscovery({capabilities, fallbackTags: createFallbackTags({metadata, pull})});
  const lists = createReferrerLists({metadata, discovery, memory, clock, events});
  const referrers = createReferrers({metadata, lists, events});
  const prefetch = createPrefetch({metadata, pull, lists, blobs, events});
  const verbs = {
    manifests: createTagReaders({manifests, referrers, metadata, clock}),
    blobs,
    tagLists: createTagLists({metadata, absences, clock}),
    catalog: createCatalog({metadata}),
    referrers,
    metrics: createMetrics(events),
  };
  return {verbs, fills, prefetch};
}

function registryOf(entry: RegistryConfig, upstream: Registry['upstream']): Registry {
  const {name, aliases, hosts, library, tags, referrers} = entry;
  return {
    name,
    aliases,
    hosts,
    library,
    upstream,
    tags,
    referrers,
    rateLimitStatus: entry.upstream.rateLimitStatus,
  };
}

/** An address that a client on this machine can use. */
function reachable(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
