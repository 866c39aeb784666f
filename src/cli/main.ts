#!/usr/bin/env node
import {readFileSync} from 'node:fs';
import {Command} from 'commander';

/** A command ends with the exit code that it resolves to; its module is loaded only when it is called. */
const exitWith = async (code: Promise<number>): Promise<never> => process.exit(await code);

const {version} = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
const CONFIG_FLAG = [
  '-c, --config <file>',
  'the file of settings (default: $BACKREF_CONFIG, else ./config/backref.yaml)',
] as const;

const program = new Command('backref')
  .description('A proxy and cache in front of OCI registries')
  .version(version)
  .showHelpAfterError()
  // 2, as for every other fault of what was asked; 1 is kept for what fails while it runs.
  .exitOverride(({exitCode}) => process.exit(exitCode === 0 ? 0 : 2));

program
  .command('serve')
  .description('serve the configured registries until SIGTERM or SIGINT')
  .option(...CONFIG_FLAG)
  .action(async (options) => exitWith((await import('./serve.ts')).serve({...options, version})));

program
  .command('health')
  .description('ask the server that runs with this configuration whether it answers; exit code 0 or 1')
  .option(...CONFIG_FLAG)
  .action(async (options) => exitWith((await import('./health.ts')).health(options)));

const config = program.command('config').description('look at the configuration without serving');

config
  .command('check')
  .description('tell every fault of the configuration; exit code 0 or 2')
  .option(...CONFIG_FLAG)
  .option('--json', 'for machines')
  .action(async (options) => exitWith((await import('./config-check.ts')).configCheck(options)));

config
  .command('show')
  .description('print the configuration that is in effect, without secrets')
  .option(...CONFIG_FLAG)
  .option('--json', 'as JSON instead of YAML')
  .action(async (options) => exitWith((await import('./config-show.ts')).configShow(options)));

await program.parseAsync();
