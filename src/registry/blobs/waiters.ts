import type {Demand} from '../../upstream/port.ts';

/** Those who wait for one download; the download is wanted while there are any. */
export interface Waiters extends Demand {
  /** Counts one who waits. @returns what ends that; idempotent */
  join(): () => void;
}

/** @param stopping aborted when the download is to end */
export function createWaiters(stopping: AbortSignal): Waiters {
  const listeners = new Set<() => void>();
  let count = 0;

  function add(change: 1 | -1): void {
    const before = count > 0;
    count += change;
    if (before === count > 0) return;
    // A listener may end its watch, or another's, and begin a new one.
    for (const listener of [...listeners]) if (listeners.has(listener)) listener();
  }

  return {
    stopping,
    get wanted() {
      return count > 0;
    },
    watch(listener) {
      listeners.add(listener);
      return () => void listeners.delete(listener);
    },
    join() {
      let joined = true;
      add(1);
      return () => {
        if (joined) add(-1);
        joined = false;
      };
    },
  };
}
