import type {ConfigOptions} from './configuration.ts';
import {humanAge} from './draw-tree.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, count} from './report.ts';
import {drawTable} from './table.ts';

interface PinFlags extends ConfigOptions {
  json?: boolean;
}

interface Pinned {
  pins: readonly {image: string; isHere: boolean; wasPinned: boolean}[];
}

interface Unpinned {
  pins: readonly {image: string; wasPinned: boolean; configured: readonly string[]}[];
}

interface PinList {
  images: readonly {image: string; since: string; isHere: boolean}[];
  patterns: readonly {pattern: string; images: number}[];
}

const unfinished = ({done, manifests}: {done: number; manifests: number}): [number, string] => [
  done,
  `looked at ${count(manifests, 'manifest')}`,
];

const afterPin = ({pins}: Pinned): string =>
  pins
    .map(({image, isHere, wasPinned}) => {
      const state = wasPinned ? 'was pinned already' : 'is pinned';
      return `${image} ${state}${isHere ? '.' : '. It is not here: its next pull brings it.'}`;
    })
    .join('\n');

const afterUnpin = ({pins}: Unpinned): string =>
  pins
    .map(({image, wasPinned, configured}) => {
      const state = wasPinned ? `${image} is no longer pinned` : `${image} was not pinned by "backref pin"`;
      if (configured.length === 0) return `${state}.`;
      return `${state}, but the configuration pins it: remove ${configured.join(', ')} from "pins" there.`;
    })
    .join('\n');

function listOf({images, patterns}: PinList, width: number | undefined): string {
  if (images.length + patterns.length === 0) return 'Nothing is pinned.';
  const now = Date.now();
  const rows = [
    ...images.map(({image, since, isHere}) => [image, humanAge(since, now), isHere ? 'yes' : 'no']),
    ...patterns.map(({pattern, images: here}) => [pattern, 'configuration', count(here, 'image')]),
  ];
  const columns = ['PINNED', 'SINCE', 'HERE'].map((title) => ({title, align: 'start' as const}));
  return drawTable(columns, rows, width).join('\n');
}

/**
 * `backref pin`: keeps images from being evicted; without names, lists what is pinned.
 * @returns the exit code: 0; 1 when the command failed, as for a name that is not valid; 2 for a faulty configuration, 130
 * or 143 after a signal.
 */
export function pin(images: readonly string[], flags: PinFlags, io: CommandIo): Promise<number> {
  if (images.length === 0) return listPins(flags, io);
  return runCommand<never, Pinned>(flags, io, {
    wording: {progress: unfinished, result: afterPin},
    check: expectStore,
    run: (commands) => commands.pin({images}),
  });
}

const listPins = (flags: PinFlags, io: CommandIo): Promise<number> =>
  runCommand<{done: number; manifests: number}, PinList>(flags, io, {
    wording: {progress: unfinished, result: (list) => listOf(list, io.stdout.columns)},
    check: expectStore,
    run: (commands, _config, task) => commands.pins(task),
  });

/**
 * `backref unpin`: ends pins.
 * @returns the exit code, as `pin`; 1 also when one of the images was not pinned.
 */
export const unpin = (images: readonly string[], flags: PinFlags, io: CommandIo): Promise<number> =>
  runCommand<never, Unpinned>(flags, io, {
    wording: {progress: unfinished, result: afterUnpin},
    check: expectStore,
    run: (commands) => commands.unpin({images}),
    exitCodeOf: ({pins}) => (pins.every(({wasPinned}) => wasPinned) ? 0 : 1),
  });
