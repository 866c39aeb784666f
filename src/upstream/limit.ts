/** Bounds how many of something are under way at once; those who wait are served in their order. */
export interface Limit {
  /**
   * Waits for a slot.
   * @returns what gives the slot back; idempotent.
   * @throws the signal's reason when it is aborted first.
   */
  acquire(signal: AbortSignal): Promise<() => void>;
}

export function createLimit(slots: number): Limit {
  let free = slots;
  const waiting = new Set<() => void>();

  const release = (): void => {
    const [next] = waiting;
    if (!next) {
      free++;
      return;
    }
    waiting.delete(next);
    next();
  };
  const releaseOnce = (): (() => void) => {
    let held = true;
    return () => {
      if (held) release();
      held = false;
    };
  };

  return {
    acquire(signal) {
      if (signal.aborted) return Promise.reject(signal.reason);
      if (free > 0) {
        free--;
        return Promise.resolve(releaseOnce());
      }
      return new Promise((resolve, reject) => {
        const give = (): void => {
          signal.removeEventListener('abort', giveUp);
          resolve(releaseOnce());
        };
        const giveUp = (): void => {
          waiting.delete(give);
          reject(signal.reason);
        };
        waiting.add(give);
        signal.addEventListener('abort', giveUp, {once: true});
      });
    },
  };
}
