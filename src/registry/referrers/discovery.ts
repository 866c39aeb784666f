import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import type {SkippedReferrer} from '../../oci/referrers.ts';
import {fullName} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {FallbackTags} from './fallback-tag.ts';

/** Whether an upstream has the Referrers API. While that is `unknown`, the fallback tag is not a substitute. */
export type Capability = 'supported' | 'unsupported' | 'unknown';

/** What upstreams have shown, per repository: some registries differ between repositories, and all change over time. */
export interface Capabilities {
  of(route: Route): Capability;
  learn(route: Route, capability: 'supported' | 'unsupported'): void;
  /** After an answer that contradicts what was learned: the capability is unknown until the next answer. */
  forget(route: Route): void;
}

/** How long an answer counts before the upstream is probed again. */
const CAPABILITY_LIFE_MS = 10 * 60_000;
const MAX_CAPABILITIES = 10_000;

export function createCapabilities(clock: Clock, events: Events): Capabilities {
  const learned = createLru<string, {capability: 'supported' | 'unsupported'; until: number}>(
    MAX_CAPABILITIES,
  );
  // Includes the host, because a reload may give a registry another upstream.
  const keyOf = ({registry, repository}: Route) => `${registry.upstream.host} ${fullName(repository)}`;
  const report = ({registry, repository}: Route, capability: Capability) =>
    void events.emit('referrers.capability', {
      registry: registry.name,
      repository: repository.name,
      host: registry.upstream.host,
      capability,
    });
  return {
    of(route) {
      const known = learned.get(keyOf(route));
      return known && clock.monotonic() < known.until ? known.capability : 'unknown';
    },
    learn(route, capability) {
      if (learned.get(keyOf(route))?.capability !== capability) report(route, capability);
      learned.set(keyOf(route), {capability, until: clock.monotonic() + CAPABILITY_LIFE_MS});
    },
    forget(route) {
      learned.delete(keyOf(route));
      report(route, 'unknown');
    },
  };
}

/** The upstream's answer, and where it came from. */
export interface Discovered {
  readonly source: 'api' | 'tag';
  readonly descriptors: readonly Descriptor[];
  /** Referrers that the upstream names but that cannot be listed. If there are any, this is not the complete list. */
  readonly skipped: readonly SkippedReferrer[];
  /** Resolves when the manifests that were fetched for it are in the metadata. @throws DiskFull */
  readonly kept: Promise<void>;
}

/** Asks an upstream for a subject's referrers: by its Referrers API if it truly has one, otherwise by the fallback tag. */
export interface Discovery {
  /**
   * @throws UpstreamFailure when the upstream did not give the whole answer, except for single entries, which are
   * reported as skipped; never returns an empty list instead
   */
  ask(route: Route, subject: Digest, caller: Caller): Promise<Discovered>;
  /**
   * Asks the Referrers API alone, and learns on the way whether there is one.
   * @returns undefined when there is no API, or no such repository
   * @throws UpstreamFailure when the upstream could not be asked
   */
  byApi(route: Route, subject: Digest, caller: Caller): Promise<Discovered | undefined>;
  /**
   * When the upstream last confirmed the fallback tag for a client that pulled it through us, if the tag is where this
   * upstream lists referrers and everything on it is stored here. Asks nobody.
   * @returns milliseconds since the epoch
   */
  pulledAt(route: Route, subject: Digest): Promise<number | undefined>;
}

export interface DiscoveryParts {
  capabilities: Capabilities;
  fallbackTags: FallbackTags;
}

export const createDiscovery = (parts: DiscoveryParts): Discovery => new UpstreamDiscovery(parts);

class UpstreamDiscovery implements Discovery {
  readonly #capabilities: Capabilities;
  readonly #fallbackTags: FallbackTags;

  constructor({capabilities, fallbackTags}: DiscoveryParts) {
    this.#capabilities = capabilities;
    this.#fallbackTags = fallbackTags;
  }

  async ask(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    const {mode} = route.registry.referrers;
    const capability = this.#capabilities.of(route);
    if (mode === 'api') return this.#byApiOnly(route, subject, caller);
    if (mode === 'tag') return this.#byTag(route, subject, caller);
    if (capability === 'unsupported') return this.#byTagThenApi(route, subject, caller);
    if (capability === 'unknown') return this.#byEither(route, subject, caller);
    return (await this.byApi(route, subject, caller)) ?? this.#byTag(route, subject, caller);
  }

  async byApi(route: Route, subject: Digest, caller: Caller): Promise<Discovered | undefined> {
    const answer = await this.#askApi(route, subject, caller);
    return typeof answer === 'string' ? undefined : answer;
  }

  async pulledAt(route: Route, subject: Digest): Promise<number | undefined> {
    const isApi = route.registry.referrers.mode === 'api' || this.#capabilities.of(route) === 'supported';
    return isApi ? undefined : this.#fallbackTags.pulledAt(route, subject);
  }

  async #askApi(
    route: Route,
    subject: Digest,
    caller: Caller,
  ): Promise<Discovered | 'no-api' | 'unknown-repository'> {
    const {upstream} = route.registry;
    const answer = await upstream.listReferrers(route.repository.name, subject, caller);
    // Says nothing about the API: the repository may be created, and its images signed, at any moment.
    if (answer === 'unknown-repository') return answer;
    if (answer !== 'no-api') {
      this.#capabilities.learn(route, 'supported');
      return {source: 'api', ...answer, kept: Promise.resolve()};
    }
    if (this.#capabilities.of(route) === 'supported') {
      // One odd answer does not turn a registry with the API into one without it. The next one may.
      this.#capabilities.forget(route);
      throw new UpstreamFailure(
        'protocol',
        upstream.host,
        'had the Referrers API before, but now answers as if it had none',
      );
    }
    this.#capabilities.learn(route, 'unsupported');
    return answer;
  }

  async #byTag(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    return {source: 'tag', ...(await this.#fallbackTags.read(route, subject, caller))};
  }

  /** Asks both at once: the first answer from a legacy registry then takes two round trips instead of three. */
  async #byEither(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    const tag = this.#byTag(route, subject, caller);
    tag.catch(() => {});
    // The tag needs another round trip for its entries, so its request leaves first.
    await nextTurn();
    return (await this.byApi(route, subject, caller)) ?? tag;
  }

  async #byApiOnly(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    const answer = await this.#askApi(route, subject, caller);
    if (answer === 'unknown-repository') return NOTHING_LISTED;
    if (answer !== 'no-api') return answer;
    const {name, upstream} = route.registry;
    const reason = `has no Referrers API; set registries.${name}.referrers.mode to "auto" or "tag"`;
    throw new UpstreamFailure('protocol', upstream.host, reason);
  }

  /**
   * For an upstream that had no API when it was last asked. It may have one by now, and clients that see an API do not
   * write the tag. So where the tag is empty, the API is asked again.
   */
  async #byTagThenApi(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    const tag = await this.#byTag(route, subject, caller);
    const isEmpty = tag.descriptors.length === 0 && tag.skipped.length === 0;
    return isEmpty ? ((await this.byApi(route, subject, caller)) ?? tag) : tag;
  }
}

const NOTHING_LISTED: Discovered = {
  source: 'api',
  descriptors: [],
  skipped: [],
  kept: Promise.resolve(),
};
