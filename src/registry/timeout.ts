import type {Clock} from '../clock.ts';

/** Resolves when the work has ended, however it did, or after so many milliseconds; the work goes on then. */
export async function waitAtMost(ms: number, work: Promise<unknown>, clock: Clock): Promise<void> {
  const {promise: late, resolve} = Promise.withResolvers<void>();
  const cancel = clock.after(ms, resolve);
  await Promise.race([work.catch(() => {}), late]);
  cancel();
}
