import {on} from 'node:events';
import {constants} from 'node:os';
import {isatty} from 'node:tty';

type StopSignal = 'SIGTERM' | 'SIGINT' | 'SIGHUP';

const STOP_SIGNALS = ['SIGTERM', 'SIGINT'] as const;

/** What a server that runs is told by signals. */
export interface Signals {
  /**
   * The first signal to stop; from then on another one ends the process with the code that a shell expects. A SIGHUP
   * is one when the terminal that the process was started in is gone.
   */
  stop: Promise<StopSignal>;
  /** Each other SIGHUP: the configuration is to be reloaded. Those that come while nobody asks for the next are kept. */
  reload: AsyncIterable<unknown>;
}

/** Listens to the signals of this process from now on. */
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

/** Tells whether there was a terminal and there is none any more: it was closed, or its connection broke. */
function watchTerminal(): () => boolean {
  const terminals = [0, 1, 2].filter((descriptor) => isatty(descriptor));
  return () => terminals.length > 0 && !terminals.some((descriptor) => isatty(descriptor));
}
