/** A change of a fallback tag is taken as lasting when the tag still holds it so long after it first did. Milliseconds. */
export const SURE_AFTER = 60_000;

/** After a change was first seen, the tag is looked at again: a writer that had read it before may overwrite it yet. */
const LOOKS = [2000, 10_000, SURE_AFTER];
/** Of the time for which a change has been owed, lost and made again, the part that passes before the next look. */
const AGING = 1 / 10;
/** However long an upstream asks for patience. */
const LONGEST = 60 * 60_000;
/** Before the next try of what could not be written. */
const TRIES = [200, 1000, 2000, 10_000, 60_000, 5 * 60_000];

export interface PauseQuestion {
  now: number;
  /** Changes that the tag does not hold. */
  owed: number;
  /** Since when it holds each of the others. */
  writtenAt: readonly number[];
  /** When the oldest of all of them was made. */
  since?: number | undefined;
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
  since = now,
  failures,
  retryAfter = 0,
}: PauseQuestion): number | undefined {
  if (owed > 0) {
    const step = TRIES[Math.min(Math.max(failures, 1), TRIES.length) - 1] ?? 0;
    return Math.max(step, Math.min(retryAfter, LONGEST));
  }
  if (writtenAt.length === 0) return undefined;
  const looks = writtenAt.map((at) => LOOKS.map((look) => at + look).find((look) => look > now) ?? now);
  // A tag that somebody keeps setting back is not written every two seconds for ever.
  const least = Math.max(LOOKS[0] ?? 0, Math.min((now - since) * AGING, TRIES.at(-1) ?? 0));
  // The clock may have been set back.
  return Math.max(least, Math.min(Math.min(...looks) - now, SURE_AFTER));
}
