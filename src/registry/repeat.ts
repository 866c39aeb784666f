import type {CacheReport} from './freshness.ts';
import type {Generation} from './generations.ts';

/** That an answer may be given again, to whoever may have it, without asking for it again. */
export interface Repeat {
  /** Between these times it is the same: milliseconds since the epoch, the second one excluded. */
  readonly from: number;
  readonly until: number;
  /** Whether nothing has changed that it depends on. Once false, it stays so. */
  holds(): boolean;
  /** Counts and reports that it was given once more. */
  again(): void;
}

/**
 * How an answer may be given again: one from what is here, that does not say otherwise by itself.
 * @param report of the answer
 * @param generations taken before anything was read for it
 * @returns undefined where it may not
 */
export function repeatOf(
  {how, steady}: CacheReport,
  generations: readonly Generation[],
  again: () => void,
): Repeat | undefined {
  if (how !== 'hit' || !steady) return undefined;
  const isOver = ({isOver}: Generation): boolean => isOver;
  if (generations.some(isOver)) return undefined;
  const {from, until, holds: isStill} = steady;
  return {from, until, holds: () => !generations.some(isOver) && isStill(), again};
}
