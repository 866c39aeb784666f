import {configWarnings} from '../config/checks.ts';
import {ConfigError} from '../config/fault.ts';
import {type Loaded, load} from '../config/load.ts';
import {describeConfig, formatConfig} from '../config/show.ts';
import {type CommandIo, count, MISUSED} from './report.ts';

export interface ConfigOptions {
  /** The value of `--config`. */
  config?: string;
  /** Does not look at the key pairs for TLS: a running server keeps the last one that it could use. */
  leavesKeyPairs?: boolean;
}

/** Loads the configuration. @returns it, or the error that lists all of its faults. */
export async function readConfiguration(
  {config: file, leavesKeyPairs = false}: ConfigOptions,
  {env}: CommandIo,
): Promise<Loaded | ConfigError> {
  try {
    return await load({...(file === undefined ? {} : {file}), env, leavesKeyPairs});
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
}

/**
 * Loads the configuration, and reports its faults: to people on stderr, with `json` on stdout.
 * @returns the configuration, or the exit code of a command whose configuration has faults.
 */
export async function loadConfiguration(
  options: ConfigOptions & {json?: boolean},
  io: CommandIo,
): Promise<Loaded | number> {
  const result = await readConfiguration(options, io);
  if (!(result instanceof ConfigError)) return result;
  const {message, source, faults} = result;
  if (options.json) io.stdout.write(`${JSON.stringify({error: {message, source, faults}})}\n`);
  else io.stderr.write(`${message}\n`);
  return MISUSED;
}

/**
 * `backref config check`: reports every fault on stderr, or with `--json` an object `{ok, source, faults, warnings}` on
 * stdout. Warnings are not faults.
 * @returns the exit code: 0 without faults, else 2.
 */
export async function configCheck(options: ConfigOptions & {json?: boolean}, io: CommandIo): Promise<number> {
  const result = await readConfiguration(options, io);
  const {source} = result;
  const faults = result instanceof ConfigError ? result.faults : [];
  const warnings = result instanceof ConfigError ? [] : configWarnings(result.config);
  const ok = faults.length === 0;
  if (options.json) io.stdout.write(`${JSON.stringify({ok, source, faults, warnings}, undefined, 2)}\n`);
  else if (result instanceof ConfigError) io.stderr.write(`${result.message}\n`);
  else {
    io.stdout.write(
      `The configuration is valid (${source}): ${count(result.config.registries.length, 'registry', 'registries')}.\n`,
    );
    for (const {path, problem} of warnings) io.stderr.write(`Warning: ${path}: ${problem}.\n`);
  }
  return ok ? 0 : MISUSED;
}

/** `backref config show`: prints the configuration in effect, without secrets. @returns the exit code. */
export async function configShow(options: ConfigOptions & {json?: boolean}, io: CommandIo): Promise<number> {
  const loaded = await loadConfiguration(options, io);
  if (typeof loaded === 'number') return loaded;
  const {config, source} = loaded;
  io.stdout.write(
    options.json
      ? `${JSON.stringify(describeConfig(config), undefined, 2)}\n`
      : `# ${source}\n${formatConfig(config)}`,
  );
  return 0;
}
