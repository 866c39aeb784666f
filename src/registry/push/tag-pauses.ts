/** A change of a fallback tag is taken as lasting when the tag still holds it so long after it first did. Milliseconds. */
export const SURE_AFTER = 60_000;

/** After a change was first seen, the tag is looked at again: a writer that had read it before may overwrite it yet. */
const LOOKS = [2000, 10_000, SURE_AFTER];
/** Before the next try of what could not be written. */
const TRIES = [200, 1000, 2000, 10_000, 60_000, 5 * 60_000];

export interface PauseQuestion {
  now: number;
  /** Changes that the tag does not hold. */
  owed: number;
  /** Since when it holds each of the others. */
  writtenAt: readonly number[];
  /** Rounds in a row after which something was owed. */
  failures: number;
  /** Milliseconds that the upstream asks for. */
  retryAfter?: number | undefined;
}

/** Milliseconds until the tag is looked at again; undefined when nothing is owed or watched. Pure. */
export function pauseBefore({
  now,
  owed,
  writtenAt,
  failures,
  retryAfter = 0,
}: PauseQuestion): number | undefined {
  if (owed > 0) {
    const step = TRIES[Math.min(Math.max(failures, 1), TRIES.length) - 1] ?? 0;
    return Math.max(step, retryAfter);
  }
  if (writtenAt.length === 0) return undefined;
  const looks = writtenAt.map((at) => LOOKS.map((look) => at + look).find((look) => look > now) ?? now);
  return Math.max(LOOKS[0] ?? 0, Math.min(...looks) - now);
}
