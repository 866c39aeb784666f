import {LRUCache} from 'lru-cache';
import type {Clock} from '../clock.ts';

/** What the upstream lately said is not there, for seconds: long absences refuse images that were just pushed. */
export interface Absences {
  remember(key: string): void;
  /** True when the absence was learned less than `ttl` milliseconds ago. */
  has(key: string, ttl: number): boolean;
  forget(key: string): void;
}

const MOST = 10_000;

export function createAbsences(clock: Clock): Absences {
  const seen = new LRUCache<string, number>({max: MOST});
  return {
    remember: (key) => void seen.set(key, clock.now()),
    has: (key, ttl) => clock.now() - (seen.get(key) ?? Number.NEGATIVE_INFINITY) < ttl,
    forget: (key) => void seen.delete(key),
  };
}
