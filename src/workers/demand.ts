import {performance} from 'node:perf_hooks';
import type {Cancel, Clock} from '../clock.ts';

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
