import {
  Agent,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type OutgoingHttpHeaders,
  request,
} from 'node:http';
import {join} from 'node:path';
import {ownPort} from '../../rig/port.ts';
import {type Clock, systemClock} from '../../src/clock.ts';
import type {Config, ListenerConfig, RegistryConfig, UpstreamConfig} from '../../src/config.ts';
import {MAX_HOLD_MS} from '../../src/registry/blobs/progress.ts';
import {type BackrefServer, createServer, type Reloaded} from '../../src/server.ts';
import type {Busyness, Machine} from '../../src/workers/demand.ts';
import {createFolder} from './folder.ts';
import type {Lifetime} from './shared.ts';

/** Time that moves only when a test moves it; waits take as long as they say, or longer. */
export interface MovableClock extends Clock {
  /** Milliseconds. */
  move(ms: number): void;
  /** Sets the wall clock alone forward, or back, by this many milliseconds. */
  moveWall(ms: number): void;
}

/** The same clock, with each wait as long as `timeOf` makes it. */
export const waiting = (clock: MovableClock, timeOf: (ms: number) => number): MovableClock => ({
  ...clock,
  after: (ms, call) => clock.after(timeOf(ms), call),
});

/**
 * Waits of half a second and more are ten times as long: they are time limits, which a busy machine must not meet while
 * it runs other tests.
 */
export function createMovableClock(): MovableClock {
  // For worker threads as well.
  const times = new Float64Array(new SharedArrayBuffer(2 * Float64Array.BYTES_PER_ELEMENT));
  const now = () => times[0] ?? 0;
  const monotonic = () => times[1] ?? 0;
  // Files written meanwhile carry the system's time.
  times[0] = Date.now();
  return {
    times,
    now,
    monotonic,
    after: (ms, call) => systemClock.after(ms < 500 ? ms : 10 * ms, call),
    move(ms) {
      times.set([now() + ms, monotonic() + ms]);
    },
    moveWall(ms) {
      times.set([now() + ms]);
    },
  };
}

/** The same without the pauses between attempts: only waits of five seconds and more, which are time limits, take time. */
export const createClockWithoutPauses = (): MovableClock =>
  waiting(createMovableClock(), (ms) => (ms >= 5000 ? ms : 1));

/** The same, except that a small blob is not held back until it is verified: it is sent as it comes. */
export const createPassingClock = (): MovableClock =>
  waiting(createMovableClock(), (ms) => (ms === MAX_HOLD_MS ? 0 : ms));

export interface ProxyAnswer {
  status: number;
  headers: IncomingHttpHeaders;
  body: Buffer;
  json(): unknown;
}

export interface AskOptions {
  method?: string;
  headers?: OutgoingHttpHeaders;
  body?: Buffer | string;
}

export interface Backref {
  readonly url: string;
  readonly port: number;
  readonly server: BackrefServer;
  readonly clock: MovableClock;
  /** Everything that the server keeps. */
  readonly folder: string;
  /** Sends the path exactly as it is written and reads the whole answer. */
  ask(path: string, options?: AskOptions): Promise<ProxyAnswer>;
  /** The same up to the headers. */
  open(path: string, options?: AskOptions): Promise<IncomingMessage>;
  /** Resolves when every download that began has ended. */
  idle(): Promise<void>;
  /** Has the server take up another configuration of the same folder. */
  reload(changes: Partial<Pick<BackrefOptions, 'registries' | 'config'>>): Reloaded;
  /** Closes this server and starts another one on the same folder. */
  restart(): Promise<Backref>;
}

export type RegistryOverrides = Partial<Omit<RegistryConfig, 'upstream' | 'tags' | 'referrers'>> & {
  /** The upstream's URL; a hosted registry has none. */
  url?: string;
  upstream?: Partial<UpstreamConfig>;
  tags?: Partial<RegistryConfig['tags']>;
  referrers?: Partial<RegistryConfig['referrers']>;
};

export interface BackrefOptions {
  registries: RegistryOverrides[];
  clock?: MovableClock;
  folder?: string;
  trustedProxies?: string[];
  /** Of the listener that is asked. */
  listener?: Partial<ListenerConfig>;
  otherListeners?: ListenerConfig[];
  /** The program of worker threads. */
  workerProgram?: URL;
  /** How busy the server is, where `workers` is `auto`. */
  busyness?: Busyness;
  machine?: Machine;
  config?: Partial<
    Pick<Config, 'workers' | 'limits' | 'pins' | 'shutdown' | 'uploads' | 'garbage' | 'scrub'>
  > & {
    access?: Partial<Config['access']>;
    cache?: Partial<Config['cache']>;
  };
}

