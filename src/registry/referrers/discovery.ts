import {setImmediate as turn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import type {SkippedReferrer} from '../../oci/referrers.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {Capabilities} from './capability.ts';
import type {FallbackTags} from './fallback-tag.ts';

/** The upstream's answer, and where it came from. */
export interface Discovered {
  readonly source: 'api' | 'tag';
  readonly descriptors: readonly Descriptor[];
  /** What the upstream names and cannot be listed: with any, this is not the whole list. */
  readonly skipped: readonly SkippedReferrer[];
  /** Resolves when the manifests that were fetched for it are in the metadata. @throws NoRoom */
  readonly kept: Promise<void>;
}

/** Asks an upstream for a subject's referrers: by its Referrers API where it truly has one, else by the fallback tag. */
export interface Discovery {
  /**
   * @throws UpstreamFailure whenever the whole answer could not be had, but for entries that are told of as skipped;
   * never an empty list in its place
   */
  ask(route: Route, subject: Digest, caller: Caller): Promise<Discovered>;
  /**
   * What the Referrers API alone lists, and by the way whether there is one; undefined where it lists nothing: there is
   * no API, or no such repository.
   * @throws UpstreamFailure when that cannot be told
   */
  byApi(route: Route, subject: Digest, caller: Caller): Promise<Discovered | undefined>;
  /**
   * When the upstream last confirmed the fallback tag as a client pulled it through us, where that tag is the list and
   * all of it is here; in milliseconds since the epoch. Asks nobody.
   */
  pulledAt(route: Route, subject: Digest): Promise<number | undefined>;
}

export interface DiscoveryParts {
  capabilities: Capabilities;
  fallbackTags: FallbackTags;
}

export function createDiscovery({capabilities, fallbackTags}: DiscoveryParts): Discovery {
  async function askApi(
    route: Route,
    subject: Digest,
    caller: Caller,
  ): Promise<Discovered | 'no-api' | 'unknown-repository'> {
    const {upstream} = route.registry;
    const answer = await upstream.listReferrers(route.repository.name, subject, caller);
    // Says nothing of the API: the repository may be made, and its images signed, at any moment.
    if (answer === 'unknown-repository') return answer;
    if (answer !== 'no-api') {
      capabilities.learn(route, 'supported');
      return {source: 'api', ...answer, kept: Promise.resolve()};
    }
    if (capabilities.of(route) === 'supported') {
      // One odd answer does not turn a registry with the API into one without it; the next one may.
      capabilities.forget(route);
      throw new UpstreamFailure(
        'protocol',
        upstream.host,
        'had the Referrers API and now answers as if it had not',
      );
    }
    capabilities.learn(route, 'unsupported');
    return answer;
  }

  async function byApi(route: Route, subject: Digest, caller: Caller): Promise<Discovered | undefined> {
    const answer = await askApi(route, subject, caller);
    return typeof answer === 'string' ? undefined : answer;
  }

  async function byTag(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    return {source: 'tag', ...(await fallbackTags.read(route, subject, caller))};
  }

  /** Both questions at once: a first answer from a legacy registry then takes two round trips, not three. */
  async function byEither(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    const tag = byTag(route, subject, caller);
    tag.catch(() => {});
    // With a tag come its entries, a round trip more: its question leaves first.
    await turn();
    return (await byApi(route, subject, caller)) ?? tag;
  }

  async function byApiAlone(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    const answer = await askApi(route, subject, caller);
    if (answer === 'unknown-repository') return NOTHING_LISTED;
    if (answer !== 'no-api') return answer;
    const {name, upstream} = route.registry;
    const reason = `has no Referrers API; set registries.${name}.referrers.mode to "auto" or "tag"`;
    throw new UpstreamFailure('protocol', upstream.host, reason);
  }

  /**
   * For an upstream that was found to have no API. It may have one by now, and clients that see one write no tag: where
   * the tag names nothing the API is asked again.
   */
  async function byTagFirst(route: Route, subject: Digest, caller: Caller): Promise<Discovered> {
    const tag = await byTag(route, subject, caller);
    const isEmpty = tag.descriptors.length === 0 && tag.skipped.length === 0;
    return isEmpty ? ((await byApi(route, subject, caller)) ?? tag) : tag;
  }

  return {
    byApi,

    async ask(route, subject, caller) {
      const {mode} = route.registry.referrers;
      const capability = capabilities.of(route);
      if (mode === 'api') return byApiAlone(route, subject, caller);
      if (mode === 'tag') return byTag(route, subject, caller);
      if (capability === 'unsupported') return byTagFirst(route, subject, caller);
      if (capability === 'unknown') return byEither(route, subject, caller);
      return (await byApi(route, subject, caller)) ?? byTag(route, subject, caller);
    },

    async pulledAt(route, subject) {
      const isApi = route.registry.referrers.mode === 'api' || capabilities.of(route) === 'supported';
      return isApi ? undefined : fallbackTags.pulledAt(route, subject);
    },
  };
}

const NOTHING_LISTED: Discovered = {
  source: 'api',
  descriptors: [],
  skipped: [],
  kept: Promise.resolve(),
};
