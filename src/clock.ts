import {setTimeout as delay} from 'node:timers/promises';

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
  sleep: (ms, signal) => delay(ms, undefined, {ref: false, ...(signal ? {signal} : {})}),
};

/** A command's clock, or a library call's: the process stays for as long as something waits. */
export const patientClock: Clock = {
  now: Date.now,
  sleep: (ms, signal) => delay(ms, undefined, signal ? {signal} : {}),
};
