import {isDigest} from '../oci/digest.ts';
import type {ConfigOptions} from './configuration.ts';
import {humanAge} from './draw-tree.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, failed} from './report.ts';
import {drawTable} from './table.ts';

interface WhoFlags extends ConfigOptions {
  json?: boolean;
}

interface PullList {
  digest: string;
  pulls: readonly {caller: string; repository: string; address: string | null; last: string; pulls: number}[];
}

const COLUMNS = [
  {title: 'REPOSITORY', align: 'start'},
  {title: 'CALLER', align: 'start'},
  {title: 'ADDRESS', align: 'start'},
  {title: 'PULLS', align: 'end'},
  {title: 'LAST', align: 'start'},
] as const;

function listOf({digest, pulls}: PullList, width: number | undefined): string {
  if (pulls.length === 0) return `Nobody pulled ${digest}, as far as is remembered.`;
  const now = Date.now();
  const rows = pulls.map(({caller, repository, address, last, pulls: times}) => [
    repository,
    caller,
    address ?? 'unknown',
    String(times),
    humanAge(last, now),
  ]);
  return drawTable(COLUMNS, rows, width).join('\n');
}

/**
 * `backref who`: lists who pulled a manifest or a blob.
 * @returns the exit code: 0; 1 when nobody did, or the command failed; 2 for a digest that is not valid, or a faulty
 * configuration.
 */
export async function who(digest: string, flags: WhoFlags, io: CommandIo): Promise<number> {
  if (!isDigest(digest)) {
    failed(`"${digest}" is not a digest: write sha256: and 64 hexadecimal digits in lower case`, flags, io);
    return 2;
  }
  return runCommand<never, PullList>(flags, io, {
    wording: {progress: () => [0, ''], result: (list) => listOf(list, io.stdout.columns)},
    check: expectStore,
    run: (commands) => commands.who({digest}),
    exitCodeOf: ({pulls}) => (pulls.length > 0 ? 0 : 1),
  });
}
