import type {ReferrerNode} from '../artifact/tree.ts';
import {printable} from './report.ts';

/** A subject with everything that refers to it. */
export interface Section {
  digest: string;
  /** Of the subject, where it is there. */
  mediaType: string | undefined;
  /** `linux/arm64` for a manifest of an index. */
  platform: string | undefined;
  referrers: ReferrerNode[];
}

const CREATED = 'org.opencontainers.image.created';
const SIZES = ['B', 'kB', 'MB', 'GB', 'TB'];
const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const AGES = [
  ['y', 365 * DAY],
  ['d', DAY],
  ['h', HOUR],
  ['min', MINUTE],
  ['s', SECOND],
] as const;

/** Bytes in decimal units with up to one digit behind the point. */
export function humanSize(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), SIZES.length - 1);
  const value = bytes / 1000 ** power;
  return `${value >= 10 || power === 0 ? Math.round(value) : value.toFixed(1)} ${SIZES[power]}`;
}

/** How long ago, in the largest unit that fits; empty for no date. @param now milliseconds since the epoch. */
export function humanAge(created: string | undefined, now: number): string {
  const at = Date.parse(created ?? '');
  if (Number.isNaN(at)) return '';
  const age = now - at;
  const [unit, length] = AGES.find(([, length]) => age >= length) ?? [];
  return unit === undefined || length === undefined ? 'now' : `${Math.floor(age / length)} ${unit} ago`;
}

const onOneLine = (text: string): string => printable(text).replaceAll('\n', '?');

/** One line of a tree: the branches and the type, then what is aligned with the other lines. */
interface Line {
  name: string;
  size: string;
  age: string;
  digest: string;
}

function* linesOf(nodes: readonly ReferrerNode[], indent: string, now: number): Generator<Line> {
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

/** The digest comes last and whole: so it can be copied, and only its line is too long for a narrow terminal. */
function align(lines: readonly Line[]): string[] {
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
 * Trees for people, each subject under its own heading.
 * @param name of the repository or layout.
 * @param now milliseconds since the epoch.
 */
export function drawTree(name: string, sections: readonly Section[], now: number): string {
  const texts = sections.map(({digest, platform, referrers}) => {
    const heading = platform === undefined ? `${name}@${digest}` : `${onOneLine(platform)}  ${digest}`;
    const lines = referrers.length === 0 ? ['└── no referrers'] : align([...linesOf(referrers, '', now)]);
    return [heading, ...lines, ''].join('\n');
  });
  return texts.join('\n');
}
