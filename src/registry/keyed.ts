/** Runs work once for all callers that wait for it at the same time. */
export interface SingleFlight<T> {
  /** Joins the work under way for `key`, or starts it. The key of work done for a caller includes the caller's key. */
  run(key: string, work: () => Promise<T>): Promise<{value: T; collapsed: boolean}>;
  /** The work under way, if any. */
  join(key: string): Promise<T> | undefined;
}

/** Unlike lru-cache's `fetch`, which rejects waiting callers when an entry is evicted or set meanwhile. */
export function createSingleFlight<T>(): SingleFlight<T> {
  const flights = new Map<string, Promise<T>>();
  return {
    async run(key, work) {
      const running = flights.get(key);
      if (running) return {value: await running, collapsed: true};
      const flight = work().finally(() => flights.delete(key));
      flights.set(key, flight);
      return {value: await flight, collapsed: false};
    },
    join: (key) => flights.get(key),
  };
}

/** Runs work with equal keys one after the other, and with different keys side by side. */
export interface KeyedMutex {
  /** Runs `work` once all earlier work with the same key has ended, whether it succeeded or failed. */
  run<T>(key: string, work: () => Promise<T>): Promise<T>;
}

export function createKeyedMutex(): KeyedMutex {
  const last = new Map<string, Promise<unknown>>();
  return {
    async run(key, work) {
      const before = last.get(key);
      const turn = before ? before.then(work, work) : work();
      last.set(key, turn);
      try {
        return await turn;
      } finally {
        if (last.get(key) === turn) last.delete(key);
      }
    },
  };
}
