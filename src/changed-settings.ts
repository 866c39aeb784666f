import {isDeepStrictEqual} from 'node:util';

/**
 * The settings that differ between two configurations, each by its path: `listen.port`.
 * @param path where these two stand.
 */
export function changedSettings(before: unknown, after: unknown, path = ''): string[] {
  if (isDeepStrictEqual(before, after)) return [];
  if (!isSection(before) || !isSection(after)) return [path];
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) =>
    changedSettings(before[key], after[key], path === '' ? key : `${path}.${key}`),
  );
}

const isSection = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
