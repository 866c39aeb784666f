import {ConfigError} from '../config/fault.ts';
import type {Loaded} from '../config/load.ts';
import type {Log} from '../observe/log.ts';
import type {BackrefServer, Reloaded} from '../server.ts';
import {type ConfigOptions, readConfiguration} from './configuration.ts';
import type {CommandIo} from './report.ts';

/**
 * Reads the configuration again, with all files that it names, applies it to a server and logs the outcome. A faulty
 * configuration is rejected as a whole, with every fault.
 * @returns the configuration; undefined when it was rejected.
 */
export async function reloadConfiguration(
  options: ConfigOptions,
  io: CommandIo,
  server: Pick<BackrefServer, 'reload'>,
  log: Log,
): Promise<Loaded | undefined> {
  try {
    const loaded = await readConfiguration(options, io);
    if (loaded instanceof ConfigError) throw loaded;
    const reloaded = server.reload(loaded.config);
    logReloaded(loaded.source, reloaded, log);
    return loaded;
  } catch (error) {
    logRejected(error, log);
    return undefined;
  }
}

function logReloaded(source: string, {left, outlived, ...changes}: Reloaded, log: Log): void {
  const parts = Object.entries(changes).flatMap(([what, names]: [string, string[]]) =>
    names.length > 0 ? [`${what} ${names.join(', ')}`] : [],
  );
  log({
    level: 'info',
    event: 'config.reloaded',
    text: `reloaded the configuration (${source}): registries ${parts.join('; ') || 'unchanged'}`,
    facts: {source, ...changes},
  });
  for (const name of outlived) {
    const setting = `registries.${name}.upstream`;
    const problem =
      'has changed, and what is cached of the former one is served to those who may pull from the new one: remove it (backref rm), unless they may have it';
    logWarning({setting, problem}, log);
  }
  if (left.length === 0) return;
  log({
    level: 'warn',
    event: 'config.restart-needed',
    text: `takes effect only after a restart: ${left.join(', ')}`,
    facts: {left},
  });
}

/** Reports what a valid configuration may not be meant to say. */
export function logWarning({setting, problem}: {setting: string; problem: string}, log: Log): void {
  log({level: 'warn', event: 'config.warning', text: `${setting}: ${problem}`, facts: {setting, problem}});
}

function logRejected(error: unknown, log: Log): void {
  const reason = error instanceof Error ? error.message : String(error);
  log({
    level: 'error',
    event: 'config.rejected',
    text: `${reason}\nThe previous configuration stays in effect.`,
    facts: error instanceof ConfigError ? {source: error.source, faults: error.faults} : {reason},
  });
}
