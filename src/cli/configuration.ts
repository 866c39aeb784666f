import {ConfigError} from '../config/fault.ts';
import {type Loaded, load} from '../config/load.ts';

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
