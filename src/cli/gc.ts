import {parseDuration} from '../config/units.ts';
import type {ConfigOptions} from './configuration.ts';
import {humanSize} from './draw-tree.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, count, misused} from './report.ts';

export interface GcFlags extends ConfigOptions {
  /** A duration; default the configuration's. */
  grace?: string;
  json?: boolean;
}

interface GarbageCounts {
  uploads: number;
  indexes: number;
  links: number;
  manifests: number;
  blobs: number;
  bytes: number;
}

const wording = {
  progress: ({done, manifests, blobs, bytes}: GarbageCounts & {done: number}): [number, string] => [
    done,
    `removed ${count(manifests, 'manifest')}, ${count(blobs, 'blob')}, ${humanSize(bytes)}`,
  ],
  result: ({uploads, indexes, links, manifests, blobs, bytes}: GarbageCounts): string =>
    [
      `Removed ${count(manifests, 'manifest')} and ${count(blobs, 'blob')} that nothing refers to: ${count(bytes, 'byte')}.`,
      `Also dropped: ${count(links, 'pushed blob')} that no manifest names, ${count(uploads, 'expired upload')}, ${count(indexes, 'generated fallback list')}.`,
    ].join('\n'),
};

/**
 * `backref gc`: removes content that nothing refers to.
 * @returns the exit code: 0 when it is removed, 1 when not, 2 for wrong arguments or a faulty configuration, 130 or 143
 * after a signal.
 */
export async function gc({grace: text, ...flags}: GcFlags, io: CommandIo): Promise<number> {
  const grace = text === undefined ? undefined : parseDuration(text);
  if (text !== undefined && grace === undefined) {
    return misused(`--grace "${text}" is not a duration: write 500ms, 60s, 5m, 12h, 7d or 0.`, flags, io);
  }
  return runCommand<GarbageCounts & {done: number}, GarbageCounts>(flags, io, {
    wording,
    check: expectStore,
    run: (commands, config, task) => commands.collect({...task, grace: grace ?? config.garbage.grace}),
  });
}
