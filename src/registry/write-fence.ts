import {LRUCache} from 'lru-cache';
import type {Reference} from '../oci/name.ts';
import type {Place, Route} from './namespace.ts';

/**
 * What is written through us, so that the answer to a question from before a write is not taken for what is so after it.
 */
export interface WriteFence {
  /** The present moment, to be held until the answer to a question is here. */
  moment(): number;
  /** Whether the reference was written after that moment, or is being written. */
  isStale(route: Route, reference: Reference, moment: number): boolean;
  /** Resolves when no write of the reference is under way. */
  settled(route: Route, reference: Reference): Promise<void>;
  /** Runs the commit that changes these references. */
  run<T>(place: Place, references: readonly Reference[], commit: () => Promise<T>): Promise<T>;
}

/** Beyond so many later ones a write is forgotten: a question waits seconds for its answer. */
const MOST = 10_000;

export function createWriteFence(): WriteFence {
  const underWay = new Map<string, Promise<unknown>>();
  const written = new LRUCache<string, number>({max: MOST});
  let present = 0;
  const keyOf = ({repository}: Place, reference: Reference) =>
    `${repository.registry}/${repository.name} ${reference}`;

  function end(key: string, write: Promise<unknown>): void {
    present += 1;
    written.set(key, present);
    if (underWay.get(key) === write) underWay.delete(key);
  }

  return {
    moment: () => present,

    isStale(route, reference, moment) {
      const key = keyOf(route, reference);
      return underWay.has(key) || (written.get(key) ?? 0) > moment;
    },

    async settled(route, reference) {
      await underWay.get(keyOf(route, reference))?.catch(() => {});
    },

    async run(place, references, commit) {
      const keys = references.map((reference) => keyOf(place, reference));
      const {promise, resolve} = Promise.withResolvers<void>();
      for (const key of keys) underWay.set(key, promise);
      try {
        return await commit();
      } finally {
        for (const key of keys) end(key, promise);
        resolve();
      }
    },
  };
}