/** A server on a folder of its own, ended with the test. The first registry is the default one, `docker.io`. */
export async function startBackref(t: Lifetime, options: BackrefOptions): Promise<Backref> {
  const folder = options.folder ?? (await createFolder(t));
  const clock = options.clock ?? createMovableClock();
  const listenPort = await ownPort();
  const {workerProgram, busyness, machine} = options;
  const deps = {clock, env: {}, workerProgram, busyness, machine};
  const server = createServer(configOf(options, folder, listenPort), deps);
  const idle = watchFills(server);
  const agent = new Agent({keepAlive: true});
  const close = async () => {
    agent.destroy();
    await server.close();
  };
  t.teardown(close);
  const {url, port = 0} = await server.listen();

  const open: Backref['open'] = (path, options = {}) =>
    new Promise((resolve, reject) => {
      const {method = 'GET', headers = {}, body} = options;
      const asked = request({host: '127.0.0.1', port, path, method, headers, agent}, resolve);
      asked.once('error', (error: NodeJS.ErrnoException) => {
        // On a busy machine the server may close an idle connection while the request is on its way.
        if (asked.reusedSocket && error.code === 'ECONNRESET') resolve(open(path, options));
        else reject(error);
      });
      asked.end(body);
    });

  return {
    url,
    port,
    server,
    clock,
    folder,
    open,
    idle,
    async ask(path, asked) {
      const message = await open(path, asked);
      const body = Buffer.concat(await message.toArray());
      const {statusCode: status = 0, headers} = message;
      return {status, headers, body, json: () => JSON.parse(body.toString())};
    },
    reload: (changes) => server.reload(configOf({...options, ...changes}, folder, listenPort)),
    async restart() {
      await close();
      return startBackref(t, {...options, folder, clock});
    },
  };
}

function watchFills({events}: BackrefServer): () => Promise<void> {
  let running = 0;
  let ended = Promise.withResolvers<void>();
  const end = () => {
    running -= 1;
    ended.resolve();
    ended = Promise.withResolvers();
  };
  events.on('fill.start', () => {
    running += 1;
  });
  events.on('fill.done', end);
  events.on('fill.failed', end);
  return async () => {
    while (running > 0) await ended.promise;
    // What follows the end of a fill follows it at once.
    await new Promise(setImmediate);
  };
}

type ConfiguredOptions = Pick<
  BackrefOptions,
  'registries' | 'config' | 'trustedProxies' | 'listener' | 'otherListeners'
>;

export function configOf(
  {registries, config, trustedProxies = [], listener, otherListeners = []}: ConfiguredOptions,
  folder: string,
  port: number,
): Config {
  const {cache, access, ...settings} = config ?? {};
  return {
    listen: [
      {
        address: {host: '127.0.0.1', port},
        serve: 'main',
        tls: undefined,
        sendTimeout: 60_000,
        trustedProxies,
        ...listener,
      },
      ...otherListeners,
    ],
    storage: {
      path: folder,
      blobs: {driver: 'fs', path: folder},
      metadata: {driver: 'sqlite', path: join(folder, 'meta.db')},
    },
    cache: {...UNBOUNDED, ...cache},
    access: {...NO_LOGINS, ...access},
    workers: Number(process.env['TEST_WORKERS'] ?? 1),
    pins: [],
    shutdown: {grace: 2000},
    limits: LIMITS,
    uploads: {expireAfter: DAY},
    garbage: {interval: 0, grace: DAY},
    scrub: {every: 0},
    log: {level: 'silent', format: 'json'},
    audit: {to: undefined, maxSize: 2 ** 20, keep: 1},
    ...settings,
    registries: registries.map((entry, index) => registryConfig(entry, index)),
  };
}

function registryConfig(
  {url, upstream, tags, referrers, ...rest}: RegistryOverrides,
  index: number,
): RegistryConfig {
  return {
    name: index === 0 ? 'docker.io' : `registry-${index}.example`,
    default: index === 0,
    aliases: [],
    hosts: [],
    library: index === 0,
    push: url === undefined ? 'local' : 'deny',
    validate: {blobs: true, children: true, sizes: false},
    overlay: {tags: 'deny'},
    maxManifest: 4 * 1024 * 1024,
    repositories: {allow: [], deny: []},
    limits: {children: 50_000, depth: 8, blob: undefined, repository: undefined},
    tagRules: [],
    ...rest,
    tags: {ttl: 60_000, maxStale: 7 * DAY, keepDeleted: 7 * DAY, absentTtl: 5000, ...tags},
    // Nothing is asked that a test did not ask for.
    referrers: {mode: 'auto', ttl: 60_000, maxStale: 7 * DAY, prefetch: 'off', keep: undefined, ...referrers},
    upstream:
      url === undefined
        ? undefined
        : {
            url,
            insecure: true,
            credentials: undefined,
            realmHosts: [],
            redirectHosts: [],
            ca: [],
            timeouts: {connect: 60_000, headers: 5000, idle: 30_000},
            concurrency: {heads: 32, manifests: 64, bodies: 100},
            breaker: {failures: 5, openFor: 10_000},
            rateLimitStatus: 503,
            quota: 'gentle',
            ...upstream,
          },
  };
}

/** Limits that no test reaches; tests of limits lower those that they are about. */
export const LIMITS: Config['limits'] = {
  connections: {total: 1000, perAddress: 1000},
  requests: {total: 1000, perCaller: 1000, pipelined: 100},
  uploads: {total: 1000, perCaller: 1000, unfinished: 1000},
  headers: {size: 32 * 1024, count: 200, timeout: 60_000},
  bodies: {timeout: 60_000, minRate: 1024, maxForm: 64 * 1024},
};

/** Nobody can log in, and there are no rules. */
export const NO_LOGINS: Config['access'] = {
  mode: 'enforce',
  rules: undefined,
  groups: {},
  issuers: [],
  certificates: [],
  users: {htpasswd: undefined},
  tokens: {service: 'backref', ttl: 300_000, key: undefined, realm: undefined},
};

/** A cache that evicts nothing; tests of eviction change what they are about. */
export const UNBOUNDED: Config['cache'] = {
  memory: 8 * 1024 * 1024,
  maxSize: undefined,
  minFree: {bytes: 0},
  highWatermark: 95,
  lowWatermark: 90,
  keep: [],
};

export const DAY = 24 * 60 * 60 * 1000;
