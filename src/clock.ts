/** Time, injected: tests have a clock of their own and never sleep through a wait. */
export interface Clock {
  /**
   * The wall clock: milliseconds since the epoch. It may be set back or forward at any moment, so use it only for times
   * that are stored or shown, and to compare with dates from other systems.
   */
  now(): number;
  /**
   * Whole milliseconds since a fixed moment of this process. They never go back, whatever the wall clock does: use them
   * for every lifetime, time limit and duration that ends with the process.
   */
  monotonic(): number;
  /** Calls `call` once, in `ms` milliseconds. @returns a function that cancels this */
  after(ms: number, call: () => void): Cancel;
  /** What `now` and `monotonic` say, for other threads; undefined for the system's clock, which they have as well. */
  readonly times?: Float64Array<SharedArrayBuffer> | undefined;
}

/** Cancels a call. Idempotent; without effect once the call has happened. */
export type Cancel = () => void;

const monotonic = (): number => Math.floor(performance.now());

/** A server's clock: its waits do not keep the process alive. */
export const systemClock: Clock = {
  now: Date.now,
  monotonic,
  after: (ms, call) => {
    const timer = setTimeout(call, ms).unref();
    return () => clearTimeout(timer);
  },
};

/** The clock of a command or a library call: its waits keep the process alive. */
export const patientClock: Clock = {
  now: Date.now,
  monotonic,
  after: (ms, call) => {
    const timer = setTimeout(call, ms);
    return () => clearTimeout(timer);
  },
};

/**
 * Waits `ms` milliseconds.
 * @throws the signal's reason when it is aborted first.
 */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const end = () => {
      cancel();
      reject(signal?.reason);
    };
    const cancel = clock.after(ms, () => {
      signal?.removeEventListener('abort', end);
      resolve();
    });
    signal?.addEventListener('abort', end, {once: true});
  });
}

/** Notices when something that is being waited for makes no progress. */
export interface IdleWatch {
  /** Starts counting, or starts again after progress. */
  restart(): void;
  /** Stops counting until `restart`: the time until then does not count. */
  pause(): void;
  /** Ends the watch. Idempotent. */
  stop(): void;
}

/**
 * Calls `onIdle` once, when `limit` milliseconds have passed since the last `restart` without a `pause`. Begins paused.
 * One timer serves the whole watch: `restart` and `pause` only note the time, so they may be called for each chunk.
 */
export function watchIdle(clock: Clock, limit: number, onIdle: () => void): IdleWatch {
  let since: number | undefined;
  const check = (): void => {
    const left = since === undefined ? limit : since + limit - clock.monotonic();
    if (left <= 0) onIdle();
    else cancel = clock.after(left, check);
  };
  let cancel: Cancel = clock.after(limit, check);
  return {
    restart: () => {
      since = clock.monotonic();
    },
    pause: () => {
      since = undefined;
    },
    stop: () => cancel(),
  };
}

/** The abort reason of a wait that is no longer needed. A string, because creating an error costs more than the wait. */
export const NOT_NEEDED = 'no longer needed';

/** Resolves when the work has ended, even with an error, or after `ms` milliseconds. Then the work continues. */
export async function waitAtMost(ms: number, work: Promise<unknown>, clock: Clock): Promise<void> {
  const {promise: late, resolve} = Promise.withResolvers<void>();
  const cancel = clock.after(ms, resolve);
  await Promise.race([work.catch(() => {}), late]);
  cancel();
}
