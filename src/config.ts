import {isDeepStrictEqual} from 'node:util';
import type {ListenAddress} from './address.ts';
import {isRecord} from './oci/json.ts';
/** The configuration of one server: validated, complete, frozen. Durations in milliseconds, sizes in bytes. */
export interface Config {
  /** How many threads answer requests; `auto`: one, and one for each core once it is busy. */
  workers: number | 'auto';
  /** At least one of them serves registries. */
  listen: readonly ListenerConfig[];
  storage: {
    /** The folder of the lock and the admin socket, and the default for blobs and metadata. */
    path: string;
    /** The folder of the blobs, and of the spools, so that publishing a blob is a rename. */
    blobs: {driver: 'fs'; path: string};
    /** The path of the database. */
    metadata: {driver: 'sqlite'; path: string};
  };
  cache: {
    /** Bytes of manifests and small blobs held in memory. */
    memory: number;
    /** How much of the disk everything that is stored may use; undefined for no limit of its own. */
    maxSize: VolumeSize | undefined;
    /** How much of the disk stays free. */
    minFree: VolumeSize;
    /** The percentage of the limit above which images are evicted, and the one at which eviction stops. */
    highWatermark: number;
    lowWatermark: number;
    /** How many images of each matching repository are never evicted: those that were linked last. */
    keep: readonly {match: string; newest: number}[];
  };
  /** Who may do what. */
  access: {
    /** `audit` denies nothing by rules, and reports what would be denied. */
    mode: 'enforce' | 'audit';
    /** The first one that matches decides. Undefined: anybody may pull, and what comes in through loopback may push. */
    rules: readonly AccessRuleConfig[] | undefined;
    /** The names of those who have `group:NAME` as a name as well. */
    groups: Readonly<Record<string, readonly string[]>>;
    /** Whose JWTs are accepted as credentials. */
    issuers: readonly IssuerConfig[];
    /** The client certificates that belong to users; the first one that matches decides. */
    certificates: readonly CertificateConfig[];
    /** The path of the htpasswd file, whose users log in with their passwords. It is read again when it changes. */
    users: {htpasswd: string | undefined};
    /** The tokens that this server issues. */
    tokens: {
      /** Its name, to its clients. */
      service: string;
      /** How long an access token is valid. */
      ttl: number;
      /** The private key that signs them, as PEM; undefined for keys that are generated and rotated. */
      key: string | undefined;
      /** The URL of the token endpoint; undefined for `/token` at the host that a client asked. */
      realm: string | undefined;
    };
  };
  /** The images that are never evicted: `registry/repository`, with an optional tag or digest, as a pattern. */
  pins: readonly string[];
  shutdown: {grace: number};
  /** How much may be open or running at the same time, in total and of one address or caller. */
  limits: {
    connections: {total: number; perAddress: number};
    /** `pipelined`: on one connection. */
    requests: {total: number; perCaller: number; pipelined: number};
    /** Requests that write an upload; they count as requests as well. `unfinished`: uploads of a caller that have not ended. */
    uploads: {total: number; perCaller: number; unfinished: number};
    /** Of one request: the bytes of all its headers, their number, and the time in which they have to arrive. */
    headers: {size: number; count: number; timeout: number};
    /**
     * How long the body of a request may be silent, how many bytes a second have to arrive on average (0: no minimum), and how
     * large a form may be.
     */
    bodies: {timeout: number; minRate: number; maxForm: number};
  };
  /** How long an upload may be idle before it is removed. */
  uploads: {expireAfter: number};
  /** How often unreferenced content is collected (0: never), and for how long it is kept before. */
  garbage: {interval: number; grace: number};
  /** In which time everything that is stored is hashed again (0: never). */
  scrub: {every: number};
  log: {level: 'debug' | 'info' | 'warn' | 'error' | 'silent'; format: 'pretty' | 'json'};
  /** Where each request of a client is recorded: a file or `stdout`; undefined for nowhere. */
  audit: {
    to: string | undefined;
    /** Bytes of a file after which the next one begins. */
    maxSize: number;
    /** How many full files are kept. */
    keep: number;
  };
  /** In the order of the file. */
  registries: readonly RegistryConfig[];
}

/** Patterns for names of callers and for places, and what such callers may do there. */
export interface AccessRuleConfig {
  who: readonly string[];
  where: readonly string[];
  may: readonly ('pull' | 'push' | 'delete' | 'attach' | 'admin')[];
}

export interface ListenerConfig {
  address: ListenAddress;
  /** What it serves: registries, or what operators and monitoring ask. */
  serve: 'main' | 'admin';
  /** The paths of the PEM files for TLS; undefined for plain HTTP. */
  tls:
    | {
        cert: string;
        key: string;
        /** The authorities of client certificates; undefined where none are asked for. */
        clientCa: string | undefined;
      }
    | undefined;
  /** How long a client may read nothing of its response before it is disconnected. */
  sendTimeout: number;
  /** Addresses and networks of the proxies whose forwarding headers are trusted; `unix` for the peers of a socket. */
  trustedProxies: readonly string[];
}

/** A number of bytes, or a percentage of the volume. */
export type VolumeSize = {bytes: number} | {percent: number};

