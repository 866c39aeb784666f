/** What one server runs with: checked, complete, frozen. Durations in milliseconds, sizes in bytes. */
export interface Config {
  listen: {
    host: string;
    port: number;
    /** A client that takes none of the bytes of its response for so long is disconnected. */
    sendTimeout: number;
    /** Addresses and networks of proxies whose `X-Forwarded-For` is believed. */
    trustedProxies: readonly string[];
  };
  storage: {
    /** The folder of everything that is kept, less what has a path of its own; the lock and the admin socket. */
    path: string;
    /** The folder of the blobs and, so that publishing one is a rename, of the spools. */
    blobs: {driver: 'fs'; path: string};
    /** The path of the database. */
    metadata: {driver: 'sqlite'; path: string};
  };
  cache: {
    /** Bytes of manifests and small blobs held in memory. */
    memory: number;
  };
  shutdown: {grace: number};
  /** Uploads that nobody went on with for so long are removed. */
  uploads: {expireAfter: number};
  /** How often unreferenced content is collected, and for how long it is left alone before; an interval of 0 never does. */
  garbage: {interval: number; grace: number};
  log: {level: 'debug' | 'info' | 'warn' | 'error' | 'silent'; format: 'pretty' | 'json'};
  /** In the order of the file. */
  registries: readonly RegistryConfig[];
}

export interface RegistryConfig {
  /** Usually the source host, e.g. `docker.io`; the key of the file. */
  name: string;
  default: boolean;
  /** Further values of `ns`, and first path components, that mean this registry. */
  aliases: readonly string[];
  /** Request hosts (with or without a port) that mean this registry. */
  hosts: readonly string[];
  /** One-component names get `library/` in front, as on Docker Hub. */
  library: boolean;
  /** undefined: a hosted registry, whose content is what was pushed. */
  upstream: UpstreamConfig | undefined;
  tags: {ttl: number; maxStale: number; keepDeleted: number; absentTtl: number};
  referrers: {
    /** Where a subject's referrers are asked for: the Referrers API if there is one, else the fallback tag; or one of them. */
    mode: 'auto' | 'api' | 'tag' | 'off';
    ttl: number;
    maxStale: number;
    /** What is fetched in the background with a manifest: its referrers' manifests, their blobs as well, or nothing. */
    prefetch: 'manifests' | 'all' | 'off';
    /** Of one artifact type, at most so many locally attached referrers stay with a subject, the newest. */
    keep: number | undefined;
  };
  /** What becomes of what is pushed: refused, kept here, or written to the upstream. */
  push: 'deny' | 'local' | 'through';
  /** Whether what a manifest names must exist when it is pushed here, and have the size that the manifest declares. */
  validate: {blobs: boolean; children: boolean; sizes: boolean};
  /** Whether something without a subject may be pushed over an upstream's content. */
  overlay: {tags: 'deny' | 'allow'};
  /** The largest manifest that is taken, in bytes. */
  maxManifest: number;
}

export type CredentialsConfig =
  | {kind: 'basic'; username: string; password: string}
  | {kind: 'docker-config'; path: string};

export interface UpstreamConfig {
  /** `https://host[:port]`, or `http://` with `insecure: true`. */
  url: string;
  insecure: boolean;
  credentials: CredentialsConfig | undefined;
  /** Token realms outside the upstream's registrable domain that may be given the credentials. */
  realmHosts: readonly string[];
  /** Hosts that the upstream may redirect to although their addresses are private. */
  redirectHosts: readonly string[];
  /** PEM text of further certificate authorities. */
  ca: readonly string[];
  timeouts: {connect: number; headers: number; idle: number};
  /** Requests under way at once. Half as many as `bodies` come on top for what goes to clients past the cache. */
  concurrency: {heads: number; manifests: number; bodies: number};
  /** A circuit, of the host or of one repository, opens after so many failures in a row, for so long (ms). */
  breaker: {failures: number; openFor: number};
  /** The status of a miss that the upstream's rate limit caused. */
  rateLimitStatus: 429 | 503;
}
