import {isDeepStrictEqual} from 'node:util';
import {isRecord} from './oci/json.ts';

/**
 * The settings that differ between two configurations, each by its path: `listen.port`.
 * @param path that of the two values.
 */
export function changedSettings(before: unknown, after: unknown, path = ''): string[] {
  if (isDeepStrictEqual(before, after)) return [];
  if (!isRecord(before) || !isRecord(after)) return [path];
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].flatMap((key) =>
    changedSettings(before[key], after[key], path === '' ? key : `${path}.${key}`),
  );
}
