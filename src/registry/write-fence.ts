import {createLru} from '../lru.ts';
import type {Reference} from '../oci/name.ts';
import {fullReference} from '../storage/metadata.ts';
import type {Route} from './namespace.ts';

/** Orders questions to an upstream with what is written through us: an answer to a question from before a write is stale. */
export interface WriteFence {
  /** Counts the writes so far. Taken before a question is asked, to compare when its answer is here. */
  current(): number;
  /** Whether the reference was written since `asked` was taken, or is being written. */
  isStale(route: Route, reference: Reference, asked: number): boolean;
  /** Resolves when no write of the reference is under way. */
  idle(route: Route, reference: Reference): Promise<void>;
  /** Runs the commit that changes these references of the repository. */
  run<T>(
    within: Pick<Route, 'repository'>,
    references: readonly Reference[],
    commit: () => Promise<T>,
  ): Promise<T>;
}

/** Beyond this many later writes one is forgotten: a question waits seconds for its answer. */
const MAX_WRITES = 10_000;

export function createWriteFence(): WriteFence {
  const underWay = new Map<string, Promise<unknown>>();
  const written = createLru<string, number>(MAX_WRITES);
  let count = 0;

  function end(key: string, write: Promise<unknown>): void {
    count += 1;
    written.set(key, count);
    if (underWay.get(key) === write) underWay.delete(key);
  }

  return {
    current: () => count,

    isStale({repository}, reference, asked) {
      const key = fullReference(repository, reference);
      return underWay.has(key) || (written.get(key) ?? 0) > asked;
    },

    async idle({repository}, reference) {
      await underWay.get(fullReference(repository, reference))?.catch(() => {});
    },

    async run({repository}, references, commit) {
      const keys = references.map((reference) => fullReference(repository, reference));
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
