import type {Clock} from '../../src/clock.ts';

export interface ManualClock extends Clock {
  /** Moves time on, ending every wait whose time has come, in their order. */
  advance(ms: number): Promise<void>;
  /** Resolves when at least `count` waits are under way. */
  sleeping(count?: number): Promise<void>;
}

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * A clock that stands still until `advance` is called.
 * @param start milliseconds since the epoch.
 * @param skipBelow waits shorter than so many milliseconds are over at once, having moved the time on: waits
 * between attempts pass, time-outs do not.
 */
export function createManualClock(start = Date.UTC(2030, 0, 1), {skipBelow = 0} = {}): ManualClock {
  let time = start;
  let waits: {at: number; call: () => void}[] = [];

  return {
    now: () => time,
    after(ms, call) {
      if (ms < skipBelow) {
        time += ms;
        queueMicrotask(call);
        return () => {};
      }
      const wait = {at: time + ms, call};
      waits.push(wait);
      return () => {
        waits = waits.filter((other) => other !== wait);
      };
    },
    async advance(ms) {
      const end = time + ms;
      for (;;) {
        const next = waits.filter(({at}) => at <= end).sort((a, b) => a.at - b.at)[0];
        if (!next) break;
        time = Math.max(time, next.at);
        waits = waits.filter((other) => other !== next);
        next.call();
        await settle();
      }
      time = end;
      await settle();
    },
    async sleeping(count = 1) {
      while (waits.length < count) await settle();
    },
  };
}
