import {type Clock, sleep} from '../../clock.ts';
import {discard} from './body.ts';
import type {Budget} from './budget.ts';
import {ConnectionFault} from './fault.ts';
import {parseRetryAfter, retryDelay} from './pacing.ts';
import {header, type Reply} from './request.ts';

/**
 * Attempts until there is an answer worth having, as far as `retryDelay` and the budget allow.
 * @returns the last answer, a 429 or 503 included.
 * @throws the last attempt's failure, and every failure at once that another attempt cannot change.
 */
export async function persist(attempt: () => Promise<Reply>, budget: Budget, clock: Clock): Promise<Reply> {
  for (let count = 1; ; count++) {
    const outcome = await attempt().catch((error: unknown) => {
      if (error instanceof ConnectionFault && error.passing) return error;
      throw error;
    });
    const reply = outcome instanceof ConnectionFault ? undefined : outcome;
    const delay = retryDelay({
      attempt: count,
      status: reply?.status,
      retryAfter: reply && parseRetryAfter(header(reply.headers, 'retry-after'), clock.now()),
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
