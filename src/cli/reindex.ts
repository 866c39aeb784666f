import type {ConfigOptions} from './configuration.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, number} from './report.ts';

interface ReindexCounts {
  manifests: number;
  edges: number;
  removed: number;
}

const wording = {
  progress: ({done, manifests, edges}: ReindexCounts & {done: number}): [number, string] => [
    done,
    `${number(manifests)} manifests, ${number(edges)} with a subject`,
  ],
  result: ({manifests, edges, removed}: ReindexCounts): string =>
    `Read ${number(manifests)} manifests and indexed ${number(edges)} that have a subject; removed ${number(removed)} entries without a manifest.`,
};

/**
 * `backref reindex`: rebuilds the index of referrers from the stored manifests.
 * @returns the exit code: 0 when it is rebuilt, 1 when not, 2 for a faulty configuration, 130 or 143 after a signal.
 */
export const reindex = (options: ConfigOptions & {json?: boolean}, io: CommandIo): Promise<number> =>
  runCommand<ReindexCounts & {done: number}, ReindexCounts>(options, io, {
    wording,
    check: expectStore,
    run: (commands, _config, task) => commands.reindex(task),
  });
