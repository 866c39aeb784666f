/** Attempts in all, the first included. */
const ATTEMPTS = 4;
/** Milliseconds before the second attempt; doubled for each further one. */
const FIRST_DELAY = 100;
/** Gateways and overloaded registries; a plain 500 or 501 would only say the same again. */
const PASSING = new Set([502, 503, 504]);

export interface FailedAttempt {
  /** 1 for the first. */
  attempt: number;
  /** The answer's status; undefined when the connection failed before there was one. */
  status: number | undefined;
  /** Milliseconds that the answer asked to wait. */
  retryAfter: number | undefined;
  /** Milliseconds left of the budget for response headers. */
  left: number;
  /** 0 to 1, so that many clients do not come back together. */
  jitter: number;
}

/**
 * How many milliseconds to wait before the next attempt; undefined when there should be none. `Retry-After` is
 * honoured where the budget allows and ends the attempts where it does not (RFC 9110, section 10.2.3). A 429 without
 * it is not repeated: asking again is what the limit counts.
 */
export function retryDelay({attempt, status, retryAfter, left, jitter}: FailedAttempt): number | undefined {
  if (attempt >= ATTEMPTS) return undefined;
  if (status === 429 && retryAfter === undefined) return undefined;
  if (status !== undefined && status !== 429 && !PASSING.has(status)) return undefined;
  const backoff = FIRST_DELAY * 2 ** (attempt - 1) * (0.5 + jitter / 2);
  const delay = Math.max(retryAfter ?? 0, backoff);
  return delay < left ? delay : undefined;
}

/**
 * Reads a `Retry-After` field: seconds, or an HTTP date (RFC 9110, section 10.2.3).
 * @param now milliseconds since the epoch.
 * @returns milliseconds from now, at least 0; undefined when the field is missing or malformed.
 */
export function parseRetryAfter(field: string | undefined, now: number): number | undefined {
  const text = field?.trim() ?? '';
  if (/^\d{1,9}$/.test(text)) return Number(text) * 1000;
  const date = /^[A-Za-z]/.test(text) ? Date.parse(text) : Number.NaN;
  return Number.isNaN(date) ? undefined : Math.max(0, date - now);
}
