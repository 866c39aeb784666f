import {on} from 'node:events';
import {constants} from 'node:os';
import {isatty} from 'node:tty';

type StopSignal = 'SIGTERM' | 'SIGINT' | 'SIGHUP';

const STOP_SIGNALS = ['SIGTERM', 'SIGINT'] as const;

/** The signals that a running server obeys. */
export interface Signals {
  /**
   * The first signal to stop. Another one then ends the process with the exit code that a shell expects. SIGHUP means
   * to stop when the terminal that started the process is gone.
   */
  stop: Promise<StopSignal>;
  /** Any other SIGHUP means to reload the configuration. Signals are queued until they are read. */
  reload: AsyncIterable<unknown>;
}

/** Handles the signals of this process from now on. */
export function listenToSignals(): Signals {
  const isGone = watchTerminal();
  const {promise: stop, resolve} = Promise.withResolvers<StopSignal>();
  const first = (signal: StopSignal) => {
    resolve(signal);
    for (const next of STOP_SIGNALS) {
      process.off(next, first);
      process.on(next, () => process.exit(128 + constants.signals[next]));
    }
  };
  for (const signal of STOP_SIGNALS) process.on(signal, first);
  process.on('SIGHUP', () => {
    if (isGone()) first('SIGHUP');
  });
  return {stop, reload: reloads(on(process, 'SIGHUP'), isGone)};
}

async function* reloads(hangups: AsyncIterable<unknown>, isGone: () => boolean): AsyncGenerator<unknown> {
  for await (const hangup of hangups) if (!isGone()) yield hangup;
}

/** @returns whether the terminal of this process is gone: it was closed, or its connection broke. */
function watchTerminal(): () => boolean {
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor));
  return () => terminals.length > 0 && !terminals.some((descriptor) => isatty(descriptor));
}
