import {access} from 'node:fs/promises';
import {resolve} from 'node:path';
import type {ConfigOptions} from './configuration.ts';
import {humanSize} from './draw-tree.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, count, number} from './report.ts';

interface Copied {
  copied: number;
  bytes: number;
}

interface Backed extends Copied {
  manifests: number;
  tags: number;
  blobs: number;
  missing: number;
}

interface Restored {
  manifests: number;
  tags: number;
  blobs: number;
  bytes: number;
  keptTags: number;
}

const backupWording = {
  progress: ({done, copied, bytes}: Copied & {done: number}): [number, string] => [
    done,
    `copied ${number(copied)} manifests and blobs, ${humanSize(bytes)}`,
  ],
  result: ({manifests, tags, blobs, copied, bytes, missing}: Backed): string =>
    [
      `The backup has ${count(manifests, 'manifest')}, ${count(tags, 'tag')} and ${count(blobs, 'blob')}. New in it: ${number(copied)} of these, ${humanSize(bytes)}.`,
      ...(missing > 0
        ? [`Not in it, because it is not stored here: what manifests name in ${count(missing, 'place')}.`]
        : []),
    ].join('\n'),
};

const restoreWording = {
  progress: ({done, blobs, bytes}: Restored & {done: number}): [number, string] => [
    done,
    `restored ${count(blobs, 'blob')}, ${humanSize(bytes)}`,
  ],
  result: ({manifests, tags, blobs, bytes, keptTags}: Restored): string =>
    [
      `Restored ${count(manifests, 'manifest')}, ${count(tags, 'tag')} and ${count(blobs, 'blob')}: ${humanSize(bytes)}. The rest was here.`,
      ...(keptTags > 0
        ? [`Left as they are, since they point at something else here: ${count(keptTags, 'tag')}.`]
        : []),
    ].join('\n'),
};

/**
 * `backref backup`: copies everything that was pushed here into a folder.
 * @returns the exit code: 0 when the backup is complete, 1 when not, 2 for a faulty configuration, 130 or 143 after a
 * signal.
 */
export const backup = (
  folder: string,
  flags: ConfigOptions & {json?: boolean},
  io: CommandIo,
): Promise<number> =>
  runCommand<Copied & {done: number}, Backed>(flags, io, {
    wording: backupWording,
    check: expectStore,
    run: (commands, _config, task) => commands.backup({...task, folder: resolve(folder)}),
  });

/**
 * `backref restore`: brings the content of a backup into the store, which may be a new one.
 * @returns the exit code, as `backup`.
 */
export const restore = (
  folder: string,
  flags: ConfigOptions & {json?: boolean},
  io: CommandIo,
): Promise<number> =>
  runCommand<Restored & {done: number}, Restored>(flags, io, {
    wording: restoreWording,
    // Without a server, a store would be created before the mistake is noticed.
    check: () => expectFolder(folder),
    run: (commands, _config, task) => commands.restore({...task, folder: resolve(folder)}),
  });

async function expectFolder(folder: string): Promise<void> {
  await access(folder).catch(() => {
    throw new Error(`There is no folder ${resolve(folder)}: name the folder of a backup.`);
  });
}
