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
