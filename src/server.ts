import {randomUUID} from 'node:crypto';
import {type Commands, createCommands} from './admin/commands.ts';
import {type AdminSocket, createAdminSocket} from './admin/socket.ts';
import {type Background, createBackground} from './background.ts';
import {beginBackgroundWork, FIND_STORE} from './background-work.ts';
import {type Clock, systemClock} from './clock.ts';
import {type Config, changedSettings} from './config.ts';
import {type CurrentRegistries, createCurrentRegistries, type RegistryChanges} from './current-registries.ts';
import {createEvents, type Events} from './events.ts';
import {type App, createApp} from './http/app.ts';
import {createKeySecret} from './http/known-request.ts';
import {createLimits, type Limits} from './http/limits.ts';
import {type Address, createListeners, type Listeners} from './listeners.ts';
import {type AccessPolicy, createAccessPolicy} from './registry/access-policy.ts';
import {createGenerations, type Generations} from './registry/generations.ts';
import {shareMemory} from './registry/memory.ts';
import type {BlobStore} from './storage/blob-store.ts';
import type {FolderLock} from './storage/folder-lock.ts';
import {lockStorage, openStorage, type Storage} from './storage/open.ts';
import {type Wired, wire} from './wire.ts';
import {
  createServerWorkers,
  planSharing,
  type ServerWorkers,
  type Sharing,
  type WorkerDeps,
} from './wire-workers.ts';

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

export interface ServerDeps extends WorkerDeps {
  clock?: Clock;
  /** For the proxy variables and credential helpers of upstreams; default the process's. */
  env?: NodeJS.ProcessEnv;
}

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
  workers: ServerWorkers;
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
  readonly #workerDeps: WorkerDeps;
  /** Names this process, to upstreams and among those that share the metadata. */
  readonly #pseudonym = `backref-${randomUUID()}`;
  readonly #registries: CurrentRegistries;
  readonly #generations: Generations = createGenerations();
  readonly #keySecret = createKeySecret();
  readonly #limits: Limits;
  #running: Promise<OpenServer> | undefined;
  #workers: ServerWorkers | undefined;
  #listening: Promise<unknown> | undefined;
  #closing: Promise<void> | undefined;

  constructor(config: Config, {clock = systemClock, env = process.env, ...workerDeps}: ServerDeps) {
    this.#workerDeps = workerDeps;
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

  listen(): Promise<Address> {
    const listening = this.#listen();
    this.#listening = listening.catch(() => {});
    return listening;
  }

  async commands(): Promise<Commands> {
    this.#running ??= this.#start();
    return (await this.#running).commands;
  }

  reload(next: Config): Reloaded {
    try {
      return this.#adopt(next);
    } finally {
      this.#generations.end('configuration');
    }
  }

  #adopt(next: Config): Reloaded {
    const changes = this.#registries.replace(next.registries);
    const {audit, registries, shutdown, log} = next;
    // The file of users and the keys of tokens stay until a restart.
    const {users, tokens} = this.#config.access;
    const access = {...next.access, users, tokens};
    this.#policy = createAccessPolicy(access);
    this.#limits.replace(next.limits);
    const limits = this.#limits.settings;
    this.#workers?.replaceHeaders(limits.headers);
    this.#config = Object.freeze({...this.#config, access, audit, registries, shutdown, limits, log});
    return {...changes, left: changedSettings(this.#config, next)};
  }

  close(): Promise<void> {
    this.#closing ??= this.#stop();
    return this.#closing;
  }

  async #listen(): Promise<Address> {
    this.#running ??= this.#start();
    const running = await this.#running;
    const {users, robots} = running.wired.identity;
    await Promise.all([users.refresh(), robots.load()]);
    this.#refuseClosed();
    this.#addresses = await running.listeners.listen();
    this.#refuseClosed();
    await running.workers.start(this.#addresses);
    this.#refuseClosed();
    const current = {registries: this.#registries, config: this.#config, clock: this.#clock};
    beginBackgroundWork(running.background, {...running, ...current});
    const main = this.#addresses.find(({serves}) => serves === 'main');
    if (!main) throw new Error('no listener of the configuration serves registries');
    return main;
  }

  #refuseClosed(): void {
    if (this.#closing) throw new Error('the server was closed before it listened');
  }

  async #start(): Promise<OpenServer> {
    const lock = lockStorage(this.#config.storage, (folder, error) =>
      this.#failed(`lock the folder ${folder}`, error),
    );
    let storage: Storage | undefined;
    try {
      const sharing = await planSharing(this.#config, this.events, this.#workerDeps);
      storage = await openStorage(this.#config.storage, {
        owner: this.#pseudonym,
        clock: this.#clock,
        forgotten: (path) => this.#workers?.forget(path),
        diskFailed: ({part, code, message}) => this.events.emit('disk.failed', {part, code, message}),
        migrating: (migration) => this.events.emit('storage.migration', migration),
      });
      const running = this.#wire(lock, storage, sharing);
      this.#workers = running.workers;
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

  #wire(lock: FolderLock, storage: Storage, sharing: Sharing): OpenServer {
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
    const requests = () => ({inFlight: app.requests.inFlight, handOver});
    const handOver = async () => {
      await workers.report();
      app.requests.handOver();
    };
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
      keySecret: this.#keySecret,
      generations,
      servedAgain: content.servedAgain,
      files: storage.files,
      clock,
      events,
    });
    const listeners = createListeners(config.listen, {...sharing, app, limits, clock, events});
    const workers = createServerWorkers({
      keySecret: this.#keySecret,
      ...{config, sharing, app, storage, listeners, generations, limits, clock, events},
      ...this.#workerDeps,
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
      listeners,
      workers,
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

  async #stop(): Promise<void> {
    // What begins to listen while the server closes would stay.
    await this.#listening;
    const running = await this.#running?.catch(() => undefined);
    if (running) await this.#stopRunning(running);
    this.#registries.close();
  }

  /** Closes the parts in the order of their dependencies: those that take requests first, those that keep data last. */
  async #stopRunning(running: OpenServer): Promise<void> {
    const {lock, storage, wired, app, background, socket, listeners, workers} = running;
    const {content, referrers, push, maintenance} = wired;
    const {grace} = this.#config.shutdown;
    // All start to close at once, so that none accepts anything new.
    await Promise.all([listeners.close(grace), workers.close(grace), socket.close()]);
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
