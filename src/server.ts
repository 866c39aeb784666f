import {randomUUID} from 'node:crypto';
import {type Commands, createCommands} from './admin/commands.ts';
import {type AdminSocket, createAdminSocket} from './admin/socket.ts';
import {type Background, createBackground} from './background.ts';
import {type Clock, systemClock} from './clock.ts';
import {type Config, changedSettings} from './config.ts';
import {type CurrentRegistries, createCurrentRegistries, type RegistryChanges} from './current-registries.ts';
import {createEvents, type Events} from './events.ts';
import {type App, createApp} from './http/app.ts';
import {createLimits, type Limits} from './http/limits.ts';
import {type Address, createListeners, type Listeners} from './listeners.ts';
import {type AccessPolicy, createAccessPolicy} from './registry/access-policy.ts';
import {createGenerations, type Generations} from './registry/generations.ts';
import {shareMemory} from './registry/memory.ts';
import type {BlobStore} from './storage/blob-store.ts';
import type {FolderLock} from './storage/folder-lock.ts';
import {lockStorage, openStorage, type Storage} from './storage/open.ts';
import {type Wired, wire} from './wire.ts';

export interface BackrefServer {
  readonly events: Events;
  /** Where it listens, in the order of the configuration; empty until it does. */
  readonly addresses: readonly Address[];
  /**
   * Opens the store, then accepts requests, and commands over the local socket in the data folder. Asks no upstream.
   * @returns the address of the first listener that serves registries
   * @throws the system's error, e.g. EADDRINUSE or EACCES; Error when the database cannot be opened, or while another
   * server uses the data folder
   */
  listen(): Promise<Address>;
  /**
   * Opens the store, if `listen` has not, and returns the operator's commands on it. Until the server is closed, no other
   * one can use the data folder. @throws as `listen`
   */
  commands(): Promise<Commands>;
  /**
   * Adopts the registries, the rules, the limits and the shutdown grace of another configuration. Running requests keep the registries that they
   * were routed with.
   * @throws Error, and changes nothing.
   */
  reload(config: Config): Reloaded;
  /** Lets running requests end within the configured grace, keeps partial spools, frees port and files. Idempotent. */
  close(): Promise<void>;
}

export interface Reloaded extends RegistryChanges {
  /** Paths of settings that differ but take effect only when a server starts. */
  left: string[];
}

export interface ServerDeps {
  clock?: Clock;
  /** For the proxy variables and credential helpers of upstreams; default the process's. */
  env?: NodeJS.ProcessEnv;
}

/** The longest time between two removals of abandoned uploads and spools. */
const SWEEP_INTERVAL_MS = 60 * 60 * 1000;

/** How often to look for the blob store, so that the log says how long it has been missing. */
const STORE_CHECK_INTERVAL_MS = 60_000;
/** How often to try to write metadata again that could only be read. */
const REOPEN_INTERVAL_MS = 10_000;
/** How often what has become due is hashed. */
const SCRUB_STEP_MS = 60_000;
/** How often to see whether pinned images would survive an outage. */
const PINNED_INTERVAL_MS = 5 * 60_000;
const CHECK_PINNED = 'check the pinned images';
const FIND_STORE = 'find the blob store';
/** How often the size of the cache is measured. What a pull or a push brings is looked at when it comes. */
const EVICTION_INTERVAL_MS = 60_000;
const EVICT = 'keep the cache to its limit';
/** How often uses of manifests, and who pulled what, are written. */
const USES_INTERVAL_MS = 60_000;
/** How often requests that were counted together are reported. */
const HAND_OVER_INTERVAL_MS = 1000;

/** A server whose storage is open. */
interface OpenServer {
  lock: FolderLock;
  storage: Storage;
  wired: Wired;
  app: App;
  background: Background;
  commands: Commands;
  socket: AdminSocket;
  listeners: Listeners;
}

/** The server's parts are created here and in `wire`, and belong to this server alone. */
export const createServer = (config: Config, deps: ServerDeps = {}): BackrefServer =>
  new Server(config, deps);

