import type {SkippedReferrer} from '../../oci/referrers.ts';
import {type CacheReport, PARTIAL} from '../freshness.ts';
import type {Route} from '../namespace.ts';

/** Skipped entries that a warning names. */
const MAX_NAMED = 3;

/** Marks the report of an incomplete list. */
export function withSkipped(
  report: CacheReport,
  {registry}: Route,
  skipped: readonly SkippedReferrer[],
): CacheReport {
  if (skipped.length === 0) return report;
  return {...report, detail: PARTIAL, warning: skippedText(registry.upstream.host, skipped)};
}

/** Says which entries are missing from a list, and why. */
export function skippedText(host: string, skipped: readonly SkippedReferrer[]): string {
  const named = skipped.slice(0, MAX_NAMED).map(({digest, reason}) => `${digest}: ${reason}`);
  const further = skipped.length > MAX_NAMED ? [`${skipped.length - MAX_NAMED} more`] : [];
  return `the list is incomplete: ${skipped.length} of the referrers that ${host} names could not be verified (${[...named, ...further].join('; ')})`;
}
