import {LRUCache} from 'lru-cache';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Route} from '../namespace.ts';

/** Whether an upstream has the Referrers API. `unknown` is an answer of its own: the fallback tag is no substitute. */
export type Capability = 'supported' | 'unsupported' | 'unknown';

/** What was learned of upstreams, per repository: some registries differ between them, and all change over time. */
export interface Capabilities {
  of(route: Route): Capability;
  learn(route: Route, capability: 'supported' | 'unsupported'): void;
  /** An answer that contradicts what was learned: nothing is known until the next one. */
  forget(route: Route): void;
}

/** Milliseconds after which an upstream is probed again. */
const LIFE = 10 * 60_000;
const MOST = 10_000;

export function createCapabilities(clock: Clock, events: Events): Capabilities {
  const learned = new LRUCache<string, {capability: 'supported' | 'unsupported'; until: number}>({max: MOST});
  // With the host: a registry may come to have another upstream.
  const keyOf = ({registry, repository}: Route) =>
    `${registry.upstream.host} ${repository.registry}/${repository.name}`;
  const tell = ({registry, repository}: Route, capability: Capability) =>
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
      if (learned.get(keyOf(route))?.capability !== capability) tell(route, capability);
      learned.set(keyOf(route), {capability, until: clock.monotonic() + LIFE});
    },
    forget(route) {
      learned.delete(keyOf(route));
      tell(route, 'unknown');
    },
  };
}
