import {type Clock, NOT_NEEDED} from '../clock.ts';

/** Resolves when the work has ended, however it did, or after so many milliseconds; the work goes on then. */
export async function waitAtMost(ms: number, work: Promise<unknown>, clock: Clock): Promise<void> {
  const waiting = new AbortController();
  const late = clock.sleep(ms, waiting.signal).catch(() => {});
  await Promise.race([work.catch(() => {}), late]);
  waiting.abort(NOT_NEEDED);
}
