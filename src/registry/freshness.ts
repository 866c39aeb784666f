import type {Outcome} from '../events.ts';

/** How long answers that age may be used. Milliseconds. */
export interface TagPolicy {
  /** An answer younger than this is used without asking. */
  readonly ttl: number;
  /** While the upstream fails, an answer checked within this time is served, marked stale. */
  readonly maxStale: number;
  /** A tag that the upstream deleted is served for so long after that was first seen; 0 turns it off. */
  readonly keepDeleted: number;
  /** An absence is remembered for so long. */
  readonly absentTtl: number;
}

export interface Aging {
  /** When the upstream was asked for the last answer about it; milliseconds since the epoch. */
  checkedAt: number;
  /** When the upstream first said that it is gone. */
  goneAt?: number | undefined;
}

export interface FreshnessQuestion {
  now: number;
  known: Aging;
  policy: TagPolicy;
  /** What came of asking the upstream; `unasked` before that. */
  upstream: 'unasked' | 'failed' | 'absent';
  /** The request says `Cache-Control: no-cache`. */
  noCache?: boolean;
}

/**
 * - `fresh`: serve without asking.
 * - `revalidate`: ask the upstream first.
 * - `stale`: serve, marked as stale.
 * - `gone`: there is nothing left that may be served.
 */
export type Freshness = 'fresh' | 'revalidate' | 'stale' | 'gone';

/** Whether what is known answers a question asked after `askedAt`. A time that is yet to come says nothing. Pure. */
export const isLater = ({checkedAt}: Pick<Aging, 'checkedAt'>, askedAt: number, now: number): boolean =>
  checkedAt > askedAt && checkedAt <= now;

/** Even `no-cache` asks the upstream at most once a second per tag. */
export const NO_CACHE_FLOOR = 1000;

/**
 * The one place that decides how old an answer may be. Pure. A time from the future, as a clock leaves behind that was
 * set back, says nothing about the answer's age: the upstream is asked before it is used.
 */
export function freshness({now, known, policy, upstream, noCache = false}: FreshnessQuestion): Freshness {
  const age = Math.max(0, now - known.checkedAt);
  const kept = (goneAt: number): Freshness =>
    Math.max(0, now - goneAt) < policy.keepDeleted ? 'stale' : 'gone';
  if (upstream === 'absent') return kept(known.goneAt ?? now);
  if (upstream === 'failed') {
    if (age > policy.maxStale) return 'gone';
    return known.goneAt === undefined ? 'stale' : kept(known.goneAt);
  }
  const fresh = known.checkedAt <= now && age < (noCache ? Math.min(NO_CACHE_FLOOR, policy.ttl) : policy.ttl);
  if (!fresh) return 'revalidate';
  return known.goneAt === undefined ? 'fresh' : kept(known.goneAt);
}

/** How an answer came about: what `Cache-Status` (RFC 9211), `Age` and `Warning` are made of. */
export interface CacheReport {
  /** `hit`, or why the upstream was asked. */
  readonly how: 'hit' | 'uri-miss' | 'stale' | 'request';
  /** Seconds of freshness left; negative for a stale answer. */
  readonly ttl?: number;
  /** Seconds since the upstream last answered for it. */
  readonly age?: number;
  readonly stored?: boolean;
  /** The upstream's answer was shared with other requests. */
  readonly collapsed?: boolean;
  readonly detail?: string;
  /** Text of the `Warning: 299` that marks an answer that may no longer be right. */
  readonly warning?: string;
}

/** The `detail` of a list from which entries had to be left out. */
export const PARTIAL = 'partial';

export const HIT: CacheReport = Object.freeze({how: 'hit'});
export const MISS: CacheReport = Object.freeze({how: 'uri-miss'});

/** The same in a word, for counting. */
export function outcomeOf({how, collapsed, warning, detail}: CacheReport): Outcome {
  if (how === 'hit') return 'hit';
  if (warning !== undefined && detail !== PARTIAL) return 'stale';
  if (detail === 'unchanged') return 'revalidated';
  return collapsed ? 'collapsed' : 'miss';
}
