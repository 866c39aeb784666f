import {ConfigError} from '../config/fault.ts';
import {configWarnings} from '../config/warnings.ts';
import {type ConfigOptions, FAULTY, readConfiguration} from './configuration.ts';

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
