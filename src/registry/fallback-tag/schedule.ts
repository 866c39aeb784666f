/** A change of a fallback tag counts as lasting when the tag still has it this long after it first had it. */
export const LASTING_AFTER_MS = 60_000;

/** When a written tag is checked again: a writer that had read it before us may still overwrite it. */
const CHECKS_MS = [2000, 10_000, LASTING_AFTER_MS];
/** For a change that is lost again and again: the part of its age that passes before the next check. */
const AGING = 1 / 10;
/** The longest `Retry-After` of an upstream that is respected. */
const MAX_RETRY_AFTER_MS = 60 * 60_000;
/** The pauses before a failed update is tried again. */
const RETRIES_MS = [200, 1000, 2000, 10_000, 60_000, 5 * 60_000];

/** Times in milliseconds since the epoch. */
export interface ScheduleQuestion {
  now: number;
  /** Changes that the tag does not have. */
  pending: number;
  /** Since when it has each of the others. */
  writtenAt: readonly number[];
  /** When the oldest of all of them was made. */
  since?: number | undefined;
  /** Updates in a row that left changes pending. */
  failures: number;
  /** Milliseconds that the upstream asks us to wait. */
  retryAfter?: number | undefined;
}

/** Milliseconds until the tag is reconciled again; undefined when no change is pending or watched. Pure. */
export function pauseBefore({
  now,
  pending,
  writtenAt,
  since = now,
  failures,
  retryAfter = 0,
}: ScheduleQuestion): number | undefined {
  if (pending > 0) {
    const step = RETRIES_MS[Math.min(Math.max(failures, 1), RETRIES_MS.length) - 1] ?? 0;
    return Math.max(step, Math.min(retryAfter, MAX_RETRY_AFTER_MS));
  }
  if (writtenAt.length === 0) return undefined;
  const checks = writtenAt.map((at) => CHECKS_MS.map((ms) => at + ms).find((check) => check > now) ?? now);
  // A tag that somebody keeps setting back is not written every two seconds for ever.
  const least = Math.max(CHECKS_MS[0] ?? 0, Math.min((now - since) * AGING, RETRIES_MS.at(-1) ?? 0));
  // At most `LASTING_AFTER_MS`, because the clock may have been set back.
  return Math.max(least, Math.min(Math.min(...checks) - now, LASTING_AFTER_MS));
}
