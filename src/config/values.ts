import * as z from 'zod';
import type {VolumeSize} from '../config.ts';
import {parseImageGlob, parseNameGlob, parseRepositoryGlob, parseTagGlob} from '../oci/image-glob.ts';
import {parseHost, parseNetwork, parseUpstreamUrl} from './host.ts';
import {FOREVER, formatDuration, formatSize, parseDuration, parsePercentage, parseSize} from './units.ts';

/** A scalar setting. @param parse gives its value, or undefined when that is not allowed. */
export const scalar = <T>(allowed: string, parse: (value: unknown) => T | undefined) =>
  z.unknown().transform((value, context): T => {
    const result = parse(value);
    if (result !== undefined) return result;
    context.addIssue(value === undefined ? `is missing: it ${allowed}` : allowed);
    return z.NEVER;
  });

export const mapping = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.strictObject(shape, {
    error: ({code, input}) => {
      if (code !== 'invalid_type') return undefined;
      const keys = Object.keys(shape).join(', ');
      return input === undefined
        ? `is missing: it must be a mapping of ${keys}`
        : `must be a mapping of ${keys}`;
    },
  });

export const list = <Item extends z.ZodType>(item: Item) =>
  z.array(item, {error: 'must be a list, e.g. [one, two]'});

/**
 * A mapping, or a list of them. `shapeFaults` reports what is wrong with the one that was written.
 * @param keys what the mapping has, for a value that is neither
 */
export const oneOrMany = <One extends z.ZodType, Item extends z.ZodType>(
  one: One,
  item: Item,
  keys: string,
) => z.union([one, list(item)], {error: `must be a mapping of ${keys}, or a list of such mappings`});

/** A list of texts; one text is a list of one. */
export const textOrList = <Item extends z.ZodType>(item: Item) =>
  z.preprocess((value) => (typeof value === 'string' ? [value] : value), list(item));

export const text = scalar('must be text; put a number in quotes', (value) =>
  typeof value === 'string' && value !== '' ? value : undefined,
);

export const path = scalar('must be a path; "~" is not expanded, write ${HOME}', (value) =>
  typeof value === 'string' && value !== '' && !value.startsWith('~') ? value : undefined,
);

export const host = scalar(
  'must be a host with an optional port in lower case, e.g. ghcr.io or registry.local:5000',
  parseHost,
);

export const proxy = scalar(
  'must be an address or a network, e.g. 10.0.0.1 or 10.0.0.0/8, or unix for the peers of a Unix socket',
  (value) => (value === 'unix' ? value : parseNetwork(value)),
);

/** The mode of a file. YAML reads 0660 without quotes as the number 660, and 0o660 as 432. */
export const fileMode = scalar(
  'must be the mode of a file as octal digits in quotes, e.g. "0660"',
  (value) =>
    typeof value === 'string' && /^0?[0-7]{3}$/.test(value) ? Number.parseInt(value, 8) : undefined,
);

/** In an environment variable, commas separate the items of a list. */
export const splitText = (value: unknown): unknown =>
  typeof value === 'string' ? value.split(',').map((item) => item.trim()) : value;

/** In an environment variable, spaces separate the patterns of a list: a pattern may have commas. */
export const splitWords = (value: unknown): unknown =>
  typeof value === 'string' ? value.split(/\s+/).filter((word) => word !== '') : value;

/** In an environment variable, `docker.io/library/*=3` keeps the newest three. */
export const splitKept = (value: unknown): unknown =>
  typeof value !== 'string'
    ? value
    : (splitWords(value) as string[]).map((word) => {
        const [match, newest] = word.split('=');
        return {match, newest};
      });

export const flag = scalar('must be true or false', (value) =>
  String(value) === 'true' ? true : String(value) === 'false' ? false : undefined,
);

/** A number, or its digits when it comes from a variable. */
export const integer = (min: number, max: number) =>
  scalar(`must be a whole number from ${min} to ${max}`, (value) => {
    if (typeof value !== 'number' && !(typeof value === 'string' && /^\d+$/.test(value))) return undefined;
    const number = Number(value);
    return Number.isInteger(number) && number >= min && number <= max ? number : undefined;
  });

export const choice = <const T extends string | number>(...values: readonly T[]) =>
  scalar(`must be ${values.join(' or ')}`, (value) =>
    values.find((known) => String(known) === String(value)),
  );

/** A whole number, or `off` for no limit. */
export const countOrOff = (min: number, max: number) => countOr('off', min, max);

/** A whole number, or one word. */
export const countOr = <const Word extends string>(word: Word, min: number, max: number) =>
  scalar(`must be ${word} or a whole number from ${min} to ${max}`, (value) => {
    if (value === word) return word;
    const number = /^\d{1,15}$/.test(String(value)) ? Number(value) : Number.NaN;
    return number >= min && number <= max ? number : undefined;
  });

