import type {ConfigOptions} from './configuration.ts';
import {humanSize} from './draw-tree.ts';
import {imagesOrFault} from './image-list.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, count, misused, number} from './report.ts';

export interface ReadyFlags extends ConfigOptions {
  file?: string;
  platform?: readonly string[];
  verify?: boolean;
  json?: boolean;
}

interface Counts {
  images: number;
  pulls: number;
  verifies: number;
}

interface Readiness {
  image: string;
  pulls: boolean;
  verifies: boolean;
  problem?: string;
  areTagsUnknown?: boolean;
  missing: readonly {kind: string; name?: string; digest?: string; size?: number}[];
  lacking: {pull: number; verify: number; bytes: number};
}

interface ReadyResult extends Counts {
  readiness: readonly Readiness[];
}

const wording = {
  progress: ({done, images, pulls, verifies}: Counts & {done: number}): [number, string] => [
    done,
    `${count(images, 'image')}: ${number(pulls)} would pull, ${number(verifies)} would verify`,
  ],
  result({images, pulls, verifies, readiness}: ReadyResult): string {
    return [
      `With the upstreams gone, ${number(pulls)} of ${count(images, 'image')} would pull, and ${number(verifies)} would verify.`,
      ...section(
        'Would not pull:',
        readiness.filter((each) => !each.pulls),
      ),
      ...section(
        'Would pull, but not verify:',
        readiness.filter((each) => each.pulls && !each.verifies),
      ),
      ...noteOnTags(readiness.filter((each) => each.pulls && each.areTagsUnknown).length),
    ].join('\n');
  },
};

const noteOnTags = (images: number): string[] =>
  images === 0
    ? []
    : [
        `Whether ${count(images, 'image')} ${images === 1 ? 'has' : 'have'} tags of cosign is not known here: set referrers.prefetch: all, which asks for them with each pull.`,
      ];

const section = (title: string, images: readonly Readiness[]): string[] =>
  images.length === 0 ? [] : [title, ...images.flatMap(linesOf)];

export function linesOf({image, problem, missing, lacking}: Readiness): string[] {
  if (problem !== undefined) return [`  ${image}: ${problem}`];
  const items = lacking.pull + lacking.verify;
  const size = lacking.bytes > 0 ? `, ${humanSize(lacking.bytes)}` : '';
  return [
    `  ${image}: ${number(items)} missing${size}`,
    ...missing.map((each) => `    ${lineOf(each)}`),
    ...(items > missing.length ? [`    and ${number(items - missing.length)} more`] : []),
  ];
}

function lineOf({kind, name, digest = '', size}: Readiness['missing'][number]): string {
  if (kind === 'list') return `the list of referrers of ${digest}`;
  return `${kind} ${name ?? digest}${size === undefined ? '' : `, ${humanSize(size)}`}`;
}

/**
 * `backref ready`: which images would pull, and which would verify, with the upstreams gone.
 * @returns the exit code: 0 when every image would pull (with `verify`: and verify); 1 when one would not, or the command
 * failed; 2 for wrong arguments or a faulty configuration; 130 or 143 after a signal.
 */
export async function ready(
  names: readonly string[],
  {file, platform: platforms = [], verify = false, ...flags}: ReadyFlags,
  io: CommandIo,
): Promise<number> {
  const images = await imagesOrFault(names, {file, platforms}, io);
  if (typeof images === 'string') return misused(images, flags, io);
  return runCommand<Counts & {done: number}, ReadyResult>(flags, io, {
    wording,
    check: expectStore,
    run: (commands, _config, task) => commands.ready({images, platforms, ...task}),
    exitCodeOf: (result) => (result.images > (verify ? result.verifies : result.pulls) ? 1 : 0),
  });
}
