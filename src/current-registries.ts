import {isDeepStrictEqual} from 'node:util';
import type {Clock} from './clock.ts';
import type {RegistryConfig} from './config.ts';
import type {Events} from './events.ts';
import {type Approvals, createApprovals} from './registry/approvals.ts';
import {createRegistries, type PushPolicy, type Registries, type Registry} from './registry/registries.ts';
import {servedRepositories} from './registry/served.ts';
import {createTagRule} from './registry/tag-policies.ts';
import {witnessedUpstream, witnessedWriter} from './registry/witnessed-upstream.ts';
import {createUpstream, prepareClients, type UpstreamClient} from './upstream/client.ts';
import {createEmptyUpstream} from './upstream/empty.ts';
import type {UpstreamWriter} from './upstream/port.ts';

/** What a change of the configuration did to the registries, by name. */
export interface RegistryChanges {
  added: string[];
  removed: string[];
  changed: string[];
  /** Whose upstream decided for each caller, or does now, and is another one: what is cached of the former one stays. */
  outlived: string[];
}

/** The registries of the configuration in force, and the clients of their upstreams. */
export interface CurrentRegistries {
  /** The registries as they are configured now. A request keeps the ones that it was routed with. */
  get(): Registries;
  /**
   * Replaces the registries. An upstream whose settings have not changed keeps its client, and with it tokens, breakers
   * and connections. A client that is no longer configured is closed once its running requests have ended.
   * @throws Error, and changes nothing.
   */
  replace(entries: readonly RegistryConfig[]): RegistryChanges;
  /** Loads what the first request to an upstream would have to load. Asks none. */
  prepare(): Promise<void>;
  /** Closes the clients of all upstreams. */
  close(): void;
}

/** A registry, and what it was made of. */
interface Built {
  entry: RegistryConfig;
  client: UpstreamClient | undefined;
  registry: Registry;
}

export interface ClientParts {
  /** Names this server in the `Via` header of requests to upstreams. */
  via: string;
  /** For proxy variables and credential helpers. */
  env: NodeJS.ProcessEnv;
  clock: Clock;
  events: Events;
}

/** @throws Error when an upstream's client cannot be made of its settings */
export function createCurrentRegistries(
  entries: readonly RegistryConfig[],
  parts: ClientParts,
): CurrentRegistries {
  let built = buildAll(entries, new Map());
  let registries = registriesOf(built);

  function buildAll(
    wanted: readonly RegistryConfig[],
    earlier: ReadonlyMap<string, Built>,
  ): Map<string, Built> {
    return new Map(wanted.map((entry) => [entry.name, build(entry, earlier.get(entry.name))]));
  }

  function build(entry: RegistryConfig, earlier: Built | undefined): Built {
    if (earlier && isDeepStrictEqual(earlier.entry, entry)) return earlier;
    const client =
      earlier && isDeepStrictEqual(earlier.entry.upstream, entry.upstream)
        ? earlier.client
        : entry.upstream && createUpstream(entry.upstream, parts);
    const approvals = approvalsOf(entry, client, parts.clock);
    return {entry, client, registry: registryOf(entry, client, approvals)};
  }

  return {
    get: () => registries,
    replace(wanted) {
      const [before, after] = [built, buildAll(wanted, built)];
      built = after;
      registries = registriesOf(after);
      const kept = new Set([...after.values()].map(({client}) => client));
      for (const {client} of before.values()) if (!kept.has(client)) client?.close();
      const names = [...after.keys()];
      return {
        added: names.filter((name) => !before.has(name)),
        removed: [...before.keys()].filter((name) => !after.has(name)),
        changed: names.filter((name) => before.has(name) && before.get(name) !== after.get(name)),
        outlived: names.filter((name) => isOutlived(before.get(name)?.entry, after.get(name)?.entry)),
      };
    },
    async prepare() {
      if ([...built.values()].some(({client}) => client)) await prepareClients();
    },
    close() {
      for (const {client} of built.values()) client?.close();
    },
  };
}

const isPassthrough = ({upstream}: RegistryConfig): boolean => upstream?.credentials?.kind === 'passthrough';

/** Whether somebody decides who may have what is cached who has not decided about it before. */
function isOutlived(before: RegistryConfig | undefined, after: RegistryConfig | undefined): boolean {
  if (!before || !after || !(isPassthrough(before) || isPassthrough(after))) return false;
  return !isPassthrough(after) || before.upstream?.url !== after.upstream?.url;
}

const registriesOf = (built: ReadonlyMap<string, Built>): Registries => {
  const all = [...built.values()];
  return createRegistries(
    all.map(({registry}) => registry),
    all.find(({entry}) => entry.default)?.entry.name,
  );
};

/** A change of the registry's settings ends what its upstream has approved. */
function approvalsOf(
  {upstream, tags, tagRules, referrers}: RegistryConfig,
  client: UpstreamClient | undefined,
  clock: Clock,
): Approvals | undefined {
  if (!client || upstream?.credentials?.kind !== 'passthrough') return undefined;
  const policies = {tags, tagRules: tagRules.map(createTagRule), referrers};
  return createApprovals({upstream: client, policies, clock});
}

function registryOf(
  entry: RegistryConfig,
  client: UpstreamClient | undefined,
  approvals: Approvals | undefined,
): Registry {
  const {name, aliases, hosts, library, tags, tagRules, referrers, maxManifest, limits} = entry;
  return {
    name,
    aliases,
    hosts,
    library,
    serves: servedRepositories(entry.repositories),
    upstream:
      client && approvals ? witnessedUpstream(client, approvals) : (client ?? createEmptyUpstream(name)),
    hosted: client === undefined,
    approvals,
    push: pushPolicy(entry, client && approvals ? witnessedWriter(client, approvals) : client),
    maxManifest,
    limits,
    tags,
    tagRules: tagRules.map(createTagRule),
    referrers,
    rateLimitStatus: entry.upstream?.rateLimitStatus ?? 503,
    // Each caller has a rate limit of its own there.
    quota: approvals ? 'off' : (entry.upstream?.quota ?? 'off'),
  };
}

/** Checking the settings has ruled out `through` without an upstream. */
function pushPolicy(
  {push, validate, overlay, referrers}: RegistryConfig,
  writer: UpstreamWriter | undefined,
): PushPolicy {
  if (push === 'local') return {mode: 'local', validate, tags: overlay.tags, keep: referrers.keep};
  return push === 'through' && writer ? {mode: 'through', writer} : {mode: 'deny'};
}
