import type {Clock} from '../../clock.ts';

/** The time that one call has until its response headers arrive, including waiting, tokens and retries. */
export interface Budget {
  /** Aborted when the time is over; never after `end`. */
  readonly signal: AbortSignal;
  /** The whole budget, in milliseconds. */
  readonly total: number;
  /** Milliseconds left. */
  left(): number;
  /** Stops the timer: the headers have arrived, or nobody is waiting for them. Idempotent. */
  end(): void;
  /** Starts the timer again with the whole budget. No effect once the signal is aborted. */
  restart(): void;
  /** Ends the time now. */
  spend(): void;
}

/** Starts a budget of `total` milliseconds. Call `end`, or its timer outlives the call. */
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
 * Waits for shared work, which continues when this waiter gives up.
 * @throws the signal's reason when it is aborted first.
 */
export function waitFor<T>(work: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const giveUp = (): void => reject(signal.reason);
    if (signal.aborted) giveUp();
    else signal.addEventListener('abort', giveUp, {once: true});
    // Attached even when already aborted, so that a later rejection does not go unhandled.
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', giveUp));
  });
}
