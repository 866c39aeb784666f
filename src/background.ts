import {type Clock, NOT_NEEDED, sleep} from './clock.ts';
import type {Events} from './events.ts';

/** Work of a server that no request waits for. What it throws is reported as an event. */
export interface Background {
  /** Starts work now. */
  once(task: string, work: Work): void;
  /**
   * Repeats work, never twice at once.
   * @param interval milliseconds before the first start, and from each end to the next start
   */
  every(interval: number, task: string, work: Work): void;
  /** Starts nothing more. Resolves when all running work has ended. */
  close(): Promise<void>;
}

/** It should end soon when the signal is aborted. */
type Work = (signal: AbortSignal) => Promise<unknown>;

export function createBackground({clock, events}: {clock: Clock; events: Events}): Background {
  const closing = new AbortController();
  const {signal} = closing;
  const running: Promise<void>[] = [];

  async function run(task: string, work: Work): Promise<void> {
    try {
      await work(signal);
    } catch (error) {
      if (!signal.aborted) events.emit('background.failed', {task, error});
    }
  }

  async function repeat(interval: number, task: string, work: Work): Promise<void> {
    for (;;) {
      await sleep(clock, interval, signal).catch(() => {});
      if (signal.aborted) return;
      await run(task, work);
    }
  }

  return {
    once: (task, work) => void running.push(run(task, work)),
    every: (interval, task, work) => void running.push(repeat(interval, task, work)),
    async close() {
      closing.abort(NOT_NEEDED);
      await Promise.all(running);
    },
  };
}
