import {describeConfig, formatConfig} from '../config/show.ts';
import {type ConfigOptions, FAULTY, loadConfiguration} from './configuration.ts';

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
