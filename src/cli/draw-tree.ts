import type {ReferrerNode} from '../artifact/tree.ts';

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
const SHORT = 12;
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

const shortDigest = (digest: string): string => digest.slice(0, digest.indexOf(':') + 1 + SHORT);

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

/** What a registry says is shown without what a terminal would obey. */
const printable = (text: string): string => text.replaceAll(/\p{Cc}|\p{Cf}/gu, '?');

const lineOf = ({artifactType, digest, size, annotations}: ReferrerNode, now: number): string =>
  [
    printable(artifactType ?? 'no artifact type'),
    shortDigest(digest),
    humanSize(size),
    humanAge(annotations?.[CREATED], now),
  ]
    .filter((part) => part !== '')
    .join('  ');

function* draw(nodes: readonly ReferrerNode[], indent: string, now: number): Generator<string> {
  for (const [index, node] of nodes.entries()) {
    const isLast = index === nodes.length - 1;
    yield `${indent}${isLast ? '└── ' : '├── '}${lineOf(node, now)}`;
    yield* draw(node.referrers, `${indent}${isLast ? '    ' : '│   '}`, now);
  }
}

/**
 * Trees for people, each subject under its own heading.
 * @param name of the repository or layout.
 * @param now milliseconds since the epoch.
 */
export function drawTree(name: string, sections: readonly Section[], now: number): string {
  const texts = sections.map(({digest, platform, referrers}) => {
    const heading = platform === undefined ? `${name}@${digest}` : `${printable(platform)}  ${digest}`;
    const lines = referrers.length === 0 ? ['└── no referrers'] : [...draw(referrers, '', now)];
    return [heading, ...lines, ''].join('\n');
  });
  return texts.join('\n');
}
