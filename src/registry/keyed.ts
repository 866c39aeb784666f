/** Work that several callers wait for at once is done once. */
export interface SingleFlight<T> {
  /** Joins the work under way for `key`, or starts it. Keys of work done for a caller carry the caller's key. */
  run(key: string, work: () => Promise<T>): Promise<{value: T; collapsed: boolean}>;
  /** The work under way, if there is any. */
  join(key: string): Promise<T> | undefined;
}

/** lru-cache's own `fetch` rejects waiting callers when an entry is evicted or set meanwhile; this never does. */
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

/** Work on one thing at a time: one after the other for equal keys, side by side for different ones. */
export interface KeyedMutex {
  /** Runs `work` when everything that was given for the same key before has ended, however it ended. */
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
