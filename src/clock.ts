/** Time, injected: tests hold a clock of their own and never sleep through a wait. */
export interface Clock {
  /** Milliseconds since the epoch. */
  now(): number;
  /**
   * Waits `ms` milliseconds.
   * @throws the signal's reason when it is aborted first.
   */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** A server's clock: its waits do not keep the process alive. */
export const systemClock: Clock = {
  now: Date.now,
  sleep: (ms, signal) => wait(ms, signal, (timer) => timer.unref()),
};

/** A command's clock, or a library call's: the process stays for as long as something waits. */
export const patientClock: Clock = {
  now: Date.now,
  sleep: (ms, signal) => wait(ms, signal, (timer) => timer.ref()),
};

/** Most waits are limits that are never met: ending one early makes no error object, which is what costs. */
function wait(
  ms: number,
  signal: AbortSignal | undefined,
  hold: (timer: NodeJS.Timeout) => void,
): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const end = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, ms);
    hold(timer);
    signal?.addEventListener('abort', end, {once: true});
  });
}

/** The reason of a wait that is not needed any more. */
export const NOT_NEEDED = 'not needed any more';
