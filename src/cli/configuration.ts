import {configWarnings} from '../config/checks.ts';
import {ConfigError} from '../config/fault.ts';
import {type Loaded, load} from '../config/load.ts';
import {describeConfig, formatConfig} from '../config/show.ts';

/** The exit code of a command whose configuration has faults. */
export const FAULTY = 2;

export interface ConfigOptions {
  /** The value of `--config`. */
  config?: string;
}

/** Loads the configuration of a command, or gives the error that says everything that is wrong with it. */
export async function readConfiguration({config}: ConfigOptions): Promise<Loaded | ConfigError> {
  try {
    return await load(config === undefined ? {} : {file: config});
  } catch (error) {
    if (error instanceof ConfigError) return error;
    throw error;
  }
}

/**
 * Loads the configuration of a command. Its faults are printed, for people on stderr, with `json` on stdout, and then
 * there is none.
 */
export async function loadConfiguration(
  options: ConfigOptions & {json?: boolean},
): Promise<Loaded | undefined> {
  const result = await readConfiguration(options);
  if (!(result instanceof ConfigError)) return result;
  const {message, source, faults} = result;
  if (options.json) process.stdout.write(`${JSON.stringify({error: {message, source, faults}})}\n`);
  else process.stderr.write(`${message}\n`);
  return undefined;
}

/**
 * `backref config check`: tells every fault on stderr, or with `--json` an object `{ok, source, faults, warnings}` on stdout.
 * A warning is no fault.
 * @returns the exit code.
 */
export async function configCheck(options: ConfigOptions & {json?: boolean}): Promise<number> {
  const result = await readConfiguration(options);
  const {source} = result;
  const faults = result instanceof ConfigError ? result.faults : [];
  const warnings = result instanceof ConfigError ? [] : configWarnings(result.config);
  const ok = faults.length === 0;
  if (options.json) process.stdout.write(`${JSON.stringify({ok, source, faults, warnings}, undefined, 2)}\n`);
  else if (result instanceof ConfigError) process.stderr.write(`${result.message}\n`);
  else {
    process.stdout.write(
      `The configuration is fine (${source}): ${result.config.registries.length} registries\n`,
    );
    for (const {path, problem} of warnings) process.stderr.write(`Warning: ${path}: ${problem}.\n`);
  }
  return ok ? 0 : FAULTY;
}

/** `backref config show`: the configuration in effect, without secrets. @returns the exit code. */
export async function configShow(options: ConfigOptions & {json?: boolean}): Promise<number> {
  const loaded = await loadConfiguration(options);
  if (!loaded) return FAULTY;
  const {config, source} = loaded;
  process.stdout.write(
    options.json
      ? `${JSON.stringify(describeConfig(config), undefined, 2)}\n`
      : `# ${source}\n${formatConfig(config)}`,
  );
  return 0;
}
