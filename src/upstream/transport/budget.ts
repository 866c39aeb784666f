import type {Clock} from '../../clock.ts';

/** The time that one call has until its response headers are here: waiting, tokens and retries included. */
export interface Budget {
  /** Aborted when the time is over; never after `end`. */
  readonly signal: AbortSignal;
  /** The whole of it, milliseconds. */
  readonly total: number;
  /** Milliseconds left. */
  left(): number;
  /** The headers are here, or nobody waits for them: no time-out any more. Idempotent. */
  end(): void;
  /** Starts the time anew, all of it. Nothing happens once the signal is aborted. */
  restart(): void;
  /** Ends the time now. */
  spend(): void;
}

/** Starts a budget of `total` milliseconds. End it, or its timer outlives the call. */
export function startBudget(clock: Clock, total: number): Budget {
  const spent = new AbortController();
  const spend = (): void => spent.abort();
  let deadline = clock.monotonic() + total;
  let cancel = clock.after(total, spend);
  return {
    signal: spent.signal,
    total,
    left: () => Math.max(0, deadline - clock.monotonic()),
    end: () => cancel(),
    restart() {
      cancel();
      deadline = clock.monotonic() + total;
      cancel = clock.after(total, spend);
    },
    spend,
  };
}

/**
 * Waits for work that others share and that must not end with this waiter.
 * @throws the signal's reason when it is aborted first.
 */
export function waitFor<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = (): void => reject(signal.reason);
    if (signal.aborted) giveUp();
    else signal.addEventListener('abort', giveUp, {once: true});
    // Also when nobody waits: how it ends is not to go unhandled.
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp));
  });
}
