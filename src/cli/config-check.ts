import {ConfigError} from '../config/fault.ts';
import {type ConfigOptions, FAULTY, readConfiguration} from './configuration.ts';

/**
 * `backref config check`: tells every fault on stderr, or with `--json` an object `{ok, source, faults}` on stdout.
 * @returns the exit code.
 */
export async function configCheck(options: ConfigOptions & {json?: boolean}): Promise<number> {
  const result = await readConfiguration(options);
  const {source} = result;
  const faults = result instanceof ConfigError ? result.faults : [];
  const ok = faults.length === 0;
  if (options.json) process.stdout.write(`${JSON.stringify({ok, source, faults}, undefined, 2)}\n`);
  else if (result instanceof ConfigError) process.stderr.write(`${result.message}\n`);
  else
    process.stdout.write(
      `The configuration is fine (${source}): ${result.config.registries.length} registries\n`,
    );
  return ok ? 0 : FAULTY;
}
