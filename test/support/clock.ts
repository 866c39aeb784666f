import type {Clock} from '../../src/clock.ts';

export interface ManualClock extends Clock {
  /** Moves time on, ending every sleep whose time has come, in their order. */
  advance(ms: number): Promise<void>;
  /** Resolves when at least `count` sleeps are under way. */
  sleeping(count?: number): Promise<void>;
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * A clock that stands still until `advance` is called.
 * @param start milliseconds since the epoch.
 * @param skipBelow sleeps shorter than so many milliseconds are over at once, having moved the time on: waits
 * between attempts pass, time-outs do not.
 */
export function createManualClock(start = Date.UTC(2030, 0, 1), {skipBelow = 0} = {}): ManualClock {
  let time = start;
  let sleepers: {at: number; wake: () => void}[] = [];

  return {
    now: () => time,
    sleep: (ms, signal) =>
      new Promise((resolve, reject) => {
        if (signal?.aborted) return reject(signal.reason);
        if (ms < skipBelow) {
          time += ms;
          return resolve();
        }
        const abort = () => {
          sleepers = sleepers.filter((other) => other !== sleeper);
          reject(signal?.reason);
        };
        const wake = () => {
          signal?.removeEventListener('abort', abort);
          resolve();
        };
        const sleeper = {at: time + ms, wake};
        sleepers.push(sleeper);
        signal?.addEventListener('abort', abort, {once: true});
      }),
    async advance(ms) {
      const end = time + ms;
      for (;;) {
        const next = sleepers.filter(({at}) => at <= end).sort((a, b) => a.at - b.at)[0];
        if (!next) break;
        time = Math.max(time, next.at);
        sleepers = sleepers.filter((other) => other !== next);
        next.wake();
        await settle();
      }
      time = end;
      await settle();
    },
    async sleeping(count = 1) {
      while (sleepers.length < count) await settle();
    },
  };
}
