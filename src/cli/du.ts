import type {ConfigOptions} from './configuration.ts';
import {humanAge, humanSize} from './draw-tree.ts';
import {imageLabel, type LabelledImage} from './image-label.ts';
import {expectStore, runCommand} from './live-commands.ts';
import {type CommandIo, count, misused, number} from './report.ts';
import {type Column, drawTable} from './table.ts';

export interface DuFlags extends ConfigOptions {
  by: string;
  /** A number of lines. */
  top: string;
  json?: boolean;
}

interface UsageLine extends LabelledImage {
  images: number;
  uniqueBytes: number;
  sharedBytes: number;
  uses: number;
  lastUsed: string;
  place?: number;
  kept?: 'local' | 'pinned' | 'newest';
}

interface Totals {
  images: number;
  blobs: number;
  spools: number;
  quarantine: number;
  database: number;
  used: number;
  limit?: number;
  high?: number;
  unrooted: {blobs: number; bytes: number};
}

interface UsageReport {
  lines: readonly UsageLine[];
  more: {lines: number; uniqueBytes: number};
  totals: Totals;
}

const UNITS = ['registry', 'repository', 'image'] as const;
type Unit = (typeof UNITS)[number];

const isUnit = (text: string): text is Unit => (UNITS as readonly string[]).includes(text);

const PLURALS: Record<Unit, string> = {registry: 'registries', repository: 'repositories', image: 'images'};

/** Why it is never evicted, in the place of its place. */
const KEPT: Record<NonNullable<UsageLine['kept']>, string> = {
  local: 'pushed here',
  pinned: 'pinned',
  newest: 'cache.keep',
};

const unfinished = ({done, manifests}: {done: number; manifests: number}): [number, string] => [
  done,
  `looked at ${count(manifests, 'manifest')}`,
];

const columnsFor = (by: Unit): Column[] => [
  {title: by.toUpperCase(), align: 'start'},
  ...(by === 'image' ? [] : [{title: 'IMAGES', align: 'end'} as const]),
  {title: 'UNIQUE', align: 'end'},
  {title: 'SHARED', align: 'end'},
  {title: 'USES', align: 'end'},
  {title: 'LAST USE', align: 'start'},
  {title: 'EVICTION', align: 'start'},
];

const rowOf = (line: UsageLine, by: Unit, now: number): string[] => [
  imageLabel(line),
  ...(by === 'image' ? [] : [number(line.images)]),
  humanSize(line.uniqueBytes),
  humanSize(line.sharedBytes),
  number(line.uses),
  humanAge(line.lastUsed, now),
  line.kept ? KEPT[line.kept] : number(line.place ?? 0),
];

function reportOf({lines, more, totals}: UsageReport, by: Unit, width: number | undefined): string {
  const now = Date.now();
  const rows = lines.map((line) => rowOf(line, by, now));
  const rest = count(more.lines, `more ${by}`, `more ${PLURALS[by]}`);
  return [
    ...(rows.length > 0 ? [...drawTable(columnsFor(by), rows, width), ''] : []),
    ...(more.lines > 0 ? [`${rest}: ${humanSize(more.uniqueBytes)} unique.`] : []),
    ...summaryOf(totals),
  ].join('\n');
}

function summaryOf({images, blobs, spools, quarantine, database, unrooted, ...disk}: Totals): string[] {
  const {used, limit, high} = disk;
  const bound =
    limit === undefined || high === undefined
      ? 'nothing limits it'
      : `the limit is ${humanSize(limit)}, and eviction begins above ${humanSize(high)}`;
  return [
    `${count(images, 'image')}. On the disk: blobs ${humanSize(blobs)}, unfinished transfers ${humanSize(spools)}, quarantine ${humanSize(quarantine)}, database ${humanSize(database)}.`,
    `In use: ${humanSize(used)}; ${bound}.`,
    ...(unrooted.blobs > 0
      ? [`Needed by no image: ${count(unrooted.blobs, 'blob')}, ${humanSize(unrooted.bytes)}. They go first.`]
      : []),
  ];
}

/**
 * `backref du`: what the disk is used for, and in which order images are evicted.
 * @returns the exit code: 0; 1 when the command failed, 2 for wrong arguments or a faulty configuration, 130 or 143 after
 * a signal.
 */
export async function du({by, top: text, ...flags}: DuFlags, io: CommandIo): Promise<number> {
  const top = Number(text);
  if (!isUnit(by)) return misused(`--by "${by}" is not known: write ${UNITS.join(', ')}.`, flags, io);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(top)) {
    return misused(`--top "${text}" is not a number of lines: write a whole number, such as 20.`, flags, io);
  }
  return runCommand<{done: number; manifests: number}, UsageReport>(flags, io, {
    wording: {progress: unfinished, result: (report) => reportOf(report, by, io.stdout.columns)},
    check: expectStore,
    run: (commands, _config, task) => commands.usage({by, top, ...task}),
  });
}
