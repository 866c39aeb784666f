import {constants} from 'node:os';
import {connectCommands} from '../admin/client.ts';
import type {Commands} from '../admin/commands.ts';
import {patientClock} from '../clock.ts';
import type {Config} from '../config.ts';

/** Ended by a signal: what was done until then stays. */
export class Interrupted extends Error {
  readonly exitCode: number;

  constructor(signal: 'SIGINT' | 'SIGTERM') {
    super(`${signal}: what was done until now stays; run the command again to go on`);
    this.exitCode = 128 + constants.signals[signal];
  }
}

/**
 * Runs commands on what a configuration keeps: on the server that works on it, so that it sees their effect at once,
 * else on the store itself.
 * @param use is given a signal that the first SIGINT or SIGTERM aborts, with an Interrupted as its reason.
 */
export async function withCommands<T>(
  config: Config,
  use: (commands: Commands, signal: AbortSignal) => Promise<T>,
): Promise<T> {
  const interrupted = new AbortController();
  for (const name of ['SIGINT', 'SIGTERM'] as const)
    process.once(name, () => interrupted.abort(new Interrupted(name)));
  const remote = await connectCommands(config.storage.blobs.path);
  if (remote) return use(remote, interrupted.signal);
  // Loaded only now: a command that speaks to a server needs none of it.
  const {createServer} = await import('../server.ts');
  const server = createServer(config, {clock: patientClock});
  try {
    return await use(await server.commands(), interrupted.signal);
  } finally {
    await server.close();
  }
}
