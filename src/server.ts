import {randomUUID} from 'node:crypto';
import {mkdirSync, realpathSync} from 'node:fs';
import {join} from 'node:path';
import {type Commands, createCommands} from './admin/commands.ts';
import {type AdminSocket, createAdminSocket} from './admin/socket.ts';
import {type Background, createBackground} from './background.ts';
import {changedSettings} from './changed-settings.ts';
import {type Clock, systemClock} from './clock.ts';
import type {Config} from './config.ts';
import {createCurrentRegistries, type RegistryChanges} from './current-registries.ts';
import {createEvents, type Events} from './events.ts';
import {createApp} from './http/app.ts';
import {createListener, type Listener} from './http/listener.ts';
import {createIndexRepository} from './registry/referrers/index-repository.ts';
import {createReindex} from './registry/referrers/rebuild.ts';
import {createWriteFence} from './registry/write-fence.ts';
import type {BlobStore} from './storage/blob-store.ts';
import {type FolderLock, Occupied} from './storage/folder-lock.ts';
import {createSpools} from './storage/fs/spools.ts';
import type {Metadata} from './storage/metadata.ts';
import {lockFolder} from './storage/sqlite/folder-lock.ts';
import {openSqliteMetadata} from './storage/sqlite/metadata.ts';
import {createUpstream} from './upstream/client.ts';
import {type Wired, wire} from './wire.ts';

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
  /**
   * Opens the store, be it without listening to clients, and gives what an operator may do to it. Until it is closed, no
   * other server works on the data folder. @throws as `listen`
   */
  commands(): Promise<Commands>;
  /**
   * Takes up another configuration: its registries and the time that a stop may take. Requests under way keep the
   * registries that they were routed with.
   * @throws Error, and changes nothing.
   */
  reload(config: Config): Reloaded;
  /** Ends requests under way within the configured grace, keeps partial spools, frees port and files. Idempotent. */
  close(): Promise<void>;
}

export interface Reloaded extends RegistryChanges {
  /** The paths of settings that differ and stay as they were: they take effect when a server starts. */
  left: string[];
}

export interface ServerDeps {
  clock?: Clock;
  /** For the proxy variables and credential helpers of upstreams; default the process's. */
  env?: NodeJS.ProcessEnv;
}

/** How often uploads that are over, and spools that nobody goes on with, are looked for; or more often. */
const SWEEP = 60 * 60 * 1000;

/** How often the blob store is looked for, so that the log says for how long it has been missing. */
const STORE_CHECK_MS = 60_000;
const FIND_STORE = 'find the blob store';

