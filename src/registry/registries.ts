import type {RepositoryName} from '../oci/name.ts';
import type {Upstream, UpstreamWriter} from '../upstream/port.ts';
import type {Approvals} from './approvals.ts';
import type {TagPolicies} from './tag-policies.ts';

/** How referrers are found, and how long a list may be used. Milliseconds. */
export interface ReferrersPolicy {
  readonly mode: 'auto' | 'api' | 'tag' | 'off';
  readonly ttl: number;
  readonly maxStale: number;
  readonly prefetch: 'manifests' | 'all' | 'off';
}

/** How much may be pushed. */
export interface ContentLimits {
  /** Manifests and blobs that a manifest may name, and manifests that it may name with the indexes in it. */
  readonly children: number;
  /** Manifests from an index down to an image, both of them included. */
  readonly depth: number;
  /** Bytes of a blob; undefined for any number. */
  readonly blob: number | undefined;
  /** Bytes of all blobs that were pushed to one repository and are kept here; undefined for any number. */
  readonly repository: number | undefined;
}

/** Pushed content is kept here, over what the upstream has. */
export interface LocalPushPolicy {
  readonly mode: 'local';
  /** Whether the content that a manifest names must exist, with the sizes that it names. */
  readonly validate: {readonly blobs: boolean; readonly children: boolean; readonly sizes: boolean};
  /** Over an upstream: whether manifests without a subject are accepted, which may shadow the upstream's tags. */
  readonly tags: 'deny' | 'allow';
  /** How many locally attached referrers of one artifact type a subject keeps at most. */
  readonly keep: number | undefined;
}

/** Pushed content is written to the upstream. */
export interface ThroughPushPolicy {
  readonly mode: 'through';
  readonly writer: UpstreamWriter;
}

/** What happens to pushed content. */
export type PushPolicy = {readonly mode: 'deny'} | LocalPushPolicy | ThroughPushPolicy;

/** A named entry of the configuration, ready for use. */
export interface Registry extends TagPolicies {
  readonly name: string;
  readonly aliases: readonly string[];
  readonly hosts: readonly string[];
  /** One-component names get `library/` in front, as on Docker Hub. */
  readonly library: boolean;
  /** Whether the configuration serves this repository: the upstream is not asked about any other. */
  serves(repository: RepositoryName): boolean;
  /** Asked for what is not here. A hosted registry has one that has nothing. */
  readonly upstream: Upstream;
  /** True where there is no upstream: it has only what was pushed here. */
  readonly hosted: boolean;
  /** Whom the upstream lets pull, where it is asked with each caller's own login; undefined where all callers share one. */
  readonly approvals: Approvals | undefined;
  readonly push: PushPolicy;
  /** The largest manifest that is accepted, in bytes. */
  readonly maxManifest: number;
  readonly limits: ContentLimits;
  readonly referrers: ReferrersPolicy;
  /** The status of a miss that cannot be filled because of the upstream's rate limit. */
  readonly rateLimitStatus: 429 | 503;
  /** How much longer answers that age are used while the upstream's rate limit is running out. */
  readonly quota: 'off' | 'gentle' | 'strict';
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
 * @param all registries; their names, aliases and hosts are unique (the configuration checks it)
 * @param defaultName of the registry that names without a prefix belong to
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
