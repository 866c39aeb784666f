import {join} from 'node:path';
import type {Config, RegistryConfig} from '../src/config.ts';
import {createServer} from '../src/server.ts';
import {LIMITS, NO_LOGINS, UNBOUNDED} from '../test/support/backref.ts';

/** What the fuzzed server reports about itself. */
export interface FuzzReport {
  /** Bytes of the heap after garbage collection. */
  heap: number;
  /** Faults that no client may cause, as text. */
  faults: string[];
}

const [folder = '', upstream = ''] = process.argv.slice(2);

const registry = (name: string, changes: Partial<RegistryConfig>): RegistryConfig => ({
  name,
  default: false,
  aliases: [],
  hosts: [],
  library: false,
  push: 'deny',
  validate: {blobs: true, children: true, sizes: false},
  overlay: {tags: 'deny'},
  maxManifest: 256 * 1024,
  repositories: {allow: [], deny: []},
  limits: {children: 50_000, depth: 8, blob: undefined, repository: undefined},
  tagRules: [],
  tags: {ttl: 50, maxStale: 100, keepDeleted: 100, absentTtl: 20},
  referrers: {mode: 'auto', ttl: 50, maxStale: 100, prefetch: 'off', keep: undefined},
  upstream: {
    url: upstream,
    insecure: true,
    credentials: undefined,
    realmHosts: [],
    redirectHosts: [],
    ca: [],
    timeouts: {connect: 60_000, headers: 30_000, idle: 30_000},
    concurrency: {heads: 32, manifests: 32, bodies: 32},
    breaker: {failures: Number.MAX_SAFE_INTEGER, openFor: 1},
    rateLimitStatus: 503,
    quota: 'gentle',
  },
  ...changes,
});

const config: Config = {
  workers: 1,
  listen: [
    {
      address: {host: '127.0.0.1', port: 0},
      serve: 'main',
      tls: undefined,
      sendTimeout: 60_000,
      trustedProxies: [],
    },
  ],
  storage: {
    path: folder,
    blobs: {driver: 'fs', path: folder},
    metadata: {driver: 'sqlite', path: join(folder, 'meta.db')},
  },
  cache: {...UNBOUNDED, memory: 1024 * 1024},
  pins: [],
  shutdown: {grace: 0},
  limits: LIMITS,
  uploads: {expireAfter: 60_000},
  garbage: {interval: 0, grace: 0},
  scrub: {every: 0},
  access: NO_LOGINS,
  log: {level: 'silent', format: 'json'},
  audit: {to: undefined, maxSize: 2 ** 20, keep: 1},
  registries: [
    registry('docker.io', {default: true, library: true}),
    registry('ghcr.io', {aliases: ['ghcr']}),
    registry('apps.local', {upstream: undefined, push: 'local'}),
    registry('quay.io', {push: 'local', overlay: {tags: 'allow'}}),
    registry('through.local', {push: 'through'}),
  ],
};

const server = createServer(config, {env: {}});
const faults: string[] = [];
const note = ({error}: {error: unknown}) =>
  void faults.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
server.events.on('request.fault', note);
server.events.on('background.failed', note);
server.events.on('listener.failed', note);

process.on('message', (order) => {
  if (order === 'close') return void server.close().then(() => process.disconnect());
  for (let round = 0; round < 3; round++) globalThis.gc?.();
  process.send?.({heap: process.memoryUsage().heapUsed, faults} satisfies FuzzReport);
});

process.send?.((await server.listen()).port);
