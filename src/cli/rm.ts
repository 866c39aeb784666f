import type {ConfigOptions} from './configuration.ts';
import {humanSize} from './draw-tree.ts';
import {imageLabel, type LabelledImage} from './image-label.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, count} from './report.ts';

export interface RmFlags extends ConfigOptions {
  dryRun?: boolean;
  json?: boolean;
}

interface RemovalCounts {
  removed: number;
  bytes: number;
}

interface RemovalResult extends RemovalCounts {
  spared: number;
  removedImages: readonly (LabelledImage & {bytes: number})[];
  sparedImages: readonly (LabelledImage & {reason: Reason})[];
  unmatched: readonly string[];
}

type Reason = 'local' | 'pinned' | 'newest' | 'busy';

/** Why an image stays, and what to do about it. */
const REASONS: Record<Reason, string> = {
  local: 'it was pushed here, or is part of what was. Delete it through the registry: DELETE its manifest.',
  pinned: 'it is pinned. Run "backref unpin", or remove it from "pins" in the configuration.',
  newest: '"cache.keep" in the configuration keeps it.',
  busy: 'it is being pulled. Run the command again.',
};

const wording = (dryRun: boolean) => ({
  progress: ({done, removed, bytes}: RemovalCounts & {done: number}): [number, string] => [
    done,
    `removed ${count(removed, 'image')}, ${humanSize(bytes)}`,
  ],
  result({removed, spared, bytes, removedImages, sparedImages, unmatched}: RemovalResult): string {
    const images = count(removed, 'image');
    return [
      ...removedImages.map((image) => `${imageLabel(image)}: ${humanSize(image.bytes)}`),
      ...more(removed - removedImages.length),
      ...sparedImages.map((image) => `${imageLabel(image)} stays: ${REASONS[image.reason]}`),
      ...more(spared - sparedImages.length),
      ...unmatched.map((text) => `No image here matches ${text}.`),
      dryRun
        ? `Would remove ${images} and free ${humanSize(bytes)}.`
        : `Removed ${images} and freed ${humanSize(bytes)}.`,
    ].join('\n');
  },
});

const more = (unlisted: number): string[] => (unlisted > 0 ? [`and ${unlisted} more`] : []);

/**
 * `backref rm`: evicts copies of images, whatever their place in the order.
 * @returns the exit code: 0; 1 when one of the names or patterns matches nothing, or the command failed; 2 for a faulty
 * configuration; 130 or 143 after a signal.
 */
export const rm = (
  images: readonly string[],
  {dryRun = false, ...flags}: RmFlags,
  io: CommandIo,
): Promise<number> =>
  runCommand<RemovalCounts & {done: number}, RemovalResult>(flags, io, {
    wording: wording(dryRun),
    check: expectStore,
    run: (commands, _config, task) => commands.remove({images, dryRun, ...task}),
    exitCodeOf: ({unmatched}) => (unmatched.length > 0 ? 1 : 0),
  });