/** One server: everything that it consists of is made and wired here, and held by nobody else. */
export function createServer(
  initial: Config,
  {clock = systemClock, env = process.env}: ServerDeps = {},
): BackrefServer {
  /** The one in force. */
  let config = initial;
  const events = createEvents();
  const pseudonym = `backref-${randomUUID()}`;
  const registries = createCurrentRegistries(initial.registries, (upstream) =>
    createUpstream(upstream, {clock, events, via: pseudonym, env}),
  );
  const spools = createSpools({path: join(config.storage.blobs.path, 'spool')});
  let running: Promise<Running> | undefined;
  let closing: Promise<void> | undefined;

  async function start(): Promise<Running> {
    const locks = occupy();
    try {
      const parts = await open();
      await findStore(parts.store);
      await listenForCommands(parts.socket);
      return {...parts, locks};
    } catch (error) {
      releaseAll(locks);
      throw error;
    }
  }

  async function open(): Promise<Omit<Running, 'locks'>> {
    const metadata = await openSqliteMetadata({path: config.storage.metadata.path});
    const writes = createWriteFence();
    const background = createBackground({clock, events});
    const {verbs, garbage, ingest, ...work} = wire(config, {
      metadata,
      spools,
      writes,
      registries: registries.get,
      isStopping: () => closing !== undefined,
      owner: pseudonym,
      clock,
      events,
    });
    const app = createApp({
      verbs,
      registries: registries.get,
      pseudonym,
      trustedProxies: config.listen.trustedProxies,
      clock,
      events,
    });
    const commands = createCommands({
      reindex: createReindex({metadata, clock}),
      indexRepository: createIndexRepository({metadata, writes, tagLists: verbs.tagLists, clock}),
      garbage,
      ingest,
      registries: registries.get,
    });
    const socket = createAdminSocket({
      folder: config.storage.path,
      commands,
      failed: (error) => events.emit('background.failed', {task: 'listen for commands', error}),
    });
    const listener = createListener({
      app,
      sendTimeout: config.listen.sendTimeout,
      clock,
      events,
    });
    return {...work, metadata, garbage, background, commands, socket, listener};
  }

  /** What is done beside the requests, from now on. */
  function work({store, sweepSpools, expiry, garbage, reconciler, background}: Running): void {
    const {
      uploads: {expireAfter},
      garbage: {interval, grace},
    } = config;
    const expire = (signal: AbortSignal) => expiry.run(clock.now() - expireAfter, signal);
    const collect = (signal: AbortSignal) => garbage.run({grace, signal, progress: () => {}});
    background.every(STORE_CHECK_MS, FIND_STORE, store.check);
    background.once('sweep old spools', sweepSpools);
    background.every(SWEEP, 'sweep old spools', sweepSpools);
    background.once('expire uploads', expire);
    background.every(Math.min(expireAfter, SWEEP), 'expire uploads', expire);
    if (interval > 0) background.every(interval, 'collect garbage', collect);
    reconciler.start();
  }

  /** Locks the data folder, and that of the blobs where it is another one: nobody else may remove what is in it. */
  function occupy(): FolderLock[] {
    const {path, blobs} = config.storage;
    const locks = new Map<string, FolderLock>();
    for (const folder of [path, blobs.path]) {
      try {
        mkdirSync(folder, {recursive: true});
        const real = realpathSync(folder);
        if (!locks.has(real)) locks.set(real, lockFolder(real));
      } catch (error) {
        if (error instanceof Occupied) {
          releaseAll(locks.values());
          throw error;
        }
        // A file system without locks, or one that may not be written to, is no reason not to serve.
        events.emit('background.failed', {task: `lock the folder ${folder}`, error});
      }
    }
    return [...locks.values()];
  }

  /** A new store is made now. One that is missing is waited for: what is not in it can be served without it. */
  async function findStore(store: BlobStore): Promise<void> {
    try {
      await store.check();
    } catch (error) {
      events.emit('background.failed', {task: FIND_STORE, error});
    }
  }

  /** A system without Unix sockets is no reason not to serve either. */
  async function listenForCommands(socket: AdminSocket): Promise<void> {
    try {
      await socket.listen();
    } catch (error) {
      events.emit('background.failed', {task: 'listen for commands', error});
    }
  }

  async function stop(): Promise<void> {
    const started = await running?.catch(() => undefined);
    const {listener, socket, background, reconciler, prefetch, fills, lists, metadata, locks} = started ?? {};
    // In one turn: from here on nothing new is taken, by either of them.
    await Promise.all([listener?.close(config.shutdown.grace), socket?.close()]);
    await Promise.all([background?.close(), reconciler?.close()]);
    prefetch?.close();
    await fills?.close();
    await lists?.close();
    await metadata?.close();
    releaseAll(locks ?? []);
    registries.close();
  }

  return {
    events,
    async listen() {
      running ??= start();
      const parts = await running;
      const {host} = config.listen;
      const port = await parts.listener.listen(host, config.listen.port);
      work(parts);
      return {host, port, url: `http://${reachable(host)}:${port}`};
    },
    async commands() {
      running ??= start();
      return (await running).commands;
    },
    reload(next) {
      const changes = registries.replace(next.registries);
      const {registries: entries, shutdown, log} = next;
      config = Object.freeze({...config, registries: entries, shutdown, log});
      return {...changes, left: changedSettings(config, next)};
    },
    close() {
      closing ??= stop();
      return closing;
    },
  };
}

function releaseAll(locks: Iterable<FolderLock>): void {
  for (const lock of locks) lock.release();
}

interface Running extends Omit<Wired, 'verbs' | 'ingest'> {
  metadata: Metadata;
  background: Background;
  listener: Listener;
  commands: Commands;
  socket: AdminSocket;
  locks: FolderLock[];
}

/** An address that a client on this machine can use. */
function reachable(host: string): string {
  if (host === '0.0.0.0' || host === '::') return '127.0.0.1';
  return host.includes(':') ? `[${host}]` : host;
}
