import {setImmediate as turn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {Capabilities} from './capability.ts';
import type {FallbackTags} from './fallback-tag.ts';

/** The upstream's whole answer, and where it came from. */
export interface Discovered {
  readonly source: 'api' | 'tag';
  readonly descriptors: readonly Descriptor[];
  /** Resolves when the manifests that were fetched for it are in the metadata. @throws NoRoom */
  readonly kept: Promise<void>;
}

/** Asks an upstream for a subject's referrers: by its Referrers API where it truly has one, else by the fallback tag. */
export interface Discovery {
  /** @throws UpstreamFailure whenever the whole answer could not be had; never an empty list in its place */
  ask(route: Route, subject: Digest, caller: Caller): Promise<Discovered>;
  /**
   * What the Referrers API alone lists, and by the way whether there is one; undefined where there is none.
   * @throws UpstreamFailure when that cannot be told
   */
  byApi(route: Route, subject: Digest, caller: Caller): Promise<Discovered | undefined>;
}

export interface DiscoveryParts {
  capabilities: Capabilities;
  fallbackTags: FallbackTags;
}

export function createDiscovery({capabilities, fallbackTags}: DiscoveryParts): Discovery {
  async function byApi(route: Route, subject: Digest, caller: Caller): Promise<Discovered | undefined> {
    const {upstream} = route.registry;
    const descriptors = await upstream.listReferrers(route.repository.name, subject, caller);
    if (descriptors) {
      capabilities.learn(route, 'supported');
      return {source: 'api', descriptors, kept: Promise.resolve()};
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
    return undefined;
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
    const answer = await byApi(route, subject, caller);
    if (answer) return answer;
    const {name, upstream} = route.registry;
    const reason = `has no Referrers API; set registries.${name}.referrers.mode to "auto" or "tag"`;
    throw new UpstreamFailure('protocol', upstream.host, reason);
  }

  return {
    byApi,

    ask(route, subject, caller) {
      const {mode} = route.registry.referrers;
      const capability = capabilities.of(route);
      if (mode === 'api' || (mode === 'auto' && capability === 'supported'))
        return byApiAlone(route, subject, caller);
      if (mode === 'tag' || capability === 'unsupported') return byTag(route, subject, caller);
      return byEither(route, subject, caller);
    },
  };
}
