import type {Command} from 'commander';
import {CONFIG, collect, JSON_STEPS, type RunCommand} from './options.ts';
import type {CommandIo} from './report.ts';

/** The commands about who may do what, and with which credentials. */
export function addAccessCommands(program: Command, io: CommandIo, run: RunCommand): void {
  addTokenCommands(program, io, run);
  program
    .command('credential-provider')
    .description(
      "answer a kubelet on stdin with the token of the pod's service account, so that pods pull as themselves",
    )
    .option('--print-config', "print the kubelet's CredentialProviderConfig instead")
    .option(
      '--image <pattern>',
      "which images to ask for: backref's host as the pods name it; may be repeated",
      collect,
      [],
    )
    .option('--audience <audience>', 'the audience of the tokens, as in access.issuers')
    .action((options) =>
      run(async () => (await import('./credential-provider.ts')).credentialProvider(options, io)),
    );

  const access = program.command('access').description('explain who may do what');

  access
    .command('check')
    .description(
      'say whether the rules of a configuration allow something, and which rule decides; needs no server, but looks the token of a robot up where there is a store; exits with 1 if it is denied',
    )
    .argument('<action>', 'pull, push, delete, attach or admin')
    .argument('[place]', 'an image, a repository or a registry as clients name it; without it, any registry')
    .option(
      '--as <names>',
      "the caller's names, its own first: robot:ci or user:alice,group:dev",
      'anonymous',
    )
    .option('--local', 'as if it came in through a loopback address')
    .option(...CONFIG)
    .option('--json', 'write the result or the error as a JSON object')
    .action((action, place, options) =>
      run(async () => (await import('./access-check.ts')).accessCheck(action, place, options, io)),
    );
}

function addTokenCommands(program: Command, io: CommandIo, run: RunCommand): void {
  const token = program.command('token').description('tokens of robots, with which machines log in');

  token
    .command('create')
    .description('make a token and print its secret once; works with or without a running server')
    .argument('<name>', 'what rules and logs call it: robot:NAME')
    .requiredOption('--may <actions>', 'what it may do: pull, push, delete, attach, separated by commas')
    .requiredOption(
      '--on <pattern>',
      "where: registry/repository with an optional :tag, such as 'apps.local/team-*/**'; may be repeated",
      collect,
    )
    .requiredOption('--expires <duration>', 'when it ends: 12h, 90d, or never')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((name, options) => run(async () => (await import('./token.ts')).createToken(name, options, io)));

  token
    .command('ls')
    .description('list the tokens, what they may do, when they expire and when they were last used')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((options) => run(async () => (await import('./token.ts')).listTokens(options, io)));

  token
    .command('revoke')
    .description('end a token, and what was issued for it, at once')
    .argument('<name>', 'the name that it was created with')
    .option(...CONFIG)
    .option(...JSON_STEPS)
    .action((name, options) => run(async () => (await import('./token.ts')).revokeToken(name, options, io)));
}
