import type {ReferrerNode} from '../artifact/tree.ts';
import {printable} from './report.ts';

/** A subject with everything that refers to it. */
export interface SubjectTree {
  digest: string;
  /** The subject's, when it exists. */
  mediaType: string | undefined;
  /** `linux/arm64`, of a manifest in an index. */
  platform: string | undefined;
  referrers: ReferrerNode[];
}

const CREATED = 'org.opencontainers.image.created';
const SIZES = ['B', 'kB', 'MB', 'GB', 'TB'];
const SECOND_MS = 1000;
const MINUTE_MS = 60 * SECOND_MS;
const HOUR_MS = 60 * MINUTE_MS;
const DAY_MS = 24 * HOUR_MS;
const AGES = [
  ['y', 365 * DAY_MS],
  ['d', DAY_MS],
  ['h', HOUR_MS],
  ['min', MINUTE_MS],
  ['s', SECOND_MS],
] as const;

/** Bytes in decimal units, with at most one decimal place. */
export function humanSize(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), SIZES.length - 1);
  const value = bytes / 1000 ** power;
  return `${value >= 10 || power === 0 ? Math.round(value) : value.toFixed(1)} ${SIZES[power]}`;
}

/** The age of a date in the largest unit that fits; empty without a date. @param now milliseconds since the epoch. */
export function humanAge(created: string | undefined, now: number): string {
  const at = Date.parse(created ?? '');
  if (Number.isNaN(at)) return '';
  const age = now - at;
  const [unit, length] = AGES.find(([, length]) => age >= length) ?? [];
  return unit === undefined || length === undefined ? 'now' : `${Math.floor(age / length)} ${unit} ago`;
}

const onOneLine = (text: string): string => printable(text).replaceAll('\n', '?');

/** One line of a tree: the branches and the type, then columns that are aligned. */
interface TreeLine {
  name: string;
  size: string;
  age: string;
  digest: string;
}

function* linesOf(nodes: readonly ReferrerNode[], indent: string, now: number): Generator<TreeLine> {
  for (const [index, {artifactType, digest, size, annotations, referrers}] of nodes.entries()) {
    const isLast = index === nodes.length - 1;
    yield {
      name: `${indent}${isLast ? '└── ' : '├── '}${onOneLine(artifactType ?? 'no artifact type')}`,
      size: humanSize(size),
      age: humanAge(annotations?.[CREATED], now),
      digest,
    };
    yield* linesOf(referrers, `${indent}${isLast ? '    ' : '│   '}`, now);
  }
}

/** The digest comes last and is never shortened, so that it can be copied. */
function align(lines: readonly TreeLine[]): string[] {
  const [name, size, age] = (['name', 'size', 'age'] as const).map((column) =>
    Math.max(...lines.map((line) => line[column].length)),
  );
  return lines.map((line) =>
    [
      line.name.padEnd(name ?? 0),
      line.size.padStart(size ?? 0),
      ...(age === 0 ? [] : [line.age.padEnd(age ?? 0)]),
      line.digest,
    ].join('  '),
  );
}

/**
 * Draws trees for people, each subject under its own heading.
 * @param name the repository or layout.
 * @param now milliseconds since the epoch.
 */
export function drawTree(name: string, sections: readonly SubjectTree[], now: number): string {
  const texts = sections.map(({digest, platform, referrers}) => {
    const heading = platform === undefined ? `${name}@${digest}` : `${onOneLine(platform)}  ${digest}`;
    const lines = referrers.length === 0 ? ['└── no referrers'] : align([...linesOf(referrers, '', now)]);
    return [heading, ...lines, ''].join('\n');
  });
  return texts.join('\n');
}
