import {type Clock, sleep} from '../../clock.ts';
import {discard} from './body.ts';
import type {Budget} from './budget.ts';
import {ConnectionFault} from './fault.ts';
import {type Reply, retryAfterOf} from './reply.ts';

/** Attempts in all, including the first. */
const MAX_ATTEMPTS = 4;
/** Before the second attempt; doubled for each further one. */
const FIRST_DELAY_MS = 100;
/** From gateways and overloaded registries. A 500 or 501 would be the same again. */
const TRANSIENT_STATUSES = new Set([502, 503, 504]);

export interface FailedAttempt {
  /** 1 for the first. */
  attempt: number;
  /** The response's status; undefined when the connection failed first. */
  status: number | undefined;
  /** Milliseconds that the response asks to wait. */
  retryAfter: number | undefined;
  /** Milliseconds left of the budget for response headers. */
  left: number;
  /** From 0 to 1; keeps many clients from retrying at the same moment. */
  jitter: number;
}

/**
 * Decides how many milliseconds to wait before the next attempt; undefined when there should be none. `Retry-After` is
 * honoured when the budget allows, and ends the attempts when it does not (RFC 9110, section 10.2.3). A 429 without
 * `Retry-After` is not retried, because a retry counts against the limit.
 */
export function retryDelay({attempt, status, retryAfter, left, jitter}: FailedAttempt): number | undefined {
  if (attempt >= MAX_ATTEMPTS) return undefined;
  if (status === 429 && retryAfter === undefined) return undefined;
  if (status !== undefined && status !== 429 && !TRANSIENT_STATUSES.has(status)) return undefined;
  const backoff = FIRST_DELAY_MS * 2 ** (attempt - 1) * (0.5 + jitter / 2);
  const delay = Math.max(retryAfter ?? 0, backoff);
  return delay < left ? delay : undefined;
}

/**
 * Repeats a request while `retryDelay` says so.
 * @returns the last reply, which may be a 429 or 5xx.
 * @throws the last attempt's failure, and at once any failure that another attempt cannot change.
 */
export async function withRetries(
  attempt: () => Promise<Reply>,
  budget: Budget,
  clock: Clock,
): Promise<Reply> {
  for (let count = 1; ; count++) {
    const outcome = await attempt().catch((error: unknown) => {
      if (error instanceof ConnectionFault && error.transient) return error;
      throw error;
    });
    const reply = outcome instanceof ConnectionFault ? undefined : outcome;
    const delay = retryDelay({
      attempt: count,
      status: reply?.status,
      retryAfter: reply && retryAfterOf(reply, clock.now()),
      left: budget.left(),
      jitter: Math.random(),
    });
    if (delay === undefined) {
      if (outcome instanceof ConnectionFault) throw outcome;
      return outcome;
    }
    if (reply) discard(reply.body);
    await sleep(clock, delay, budget.signal);
  }
}
