import type {Upstream, UpstreamWriter} from '../upstream/port.ts';
import type {TagPolicy} from './freshness.ts';

/** How referrers are found, and for how long a list may be used; milliseconds. */
export interface ReferrersPolicy {
  readonly mode: 'auto' | 'api' | 'tag' | 'off';
  readonly ttl: number;
  readonly maxStale: number;
  readonly prefetch: 'manifests' | 'all' | 'off';
}

/** What is pushed is kept here, over what the upstream has. */
export interface LocalPush {
  readonly mode: 'local';
  /** Whether what a manifest names must exist. */
  readonly validate: {readonly blobs: boolean; readonly children: boolean; readonly sizes: boolean};
  /** Over an upstream: whether what has no subject, and may shadow a tag of the upstream, is taken. */
  readonly tags: 'deny' | 'allow';
  /** Of one artifact type, at most so many locally attached referrers stay with a subject. */
  readonly keep: number | undefined;
}

/** What is pushed is written to the upstream. */
export interface ThroughPush {
  readonly mode: 'through';
  readonly writer: UpstreamWriter;
}

/** What becomes of what is pushed. */
export type PushPolicy = {readonly mode: 'deny'} | LocalPush | ThroughPush;

/** A named entry of the configuration, ready to be asked. */
export interface Registry {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly hosts: readonly string[];
  /** One-component names get `library/` in front, as on Docker Hub. */
  readonly library: boolean;
  /** Asked for what is not here. That of a hosted registry has nothing. */
  readonly upstream: Upstream;
  /** There is no upstream: what was pushed here is all there is. */
  readonly hosted: boolean;
  readonly push: PushPolicy;
  /** The largest manifest that is taken, in bytes. */
  readonly maxManifest: number;
  readonly tags: TagPolicy;
  readonly referrers: ReferrersPolicy;
  /** What a client is told when the upstream's rate limit caused a miss. */
  readonly rateLimitStatus: 429 | 503;
}

/** One immutable configuration of registries. A request keeps the one that it was routed with. */
export interface Registries {
  readonly all: readonly Registry[];
  readonly default: Registry | undefined;
  /** By name and alias, lower case. */
  named(name: string): Registry | undefined;
  /** By request host, with or without a port, lower case. */
  hosted(host: string): Registry | undefined;
}

/**
 * Takes registries whose names, aliases and hosts are unique (the configuration checks it) and the name of the one
 * that unprefixed names belong to.
 */
export function createRegistries(all: readonly Registry[], defaultName: string | undefined): Registries {
  const names = new Map(
    all.flatMap((registry) =>
      [registry.name, ...registry.aliases].map((name) => [name.toLowerCase(), registry] as const),
    ),
  );
  const hosts = new Map(
    all.flatMap((registry) =>
      [...registry.hosts, registry.name].map((host) => [host.toLowerCase(), registry] as const),
    ),
  );
  return Object.freeze({
    all,
    default: all.find((registry) => registry.name === defaultName),
    named: (name: string) => names.get(name.toLowerCase()),
    hosted: (host: string) => {
      const lower = host.toLowerCase();
      return hosts.get(lower) ?? hosts.get(lower.replace(/:\d+$/, ''));
    },
  });
}
