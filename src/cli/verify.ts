import type {ConfigOptions} from './configuration.ts';
import {humanSize} from './draw-tree.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, count} from './report.ts';

export interface VerifyFlags extends ConfigOptions {
  dryRun?: boolean;
  json?: boolean;
}

interface VerifyCounts {
  blobs: number;
  manifests: number;
  bytes: number;
  unrecorded: number;
  sizes: number;
  copies: number;
  local: number;
}

interface VerifyReport extends VerifyCounts {
  bad: {kind: string; digest: string; origin: string; problem: string; repository?: string}[];
}

const summary = ({blobs, manifests, bytes}: VerifyCounts): string =>
  `${count(blobs, 'blob')} and ${count(manifests, 'manifest')}, ${humanSize(bytes)}`;

const badIn = ({sizes, copies, local}: VerifyCounts): number => sizes + copies + local;

const wording = (dryRun: boolean) => ({
  progress: (state: VerifyCounts & {done: number}): [number, string] => [
    state.done,
    `${summary(state)}: ${badIn(state)} bad`,
  ],
  result(result: VerifyReport): string {
    const {copies, local, sizes, unrecorded, bad} = result;
    const unlisted = copies + local - bad.length;
    return [
      `Hashed ${summary(result)}: ${badIn(result) === 0 ? 'nothing is bad' : `${badIn(result)} bad`}.`,
      ...bad.map(lineOf),
      ...(unlisted > 0 ? [`  and ${unlisted} more`] : []),
      ...(copies > 0 ? [`Bad copies: ${copies}. ${ofCopies(dryRun)}`] : []),
      ...(local > 0 ? [`Pushed here and lost: ${local}. ${ofLocal(dryRun)}`] : []),
      ...(sizes > 0 ? [`Wrong sizes in the metadata: ${sizes}. ${ofSizes(dryRun)}`] : []),
      ...(unrecorded > 0
        ? [`Files that nothing refers to: ${unrecorded}. Garbage collection removes them.`]
        : []),
    ].join('\n');
  },
});

const lineOf = ({kind, digest, origin, problem, repository}: VerifyReport['bad'][number]): string =>
  `  ${origin === 'local' ? 'PUSHED HERE' : 'copy'}: ${kind} ${repository === undefined ? '' : `${repository}@`}${digest} is ${problem}`;

const ofCopies = (dryRun: boolean): string =>
  dryRun ? 'A run without --dry-run sets them aside.' : 'The next pull fetches them again.';

const ofSizes = (dryRun: boolean): string =>
  dryRun ? 'A run without --dry-run corrects them.' : 'They are corrected.';

const ofLocal = (dryRun: boolean): string =>
  dryRun
    ? 'A run without --dry-run sets damaged blobs aside.'
    : 'Push it again, or restore a backup; damaged blobs are kept in quarantine/local of the blob store.';

/**
 * `backref verify`: hashes everything that is stored.
 * @returns the exit code: 0 when nothing is bad, 1 when something is or the command failed, 2 for a faulty configuration,
 * 130 or 143 after a signal.
 */
export const verify = ({dryRun = false, ...flags}: VerifyFlags, io: CommandIo): Promise<number> =>
  runCommand<VerifyCounts & {done: number}, VerifyReport>(flags, io, {
    wording: wording(dryRun),
    check: expectStore,
    run: (commands, _config, task) => commands.verify({...task, dryRun}),
    exitCodeOf: (result) => (badIn(result) > 0 ? 1 : 0),
  });
