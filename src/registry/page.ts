import {setImmediate as nextTurn} from 'node:timers/promises';

export interface PageQuery {
  /** The largest number of entries; undefined: all, up to the limit. */
  n: number | undefined;
  /** The page begins after this entry, which need not exist. */
  last: string | undefined;
}

export interface Page {
  entries: string[];
  /** `last` of the next page, when there is more. */
  next: string | undefined;
}

/** The largest page: a larger `n` is clamped to it. */
export const MAX_ENTRIES = 10_000;

/** Orders entries by their bytes, which the specification calls lexical order. */
export const byBytes = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/**
 * Cuts a page out of entries that are sorted by bytes. dist-spec, Listing Tags: `n=0` is an empty list without a
 * link; `last` is a position, not necessarily an entry.
 */
export function pageOf(sorted: readonly string[], {n, last}: PageQuery): Page {
  const from = last === undefined ? 0 : firstAfter(sorted, last);
  const limit = Math.min(n ?? MAX_ENTRIES, MAX_ENTRIES);
  const entries = sorted.slice(from, from + limit);
  const more = limit > 0 && from + limit < sorted.length;
  return {entries, next: more ? entries.at(-1) : undefined};
}

function firstAfter(sorted: readonly string[], last: string): number {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (byBytes(sorted[middle] ?? '', last) <= 0) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Entries whose visibility is decided before other requests run. */
const ENTRIES_PER_TURN = 1000;

/** The entries that are visible, in their order. Other requests run meanwhile, however many there are. */
export async function visibleInSteps(
  entries: readonly string[],
  isVisible: (entry: string) => boolean,
): Promise<string[]> {
  const visible: string[] = [];
  for (let at = 0; at < entries.length; at += ENTRIES_PER_TURN) {
    if (at > 0) await nextTurn();
    visible.push(...entries.slice(at, at + ENTRIES_PER_TURN).filter(isVisible));
  }
  return visible;
}
