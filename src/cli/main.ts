#!/usr/bin/env node
import {readFileSync} from 'node:fs';
import {Command, Option} from 'commander';

/** A command ends with the exit code that it resolves to; its module is loaded only when it is called. */
const exitWith = async (code: Promise<number>): Promise<never> => process.exit(await code);

const {version} = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8'));
const CONFIG_FLAG = [
  '-c, --config <file>',
  'the file of settings (default: $BACKREF_CONFIG, else ./config/backref.yaml)',
] as const;

const REFERENCE = 'host/name:tag, host/name@digest, oci:path:tag or oci:path@digest';
const PLAIN_HTTP = [
  '--plain-http',
  'speak http instead of https to the registry; localhost and loopback addresses imply it',
] as const;
const NO_PLAIN_HTTP = ['--no-plain-http', 'speak https also to a registry of this machine'] as const;
const JSON_STEPS = ['--json', 'for machines: a line of JSON for each step and for the result'] as const;
const collect = (value: string, earlier: readonly string[] = []): string[] => [...earlier, value];

const program = new Command('backref')
  .description('A proxy and cache in front of OCI registries')
  .version(version)
  .showHelpAfterError('Run backref --help, or the command with --help, to see what is possible.')
  // The error with what was probably meant on one line, and the one above below it.
  .configureOutput({outputError: (text, write) => write(text.replace(/\n(?=\(Did you mean)/, ' '))})
  // 2, as for every other fault of what was asked; 1 is kept for what fails while it runs.
  .exitOverride(({exitCode}) => process.exit(exitCode === 0 ? 0 : 2));

program
  .command('serve')
  .description('serve the configured registries until SIGTERM or SIGINT')
  .option(...CONFIG_FLAG)
  .option('--json', 'log a line of JSON for each event, as log.format: json does')
  .action(async (options) => exitWith((await import('./serve.ts')).serve({...options, version})));

program
  .command('health')
  .description('ask the server that runs with this configuration whether it is ready; exit code 0 or 1')
  .option(...CONFIG_FLAG)
  .option('--json', 'for machines: the result, or what is wrong, as an object')
  .action(async (options) => exitWith((await import('./health.ts')).health(options)));

program
  .command('attach')
  .description(
    'attach files to a manifest of any registry or image layout; prints the digest of what was attached',
  )
  .argument('<reference>', REFERENCE)
  .argument('<file...>', 'what to attach')
  .requiredOption('--artifact-type <type>', 'what it is, such as application/spdx+json')
  .option('--media-type <type>', 'the media type of the files', 'application/octet-stream')
  .option('-a, --annotation <key=value>', 'of the new manifest; may be repeated', collect, [])
  .option(...JSON_STEPS)
  .option(...PLAIN_HTTP)
  .option(...NO_PLAIN_HTTP)
  .action(async (reference, files, options) =>
    exitWith((await import('./attach.ts')).attach(reference, files, options)),
  );

program
  .command('referrers')
  .description('show what refers to a manifest: signatures, SBOMs, attestations, and what refers to those')
  .argument('<reference>', REFERENCE)
  .option('--artifact-type <type>', 'only referrers of this type; may be repeated', collect)
  .option('--platform <os/arch>', "the referrers of an index's manifest for this platform")
  .option('--all-platforms', "the index's own referrers, then those of each of its manifests")
  .option('--json', 'as JSON instead of a tree')
  .addOption(new Option('--format <format>', 'tree or json; json is the same as --json').hideHelp())
  .option(...PLAIN_HTTP)
  .option(...NO_PLAIN_HTTP)
  .action(async (reference, options) =>
    exitWith((await import('./referrers.ts')).referrers(reference, options)),
  );

program
  .command('reindex')
  .description(
    'rebuild the index of referrers from the stored manifests, beside a running server or without one',
  )
  .option(...CONFIG_FLAG)
  .option(...JSON_STEPS)
  .action(async (options) => exitWith((await import('./reindex.ts')).reindex(options)));

program
  .command('gc')
  .description('collect content that nothing refers to, beside a running server or without one')
  .option(
    '--grace <duration>',
    'leave alone what was pushed so lately: 60s, 24h, 0; else garbage.grace of the configuration',
  )
  .option(...CONFIG_FLAG)
  .option(...JSON_STEPS)
  .action(async (options) => exitWith((await import('./gc.ts')).gc(options)));

program
  .command('index')
  .description("walk an upstream repository's tags and index every manifest that refers to another")
  .argument('<repository>', 'as clients name it: library/alpine, ghcr.io/org/app')
  .requiredOption('--budget <requests>', 'the most requests to make to the upstream')
  .option(...CONFIG_FLAG)
  .option(...JSON_STEPS)
  .action(async (repository, options) =>
    exitWith((await import('./index-repository.ts')).indexRepository(repository, options)),
  );

const config = program.command('config').description('look at the configuration without serving');

config
  .command('check')
  .description('tell every fault of the configuration; exit code 0 or 2')
  .option(...CONFIG_FLAG)
  .option('--json', 'for machines')
  .action(async (options) => exitWith((await import('./configuration.ts')).configCheck(options)));

config
  .command('show')
  .description('print the configuration that is in effect, without secrets')
  .option(...CONFIG_FLAG)
  .option('--json', 'as JSON instead of YAML')
  .action(async (options) => exitWith((await import('./configuration.ts')).configShow(options)));

await program.parseAsync();
