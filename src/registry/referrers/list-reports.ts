import type {SkippedReferrer} from '../../oci/referrers.ts';
import {DiskFull} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type CacheReport, PARTIAL} from '../freshness.ts';
import type {Route} from '../namespace.ts';

/** Skipped entries that a warning names. */
const MAX_NAMED = 3;

export interface Obstacle {
  kind: string;
  reason: string;
}

/** Why there is no newer list than the one that is here, where that is a reason to serve it. */
export function obstacleIn(error: unknown): Obstacle | undefined {
  if (error instanceof DiskFull) return {kind: 'no-room', reason: 'there is no room to keep a newer list'};
  if (!(error instanceof UpstreamFailure) || error.kind === 'denied') return undefined;
  return {kind: error.kind, reason: error.message};
}

/** How old a list is, as a report says it. @param age and ttl in milliseconds; the result in seconds */
export const agedBy = (age: number, ttl: number): {ttl: number; age: number} => ({
  ttl: Math.ceil((ttl - Math.max(0, age)) / 1000),
  age: Math.floor(Math.max(0, age) / 1000),
});

/** Of the last known list, served because there is no newer one. @param checkedAt milliseconds since the epoch */
export const staleReport = (
  aged: {ttl: number; age: number},
  {kind, reason}: Obstacle,
  checkedAt: number,
): CacheReport => ({
  how: 'stale',
  ...aged,
  detail: kind,
  warning: `${reason}; serving the referrers listed at ${new Date(checkedAt).toISOString()}`,
});

/** Marks the report of a list that is not the whole one. */
export function withSkipped(
  report: CacheReport,
  {registry}: Route,
  skipped: readonly SkippedReferrer[],
): CacheReport {
  if (skipped.length === 0) return report;
  return {...report, detail: PARTIAL, warning: skippedText(registry.upstream.host, skipped)};
}

/** Says which entries are not on a list, and why. */
export function skippedText(host: string, skipped: readonly SkippedReferrer[]): string {
  const named = skipped.slice(0, MAX_NAMED).map(({digest, reason}) => `${digest}: ${reason}`);
  const further = skipped.length > MAX_NAMED ? [`${skipped.length - MAX_NAMED} more`] : [];
  return `the list is incomplete: ${skipped.length} of the referrers that ${host} names could not be verified (${[...named, ...further].join('; ')})`;
}