class Server implements BackrefServer {
  readonly events = createEvents();
  #addresses: readonly Address[] = [];
  /** The configuration in force. */
  #config: Config;
  #policy: AccessPolicy;
  readonly #clock: Clock;
  readonly #env: NodeJS.ProcessEnv;
  /** Names this process, to upstreams and among those that share the metadata. */
  readonly #pseudonym = `backref-${randomUUID()}`;
  readonly #registries: CurrentRegistries;
  readonly #generations: Generations = createGenerations();
  readonly #limits: Limits;
  #running: Promise<OpenServer> | undefined;
  #closing: Promise<void> | undefined;

  constructor(config: Config, {clock = systemClock, env = process.env}: ServerDeps) {
    this.#config = config;
    this.#policy = createAccessPolicy(config.access);
    this.#clock = clock;
    this.#env = env;
    const {events} = this;
    this.#limits = createLimits(config.limits, {clock, events});
    this.#registries = createCurrentRegistries(config.registries, {
      clock,
      events,
      via: this.#pseudonym,
      env,
    });
  }

  get addresses(): readonly Address[] {
    return this.#addresses;
  }

  async listen(): Promise<Address> {
    this.#running ??= this.#start();
    const running = await this.#running;
    const {users, robots} = running.wired.identity;
    await Promise.all([users.refresh(), robots.load()]);
    this.#addresses = await running.listeners.listen();
    this.#beginBackground(running);
    const main = this.#addresses.find(({serves}) => serves === 'main');
    if (!main) throw new Error('no listener of the configuration serves registries');
    return main;
  }

  async commands(): Promise<Commands> {
    this.#running ??= this.#start();
    return (await this.#running).commands;
  }

  reload(next: Config): Reloaded {
    const changes = this.#registries.replace(next.registries);
    const {audit, registries, shutdown, log} = next;
    // The file of users and the keys of tokens stay until a restart.
    const {users, tokens} = this.#config.access;
    const access = {...next.access, users, tokens};
    this.#policy = createAccessPolicy(access);
    this.#limits.replace(next.limits);
    const limits = this.#limits.settings;
    this.#config = Object.freeze({...this.#config, access, audit, registries, shutdown, limits, log});
    this.#generations.end('configuration');
    return {...changes, left: changedSettings(this.#config, next)};
  }

  close(): Promise<void> {
    this.#closing ??= this.#stop();
    return this.#closing;
  }

  async #start(): Promise<OpenServer> {
    const lock = lockStorage(this.#config.storage, (folder, error) =>
      this.#failed(`lock the folder ${folder}`, error),
    );
    let storage: Storage | undefined;
    try {
      storage = await openStorage(this.#config.storage, {
        owner: this.#pseudonym,
        clock: this.#clock,
        diskFailed: ({part, code, message}) => this.events.emit('disk.failed', {part, code, message}),
      });
      const running = this.#wire(lock, storage);
      await running.wired.maintenance.reopenMetadata();
      await this.#findStore(storage.store);
      await this.#listenForCommands(running.socket);
      return running;
    } catch (error) {
      await storage?.close();
      lock.release();
      throw error;
    }
  }

  #wire(lock: FolderLock, storage: Storage): OpenServer {
    const config = this.#config;
    const clock = this.#clock;
    const {events} = this;
    const pseudonym = this.#pseudonym;
    const registries = () => this.#registries.get();
    const isStopping = () => this.#closing !== undefined;
    const policy = () => this.#policy;
    const logins = () => this.#config.access;
    const limits = this.#limits;
    const generations = this.#generations;
    const requests = () => app.requests;
    const parts = {
      ...{storage, generations, registries, policy, logins, isStopping, requests, limits},
      ...{env: this.#env, clock, events},
    };
    const wired = wire(config, parts);
    const {verbs, content, identity} = wired;
    const app: App = createApp({
      verbs,
      access: content.access,
      authenticator: identity.authenticator,
      loginPlace: identity.loginPlace,
      ownLogins: identity.ownLogins,
      registries,
      hasAdminListener: config.listen.some(({serve}) => serve === 'admin'),
      pseudonym,
      limits,
      preparedBytes: shareMemory(config.cache.memory).prepared,
      generations,
      servedAgain: content.servedAgain,
      clock,
      events,
    });
    const commands = createCommands({...wired.maintenance, robots: wired.identity.robots, registries});
    return {
      lock,
      storage,
      wired,
      app,
      background: createBackground({clock, events}),
      commands,
      socket: createAdminSocket({
        folder: config.storage.path,
        commands,
        failed: (error) => this.#failed('listen for commands', error),
      }),
      listeners: createListeners(config.listen, {app, limits, clock, events}),
    };
  }

  /** Creates a new store now. A missing one is waited for: what is not in it can be served without it. */
  async #findStore(store: BlobStore): Promise<void> {
    await store.check().catch((error) => this.#failed(FIND_STORE, error));
  }

  /** A system without Unix sockets can serve all the same. */
  async #listenForCommands(socket: AdminSocket): Promise<void> {
    await socket.listen().catch((error) => this.#failed('listen for commands', error));
  }

  #failed(task: string, error: unknown): void {
    this.events.emit('background.failed', {task, error});
  }

  /** Starts the work that no request asks for. */
  #beginBackground({storage, wired, app, background}: OpenServer): void {
    const {uploads, garbage, scrub} = this.#config;
    const {maintenance, push} = wired;
    const sweep = () => maintenance.sweepSpools();
    const expire = (signal: AbortSignal) =>
      maintenance.expiry.run(this.#clock.now() - uploads.expireAfter, signal);
    const collect = (signal: AbortSignal) =>
      maintenance.garbage.run({grace: garbage.grace, signal, progress: () => {}});
    background.every(STORE_CHECK_INTERVAL_MS, FIND_STORE, () => storage.store.check());
    background.every(REOPEN_INTERVAL_MS, 'open the metadata for writing', () => maintenance.reopenMetadata());
    background.once('sweep old spools', sweep);
    background.once('check the store', (signal) => maintenance.startCheck.run(signal));
    background.every(SWEEP_INTERVAL_MS, 'sweep old spools', sweep);
    background.every(SWEEP_INTERVAL_MS, 'sweep the quarantine', () => maintenance.sweepQuarantine());
    background.every(SWEEP_INTERVAL_MS, 'forget old links', (signal) => maintenance.boundLinks(signal));
    background.once('expire uploads', expire);
    background.every(Math.min(uploads.expireAfter, SWEEP_INTERVAL_MS), 'expire uploads', expire);
    if (garbage.interval > 0) background.every(garbage.interval, 'collect garbage', collect);
    if (scrub.every > 0) {
      background.every(SCRUB_STEP_MS, 'scrub', (signal) => maintenance.scrub.step(signal));
    }
    const evict = (signal: AbortSignal) => maintenance.evictor.step(signal);
    background.once(EVICT, evict);
    background.every(EVICTION_INTERVAL_MS, EVICT, evict);
    for (const {interval, task, work} of wired.identity.upkeep) background.every(interval, task, work);
    background.every(HAND_OVER_INTERVAL_MS, 'count requests', async () => app.requests.handOver());
    for (const {task, flush} of wired.records) background.every(USES_INTERVAL_MS, task, flush);
    background.every(SWEEP_INTERVAL_MS, 'forget old pulls', () => maintenance.pulls.bound());
    const checkPinned = (signal: AbortSignal) => maintenance.ready.checkPinned(signal);
    background.once(CHECK_PINNED, checkPinned);
    background.every(PINNED_INTERVAL_MS, CHECK_PINNED, checkPinned);
    push.reconciler.start();
  }

  async #stop(): Promise<void> {
    const running = await this.#running?.catch(() => undefined);
    if (running) await this.#stopRunning(running);
    this.#registries.close();
  }

  /** Closes the parts in the order of their dependencies: those that take requests first, those that keep data last. */
  async #stopRunning({lock, storage, wired, app, background, socket, listeners}: OpenServer): Promise<void> {
    const {content, referrers, push, maintenance} = wired;
    // Both start to close at once, so that neither accepts anything new.
    await Promise.all([listeners.close(this.#config.shutdown.grace), socket.close()]);
    app.requests.handOver();
    await Promise.all([background.close(), maintenance.evictor.close(), push.reconciler.close()]);
    referrers.prefetch.close();
    await content.fills.close();
    await referrers.lists.close();
    for (const {task, flush} of wired.records) await flush().catch((error) => this.#failed(task, error));
    await storage.close();
    lock.release();
  }
}
