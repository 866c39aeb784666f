import {Command, CommanderError, Option} from 'commander';
import {readVersion} from '../version.ts';
import {addAccessCommands} from './access-commands.ts';
import {CONFIG, collect, JSON_STEPS, type RunCommand} from './options.ts';
import {type CommandIo, MISUSED, misused} from './report.ts';

const REFERENCE = 'host/name:tag, host/name@digest, oci:path:tag or oci:path@digest';
const PLAIN_HTTP = [
  '--plain-http',
  'use http instead of https; the default for localhost and loopback addresses',
] as const;
const NO_PLAIN_HTTP = ['--no-plain-http', 'use https for localhost and loopback addresses as well'] as const;

const IMAGES = 'images as clients name them: alpine:3, ghcr.io/org/app@sha256:…; - reads a list from stdin';
const IMAGE_PATTERNS =
  'an image as clients name it: alpine:3, ghcr.io/org/app@sha256:…; without a tag, all of the repository; or a pattern: docker.io/library/*, ghcr.io/**:pr-*';
const EXACT_IMAGES = 'images as clients name them: alpine:3, ghcr.io/org/app@sha256:…; without a tag, latest';
const IMAGE_LIST = [
  '-f, --file <file>',
  'a list of images, one a line, or the output of "kubectl get pods -A -o json"; - is stdin',
] as const;
const PLATFORMS = [
  '--platform <os/arch>',
  'of an index, this platform: linux/arm64; may be repeated',
] as const;

/**
 * Runs one command line.
 * @param args without the program's own name.
 * @returns the exit code: the command's; 2 when the command line is wrong.
 */
export async function runProgram(args: readonly string[], io: CommandIo): Promise<number> {
  let code = 0;
  const json = args.includes('--json');
  const program = createProgram(io, json, async (command) => {
    code = await command();
  });
  try {
    await program.parseAsync(args, {from: 'user'});
    return code;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.exitCode === 0) return 0;
    return json ? misused(problemOf(error), {json}, io) : MISUSED;
  }
}

const problemOf = ({code, message}: CommanderError): string =>
  code === 'commander.help' ? 'no command given' : onOneLine(message.replace(/^error: /, ''));

