import type {Clock} from '../../src/clock.ts';

export interface ManualClock extends Clock {
  /** Moves time on, ending every wait whose time has come, in their order. */
  advance(ms: number): Promise<void>;
  /** Sets the wall clock alone forth, or back, by so many milliseconds: no wait ends sooner or later for it. */
  moveWall(ms: number): void;
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
  let passed = 0;
  let set = 0;
  let waits: {at: number; call: () => void}[] = [];

  return {
    now: () => start + set + passed,
    monotonic: () => passed,
    after(ms, call) {
      if (ms < skipBelow) {
        passed += Math.ceil(ms);
        queueMicrotask(call);
        return () => {};
      }
      const wait = {at: passed + ms, call};
      waits.push(wait);
      return () => {
        waits = waits.filter((other) => other !== wait);
      };
    },
    async advance(ms) {
      const end = passed + ms;
      for (;;) {
        const next = waits.filter(({at}) => at <= end).sort((a, b) => a.at - b.at)[0];
        if (!next) break;
        passed = Math.max(passed, next.at);
        waits = waits.filter((other) => other !== next);
        next.call();
        await settle();
      }
      passed = end;
      await settle();
    },
    moveWall(ms) {
      set += ms;
    },
    async sleeping(count = 1) {
      while (waits.length < count) await settle();
    },
  };
}