export interface RegistryConfig {
  /** The key in the file, usually the source host, e.g. `docker.io`. */
  name: string;
  default: boolean;
  /** More values of `ns` and first path components that select this registry. */
  aliases: readonly string[];
  /** Request hosts (with or without a port) that select this registry. */
  hosts: readonly string[];
  /** Whether `alpine` means `library/alpine`, as on Docker Hub. */
  library: boolean;
  /** Undefined for a hosted registry, whose content was pushed here. */
  upstream: UpstreamConfig | undefined;
  /** Patterns for its repositories, without its name. Without `allow`, all that `deny` does not match are served. */
  repositories: {allow: readonly string[]; deny: readonly string[]};
  /** The lifetimes of lists of tags, and of every tag that no rule matches. */
  tags: TagLifetimes;
  /** The lifetimes of the tags that match a pattern, written `tag` or `repository:tag`. The first rule that matches counts. */
  tagRules: readonly ({match: readonly string[]} & TagLifetimes)[];
  referrers: {
    /** Where a subject's referrers are read: `auto` is the Referrers API if the upstream has one, else the fallback tag. */
    mode: 'auto' | 'api' | 'tag' | 'off';
    ttl: number;
    maxStale: number;
    /** What is fetched in the background with a manifest: its referrers' manifests, also their blobs, or nothing. */
    prefetch: 'manifests' | 'all' | 'off';
    /** How many locally pushed referrers of one artifact type a subject keeps: the newest. Undefined: all. */
    keep: number | undefined;
  };
  /** Whether pushes are refused, stored here, or written to the upstream. */
  push: 'deny' | 'local' | 'through';
  /** Whether the content of a pushed manifest must exist here, and have the size that the manifest declares. */
  validate: {blobs: boolean; children: boolean; sizes: boolean};
  /** Whether a manifest without a subject may be pushed over an upstream's content. */
  overlay: {tags: 'deny' | 'allow'};
  /** The largest manifest that is accepted, in bytes. */
  maxManifest: number;
  /** How much a pushed manifest may name and nest; bytes of a pushed blob, and of all that a repository keeps. */
  limits: {children: number; depth: number; blob: number | undefined; repository: number | undefined};
}

export interface TagLifetimes {
  ttl: number;
  maxStale: number;
  keepDeleted: number;
  absentTtl: number;
}

export type CredentialsConfig =
  | {kind: 'basic'; username: string; password: string}
  | {kind: 'docker-config'; path: string};

/** The upstream is asked with the credentials of each caller, for that caller alone. */
export interface PassthroughConfig {
  kind: 'passthrough';
}

export interface UpstreamConfig {
  /** `https://host[:port]`, or `http://` with `insecure: true`. */
  url: string;
  insecure: boolean;
  credentials: CredentialsConfig | PassthroughConfig | undefined;
  /** Hosts of token services outside the upstream's registrable domain that may receive the credentials. */
  realmHosts: readonly string[];
  /** Hosts at private addresses that the upstream may redirect to. */
  redirectHosts: readonly string[];
  /** Additional certificate authorities, as PEM text. */
  ca: readonly string[];
  timeouts: {connect: number; headers: number; idle: number};
  /** The largest number of concurrent requests. Downloads that bypass the cache have half of `bodies` in addition. */
  concurrency: {heads: number; manifests: number; bodies: number};
  /** How many failures in a row open the circuit of a host or a repository, and for how long. */
  breaker: {failures: number; openFor: number};
  /** The status of a miss while the upstream limits the rate. */
  rateLimitStatus: 429 | 503;
  /** How much longer tags and lists of referrers are used while the upstream's rate limit is running out. */
  quota: 'off' | 'gentle' | 'strict';
}

/** The algorithms of signatures by which an issuer's token may be signed: those with a public key. */
export const JWT_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const;

/** Somebody whose JWTs are accepted as credentials. */
export interface IssuerConfig {
  /** What the names of its tokens' subjects begin with in rules, e.g. `gha`. */
  name: string;
  /** The `iss` of its tokens, to the letter. */
  issuer: string;
  /** What the `aud` of its tokens must name; one of these. */
  audience: readonly string[];
  /** The path or the URL of its keys; undefined to find them by OpenID Connect Discovery. */
  jwks: string | undefined;
  algorithms: readonly (typeof JWT_ALGORITHMS)[number][];
  /** Patterns for the values that claims must have. */
  require: Readonly<Record<string, string>>;
  /** The claims that make names for rules; undefined for all. */
  claims: readonly string[] | undefined;
  /** How long ago a token may have been issued. */
  maxAge: number | undefined;
  /** Whether keys may be read over `http://` from other machines. */
  insecure: boolean;
  /** Additional certificate authorities, as PEM text. */
  ca: readonly string[];
}

/** A pattern for the subject of a client certificate, or for one of its alternative names, and whom it belongs to. */
export interface CertificateConfig {
  subject: string | undefined;
  san: string | undefined;
  user: string;
}

/**
 * The settings that differ between two configurations, each by its path: `listen.port`.
 * @param path that of the two values.
 */
export function changedSettings(before: unknown, after: unknown, path = ''): string[] {
  if (isDeepStrictEqual(before, after)) return [];
  if (!isRecord(before) || !isRecord(after)) return [path];
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) =>
    changedSettings(before[key], after[key], path === '' ? key : `${path}.${key}`),
  );
}