/** Commander writes its suggestion on a separate line. */
const onOneLine = (error: string): string => error.replace(/\n(?=\(Did you mean)/, ' ');

/** The commands with their options. @param json whether errors are reported as JSON, so that none is written here. */
export function createProgram(io: CommandIo, json: boolean, run: RunCommand): Command {
  const version = readVersion();
  const program = new Command('backref')
    .description('A proxy and cache for OCI registries')
    .version(version)
    .showHelpAfterError('Run "backref --help" or "backref COMMAND --help" for usage.')
    .configureOutput({
      writeOut: (text) => void io.stdout.write(text),
      writeErr: (text) => void (json || io.stderr.write(text)),
      outputError: (text, write) => write(onOneLine(text)),
    })
    .exitOverride();
  addServerCommands(program, version, io, run);
  addArtifactCommands(program, io, run);
  addStoreCommands(program, io, run);
  addImageCommands(program, io, run);
  addCacheCommands(program, io, run);
  addAccessCommands(program, io, run);
  addConfigCommands(program, io, run);
  return program;
}

function addServerCommands(program: Command, version: string, io: CommandIo, run: RunCommand): void {
  program
    .command('serve')
    .description('serve the configured registries until SIGTERM or SIGINT')
    .option(...CONFIG)
    .option('--json', 'log one line of JSON for each event, as log.format: json does')
    .action((options) => run(async () => (await import('./serve.ts')).serve({...options, version}, io)));

  program
    .command('health')
    .description('ask the server of this configuration whether it is ready; exits with 0 or 1')
    .option(...CONFIG)
    .option('--json', 'write the result or the error as a JSON object')
    .action((options) => run(async () => (await import('./health.ts')).health(options, io)));
}

function addArtifactCommands(program: Command, io: CommandIo, run: RunCommand): void {
  program
    .command('attach')
    .description(
      'attach files to a manifest in any registry or image layout; prints the digest of the new manifest',
    )
    .argument('<reference>', REFERENCE)
    .argument('<file...>', 'the files to attach')
    .requiredOption('--artifact-type <type>', 'the artifact type, such as application/spdx+json')
    .option('--media-type <type>', 'the media type of the files', 'application/octet-stream')
    .option('-a, --annotation <key=value>', 'an annotation of the new manifest; may be repeated', collect, [])
    .option(...JSON_STEPS)
    .option(...PLAIN_HTTP)
    .option(...NO_PLAIN_HTTP)
    .action((reference, files, options) =>
      run(async () => (await import('./attach.ts')).attach(reference, files, options, io)),
    );

  program
    .command('referrers')
    .description('show what refers to a manifest: signatures, SBOMs, attestations, and what refers to those')
    .argument('<reference>', REFERENCE)
    .option('--artifact-type <type>', 'only referrers of this type; may be repeated', collect)
    .option('--platform <os/arch>', "only the referrers of an index's manifest for this platform")
    .option('--all-platforms', "the index's own referrers, then those of each of its manifests")
    .option('--json', 'write JSON instead of a tree')
    .addOption(new Option('--format <format>', 'tree or json; json is the same as --json').hideHelp())
    .option(...PLAIN_HTTP)
    .option(...NO_PLAIN_HTTP)
    .action((reference, options) =>
      run(async () => (await import('./referrers.ts')).referrers(reference, options, io)),
    );
}

function addStoreCommands(program: Command, io: CommandIo, run: RunCommand): void {
  program
    .command('reindex')
    .description(
      'rebuild the index of referrers from the stored manifests; works with or without a running server',
    )
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((options) => run(async () => (await import('./reindex.ts')).reindex(options, io)));

  program
    .command('gc')
    .description('remove content that nothing refers to; works with or without a running server')
    .option(
      '--grace <duration>',
      'keep what was pushed within this time: 60s, 24h, 0 (default: garbage.grace)',
    )
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((options) => run(async () => (await import('./gc.ts')).gc(options, io)));

  program
    .command('verify')
    .description(
      'hash everything that is stored and set aside what is bad; works with or without a running server; exits with 1 if anything is bad',
    )
    .option('--dry-run', 'report what is bad and change nothing')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((options) => run(async () => (await import('./verify.ts')).verify(options, io)));

  program
    .command('backup')
    .description('copy everything that was pushed here into a folder; works with or without a running server')
    .argument('<folder>', 'a new or empty folder, or that of the last backup: only what is new is copied')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((folder, options) => run(async () => (await import('./backup.ts')).backup(folder, options, io)));

  program
    .command('restore')
    .description('bring the content of a backup into the store; what is there stays')
    .argument('<folder>', 'the folder of the backup')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((folder, options) => run(async () => (await import('./backup.ts')).restore(folder, options, io)));

  program
    .command('index')
    .description('walk the tags of an upstream repository and index every manifest with a subject')
    .argument('<repository>', 'the repository as clients name it: library/alpine, ghcr.io/org/app')
    .requiredOption('--budget <requests>', 'the maximum number of requests to the upstream')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((repository, options) =>
      run(async () => (await import('./index-repository.ts')).indexRepository(repository, options, io)),
    );
}

/** Getting images ready for an outage. */
function addImageCommands(program: Command, io: CommandIo, run: RunCommand): void {
  program
    .command('ready')
    .description(
      'show which images would pull, and which would verify, with their upstreams gone, and what is missing; asks no upstream; exits with 1 if any would not pull',
    )
    .argument('[image...]', IMAGES)
    .option(...IMAGE_LIST)
    .option(...PLATFORMS, collect)
    .option('--verify', 'exit with 1 also if any would not verify')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((images, options) => run(async () => (await import('./ready.ts')).ready(images, options, io)));

  program
    .command('warm')
    .description(
      'fetch images before anybody pulls them; content that is already stored is skipped; works with or without a running server; exits with 1 if an image failed',
    )
    .argument('[image...]', IMAGES)
    .option(...IMAGE_LIST)
    .option(...PLATFORMS, collect)
    .option('--referrers', 'fetch what verifying needs as well: signatures, SBOMs, attestations')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((images, options) => run(async () => (await import('./warm.ts')).warm(images, options, io)));
}

function addCacheCommands(program: Command, io: CommandIo, run: RunCommand): void {
  program
    .command('du')
    .description(
      'show what the disk is used for, and which images are evicted next; works with or without a running server',
    )
    .option('--by <unit>', 'a line for each registry, repository or image', 'image')
    .option('--top <lines>', 'how many lines are listed, the largest first', '20')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((options) => run(async () => (await import('./du.ts')).du(options, io)));

  program
    .command('rm')
    .description(
      'evict copies of images now; pushed and pinned content is kept; exits with 1 if a name or pattern matches nothing',
    )
    .argument('<image...>', IMAGE_PATTERNS)
    .option('--dry-run', 'show what would be removed and freed, and remove nothing')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((images, options) => run(async () => (await import('./rm.ts')).rm(images, options, io)));

  program
    .command('pin')
    .description(
      'keep images from being evicted, and what belongs to them; without a name, list what is pinned',
    )
    .argument('[image...]', EXACT_IMAGES)
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((images, options) => run(async () => (await import('./pins.ts')).pin(images, options, io)));

  program
    .command('unpin')
    .description('let images be evicted again; exits with 1 if one of them was not pinned')
    .argument('<image...>', EXACT_IMAGES)
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((images, options) => run(async () => (await import('./pins.ts')).unpin(images, options, io)));

  program
    .command('who')
    .description(
      'list who pulled a manifest or a blob, by its digest; exits with 1 if nobody did; works with or without a running server',
    )
    .argument('<digest>', 'sha256:…')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((digest, options) => run(async () => (await import('./who.ts')).who(digest, options, io)));
}

function addConfigCommands(program: Command, io: CommandIo, run: RunCommand): void {
  const config = program.command('config').description('inspect the configuration without serving');

  config
    .command('check')
    .description('report every fault of the configuration; exits with 0 or 2')
    .option(...CONFIG)
    .option('--json', 'write the result as a JSON object')
    .action((options) => run(async () => (await import('./configuration.ts')).configCheck(options, io)));

  config
    .command('show')
    .description('print the configuration in effect, without secrets')
    .option(...CONFIG)
    .option('--json', 'write JSON instead of YAML')
    .action((options) => run(async () => (await import('./configuration.ts')).configShow(options, io)));
}