export const duration = (min: number, max: number) =>
  scalar(
    `must be a duration from ${formatDuration(min)} to ${formatDuration(max)}, written 500ms, 60s, 5m, 12h or 7d`,
    (value) => {
      const ms = parseDuration(value);
      return ms !== undefined && ms >= min && ms <= max ? ms : undefined;
    },
  );

/** A duration, or `forever` for the longest. @param max milliseconds */
export const durationOrForever = (max: number) =>
  scalar(
    `must be forever or a duration from 0 to ${formatDuration(max)}, written 500ms, 60s, 5m, 12h or 7d`,
    (value) => {
      const ms = value === FOREVER ? max : parseDuration(value);
      return ms !== undefined && ms <= max ? ms : undefined;
    },
  );

const size = (allowed: string, min: number, max: number) =>
  scalar(`must be a size ${allowed}, written 256MiB, 1GB or as bytes`, (value) => {
    const bytes = parseSize(value);
    return bytes !== undefined && bytes >= min && bytes <= max ? bytes : undefined;
  });

export const sizeOf = (min: number) => size(`of at least ${formatSize(min)}`, min, Number.MAX_SAFE_INTEGER);
export const sizeBetween = (min: number, max: number) =>
  size(`from ${formatSize(min)} to ${formatSize(max)}`, min, max);

/** A size, or `off` for no limit. */
export const sizeOrOff = (min: number) =>
  scalar(`must be off or a size of at least ${formatSize(min)}, written 256MiB, 1GB or as bytes`, (value) => {
    if (value === 'off') return 'off' as const;
    const bytes = parseSize(value);
    return bytes !== undefined && bytes >= min ? bytes : undefined;
  });

const VOLUME_SIZE = 'a size, written 256MiB or as bytes, or a share of the volume, written 80%';

function parseVolumeSize(value: unknown): VolumeSize | undefined {
  const percent = parsePercentage(value);
  if (percent !== undefined) return {percent};
  const bytes = parseSize(value);
  return bytes === undefined ? undefined : {bytes};
}

/** A size in bytes, or a percentage of the volume. */
export const volumeSize = scalar(`must be ${VOLUME_SIZE}`, parseVolumeSize);

/** The same of at least `min` bytes or one percent, or `off`. */
export const volumeSizeOrOff = (min: number) =>
  scalar(`must be off, or ${VOLUME_SIZE}, of at least ${formatSize(min)} or 1%`, (value) => {
    if (value === 'off') return 'off' as const;
    const size = parseVolumeSize(value);
    return size && ('percent' in size ? size.percent >= 1 : size.bytes >= min) ? size : undefined;
  });

export const percentage = (min: number, max: number) =>
  scalar(`must be a percentage from ${min}% to ${max}%`, (value) => {
    const percent = parsePercentage(value);
    return percent !== undefined && percent >= min && percent <= max ? percent : undefined;
  });

/** A pattern for repositories. */
export const repositoryGlob = scalar(
  'must be registry/repository, in which * stands for a path component and ** for any number of them, e.g. docker.io/library/*',
  (value) => (typeof value === 'string' && parseRepositoryGlob(value) ? value : undefined),
);

/** A pattern for images. */
export const imageGlob = scalar(
  'must be registry/repository with an optional :tag or @digest, in which * stands for a path component and ** for any number of them, e.g. docker.io/library/alpine:3.*',
  (value) => (typeof value === 'string' && parseImageGlob(value) ? value : undefined),
);

/** A pattern for the repositories of one registry. */
export const nameGlob = scalar(
  'must be the name of a repository without the registry, in which * stands for a path component and ** for any number of them, e.g. library/* or team/**',
  (value) => (typeof value === 'string' && parseNameGlob(value) ? value : undefined),
);

/** A pattern for the tags of one registry. */
export const tagGlob = scalar(
  'must be a pattern for tags, or repository:tag without the registry, e.g. v[0-9]* or library/alpine:3.*; all tags of a repository are library/alpine:*',
  (value) => (typeof value === 'string' && parseTagGlob(value) ? value : undefined),
);

export const auditTarget = scalar(
  'must be off, stdout or the path of a file; "~" is not expanded, write ${HOME}',
  (value) => (typeof value === 'string' && value !== '' && !value.startsWith('~') ? value : undefined),
);

/** A duration, or 0 for never. @param min milliseconds, as `max` */
export const durationOrNever = (min: number, max: number) =>
  scalar(
    `must be 0 or a duration from ${formatDuration(min)} to ${formatDuration(max)}, written 12h or 7d`,
    (value) => {
      const ms = parseDuration(value);
      return ms === 0 || (ms !== undefined && ms >= min && ms <= max) ? ms : undefined;
    },
  );

export const url = z.unknown().transform((value, context): string => {
  const result = parseUpstreamUrl(value);
  if ('url' in result) return result.url;
  context.addIssue(result.problem);
  return z.NEVER;
});
