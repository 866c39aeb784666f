import {type Clock, sleep} from '../clock.ts';
import type {Claim, Coordination, Holder} from './coordination.ts';
import type {Metadata, Precondition} from './metadata.ts';

/** Coordinates what runs in this process. No holder outlives the process, so claims never lapse. */
export function createProcessClaims(): Coordination {
  const held = new Map<string, Promise<void>>();
  return {
    async claim(key): Promise<Claim | Holder> {
      const holder = held.get(key);
      if (holder) return {mine: false, released: () => holder};
      const {promise: released, resolve} = Promise.withResolvers<void>();
      held.set(key, released);
      return {
        mine: true,
        fence: [],
        renew: async () => held.get(key) === released,
        async release() {
          if (held.get(key) === released) held.delete(key);
          resolve();
        },
      };
    },
  };
}

export interface LeaseParts {
  metadata: Metadata;
  /** Names this process among those that share the metadata. */
  owner: string;
  clock: Clock;
}

/** How often to check whether another process has given up its lease. */
const POLL_MS = 1000;

/**
 * Coordinates the processes that share the metadata: a claim is a lease there, which lapses when its holder dies. It
 * also excludes every other claim of this process.
 */
export function createLeases({metadata, owner, clock}: LeaseParts): Coordination {
  const processClaims = createProcessClaims();

  /** @param terms under which the lease is written. @returns whether they hold */
  const put = (key: string, ttlMs: number, at: number, terms: readonly Precondition[]): Promise<boolean> =>
    metadata.commit([{type: 'lease.put', lease: {key, owner, until: at + ttlMs}}], terms);

  function take(key: string, ttlMs: number): Promise<boolean> {
    const at = clock.now();
    // Two processes' clocks differ. A lease that ends later than this was written by a clock far ahead.
    return put(key, ttlMs, at, [{type: 'lease.free', key, owner, at, maxLifeMs: 2 * ttlMs}]);
  }

  return {
    async claim(key, ttlMs): Promise<Claim | Holder> {
      const local = await processClaims.claim(key, ttlMs);
      if (!local.mine) return local;
      let isTaken = false;
      try {
        isTaken = await take(key, ttlMs);
      } finally {
        if (!isTaken) await local.release();
      }
      if (!isTaken) return {mine: false, released: () => sleep(clock, POLL_MS)};
      const fence: Precondition[] = [{type: 'lease.held', key, owner}];
      return {
        mine: true,
        fence,
        renew: async () => (await local.renew()) && put(key, ttlMs, clock.now(), fence),
        async release() {
          if (!(await local.renew())) return;
          try {
            await metadata.commit([{type: 'lease.delete', key, owner}]);
          } finally {
            await local.release();
          }
        },
      };
    },
  };
}
