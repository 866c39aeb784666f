import {availableParallelism, totalmem} from 'node:os';
import {performance} from 'node:perf_hooks';
import type {Cancel, Clock} from '../clock.ts';

/** More threads than this would wait for the one that owns everything else. */
const MAX_THREADS = 8;
/** Memory that there has to be for each: a worker takes 20 MiB, more while it answers, and the owner needs most of it. */
const BYTES_PER_THREAD = 128 * 2 ** 20;

/** What threads share. */
export interface Machine {
  cores: number;
  /** Bytes that this process may use at most. */
  memory: number;
}

/** The machine that this process runs on, as far as a container lets this process use it. */
export const thisMachine = (): Machine => ({
  cores: availableParallelism(),
  memory: Math.min(totalmem(), process.constrainedMemory() || Number.POSITIVE_INFINITY),
});

/** How many threads a machine is good for. */
export const mostThreads = ({cores, memory}: Machine): number =>
  Math.max(1, Math.min(cores, MAX_THREADS, Math.floor(memory / BYTES_PER_THREAD)));

/** @returns for which part of the time since the call before this thread's event loop was busy: 0 to 1 */
export type Busyness = () => number;

/** How often it is looked at. */
const INTERVAL_MS = 2000;
/** From when on another thread would be of use. */
const MIN_BUSYNESS = 0.7;
/** So often in a row: a single download is over before. */
const TIMES = 2;

/** Calls `act` once, when this thread has been busy for a few seconds. @returns what cancels that */
export function whenBusy(
  act: () => void,
  {busyness = eventLoop(), clock}: {busyness?: Busyness | undefined; clock: Pick<Clock, 'after'>},
): Cancel {
  let times = 0;
  const look = (): void => {
    times = busyness() < MIN_BUSYNESS ? 0 : times + 1;
    if (times === TIMES) act();
    else cancel = clock.after(INTERVAL_MS, look);
  };
  let cancel = clock.after(INTERVAL_MS, look);
  return () => cancel();
}

function eventLoop(): Busyness {
  let last = performance.eventLoopUtilization();
  return () => {
    const now = performance.eventLoopUtilization();
    const {utilization} = performance.eventLoopUtilization(now, last);
    last = now;
    return utilization;
  };
}
