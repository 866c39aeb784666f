import type {Command} from 'commander';
import {collect, type RunCommand} from './options.ts';
import type {CommandIo} from './report.ts';

/** The commands about who may do what, and with which credentials. */
export function addAccessCommands(program: Command, io: CommandIo, run: RunCommand): void {
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
}
