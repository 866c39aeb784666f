import {type Clock, sleep} from '../../clock.ts';
import {SpoiledAnswer} from '../port.ts';
import {discard} from './body.ts';
import type {Budget} from './budget.ts';
import {ConnectionFault} from './fault.ts';
import {type Method, type Reply, retryAfterOf} from './reply.ts';

/** Attempts in all, including the first. */
const MAX_ATTEMPTS = 4;
/** Before the second attempt; doubled for each further one. */
const FIRST_DELAY_MS = 100;
/** From gateways and overloaded registries. A 501 would be the same again. */
const TRANSIENT_STATUSES: ReadonlySet<number> = new Set([502, 503, 504]);

export interface FailedAttempt {
  method: Method;
  /** 1 for the first. */
  attempt: number;
  /** The response's status; undefined when there was none, or the response was spoiled. */
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
export function retryDelay({
  method,
  attempt,
  status,
  retryAfter,
  left,
  jitter,
}: FailedAttempt): number | undefined {
  if (attempt >= MAX_ATTEMPTS) return undefined;
  if (status === 429 && retryAfter === undefined) return undefined;
  if (status !== undefined && status !== 429 && !isTransient(status, method)) return undefined;
  const backoff = FIRST_DELAY_MS * 2 ** (attempt - 1) * (0.5 + jitter / 2);
  const delay = Math.max(retryAfter ?? 0, backoff);
  return delay < left ? delay : undefined;
}

/** After a 500 it is unknown what became of a write; a read can be repeated. */
const isTransient = (status: number, method: Method): boolean =>
  TRANSIENT_STATUSES.has(status) || (status === 500 && isRead(method));

/** RFC 9110, section 9.2.1: a safe method, which changes nothing however often it is sent. */
const isRead = (method: Method): boolean => method === 'GET' || method === 'HEAD';

/**
 * Whether the same request may be answered well at once or soon. After an answer that cannot be understood it is unknown
 * what became of a write.
 */
function isPassing(error: unknown, method: Method): boolean {
  if (error instanceof SpoiledAnswer) return isRead(method);
  if (!(error instanceof ConnectionFault && error.transient)) return false;
  return error.kind !== 'protocol' || isRead(method);
}

/** The attempts of one call, which are limited together: those until a response, and those after a spoiled one. */
export class Attempts {
  readonly #method: Method;
  readonly #clock: Clock;
  #made = 0;

  constructor(method: Method, clock: Clock) {
    this.#method = method;
    this.#clock = clock;
  }

  /**
   * Repeats a request while `retryDelay` says so.
   * @returns the last reply, which may be a 429 or 5xx.
   * @throws the last attempt's failure, and at once any failure that another attempt cannot change.
   */
  async untilReply(send: () => Promise<Reply>, budget: Budget): Promise<Reply> {
    for (;;) {
      this.#made += 1;
      const outcome = await send().catch((error: unknown) => {
        if (isPassing(error, this.#method)) return {error};
        throw error;
      });
      const delay = 'error' in outcome ? this.#delay(budget) : this.#delay(budget, outcome);
      if (delay === undefined) {
        if ('error' in outcome) throw outcome.error;
        return outcome;
      }
      if (!('error' in outcome)) discard(outcome.body);
      await sleep(this.#clock, delay, budget.signal);
    }
  }

  /**
   * Waits before the request of a failed call is sent once more.
   * @param stopping ends the wait
   * @throws the failure itself when it would be the same again, or nothing is left for another attempt
   */
  async again(failure: unknown, budget: Budget, stopping?: AbortSignal): Promise<void> {
    const delay = isRead(this.#method) && isPassing(failure, this.#method) ? this.#delay(budget) : undefined;
    if (delay === undefined) throw failure;
    await sleep(this.#clock, delay, stopping);
  }

  #delay(budget: Budget, reply?: Reply): number | undefined {
    return retryDelay({
      method: this.#method,
      attempt: this.#made,
      status: reply?.status,
      retryAfter: reply && retryAfterOf(reply, this.#clock.now()),
      left: budget.left(),
      jitter: Math.random(),
    });
  }
}
