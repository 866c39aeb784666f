import type {Outcome} from '../events.ts';
import type {UpstreamFailure} from '../upstream/port.ts';

/** How long answers that age may be used. Milliseconds. */
export interface TagPolicy {
  /** An answer younger than this is used without asking. */
  readonly ttl: number;
  /** While the upstream fails, an answer checked within this time is served, marked stale. */
  readonly maxStale: number;
  /** How long a tag that the upstream deleted is still served, from when the deletion was first seen; 0 turns it off. */
  readonly keepDeleted: number;
  /** How long an absence is remembered. */
  readonly absentTtl: number;
}

export interface Aging {
  /** When the upstream was asked for the last answer; milliseconds since the epoch. */
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

/** Whether what is known answers a question asked after `askedAt`. A time in the future does not count. Pure. */
export const isLater = ({checkedAt}: Pick<Aging, 'checkedAt'>, askedAt: number, now: number): boolean =>
  checkedAt > askedAt && checkedAt <= now;

/** Even `no-cache` asks the upstream at most once per this time and tag. */
export const NO_CACHE_FLOOR_MS = 1000;

/**
 * The one place that decides how old an answer may be. Pure. A time in the future, as a clock that was set back leaves
 * behind, says nothing about the answer's age: the upstream is asked before the answer is used.
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
  const ttl = noCache ? Math.min(NO_CACHE_FLOOR_MS, policy.ttl) : policy.ttl;
  const isFresh = known.checkedAt <= now && age < ttl;
  if (!isFresh) return 'revalidate';
  return known.goneAt === undefined ? 'fresh' : kept(known.goneAt);
}

/**
 * The last moment at which `freshness` lets an answer be served while the upstream fails. Pure.
 * @returns milliseconds since the epoch
 */
export function servableUntil(
  {checkedAt, goneAt}: Aging,
  {maxStale, keepDeleted}: Pick<TagPolicy, 'maxStale' | 'keepDeleted'>,
): number {
  const until = checkedAt + maxStale;
  if (goneAt === undefined) return until;
  return keepDeleted === 0 ? Number.NEGATIVE_INFINITY : Math.min(until, goneAt + keepDeleted - 1);
}

/**
 * What may be served although the upstream failed. A denial is an answer: what the upstream refuses is not served.
 * @throws the failure when nothing may be
 */
export function servableDespite<Known extends Aging>(
  failure: UpstreamFailure,
  known: Known | undefined,
  policy: TagPolicy,
  now: number,
): Known {
  if (!known || failure.kind === 'denied') throw failure;
  if (freshness({now, known, policy, upstream: 'failed'}) === 'gone') throw failure;
  return known;
}

/** How long an absence counts, in milliseconds, for a request that may ask for a newer answer. */
export const absentTtl = (policy: Pick<TagPolicy, 'absentTtl'>, noCache: boolean): number =>
  noCache ? Math.min(NO_CACHE_FLOOR_MS, policy.absentTtl) : policy.absentTtl;

/** How an answer came about: the source of `Cache-Status` (RFC 9211), `Age` and `Warning`. */
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
  /** How long a hit goes on to be reported like this. Undefined: it has to be looked at each time. */
  readonly steady?: Steady;
}

/** Between which times a report stays the same. Milliseconds since the epoch, `until` excluded. */
export interface Steady {
  readonly from: number;
  readonly until: number;
  /** By which the later reports are known. Undefined where none differs. */
  readonly lifespan?: Lifespan;
}

/** How long a checked answer is used, and what is reported of it meanwhile. Milliseconds. Plain data. */
export interface Lifespan {
  /** Milliseconds since the epoch, as `until`. */
  readonly checkedAt: number;
  readonly ttl: number;
  /** Without the rate limit of the upstream. */
  readonly configuredTtl: number;
  /** It has to be looked at again from then on. */
  readonly until: number;
}

export const ALWAYS: Steady = Object.freeze({
  from: Number.NEGATIVE_INFINITY,
  until: Number.POSITIVE_INFINITY,
});

/** The `detail` of a list from which entries had to be left out. */
export const PARTIAL = 'partial';

/** Of what does not age. */
export const HIT: CacheReport = Object.freeze({how: 'hit', steady: ALWAYS});
export const MISS: CacheReport = Object.freeze({how: 'uri-miss'});

/** How old an answer is and how long it stays fresh, as a report says it. Milliseconds in, seconds out. */
export const ageOf = (age: number, ttl: number): Required<Pick<CacheReport, 'ttl' | 'age'>> => ({
  ttl: Math.ceil((ttl - Math.max(0, age)) / 1000),
  age: Math.floor(Math.max(0, age) / 1000),
});

/**
 * The report of an answer that is served because there is no newer one.
 * @param served what is served, as the words before its date: `the copy last checked at`
 * @param now milliseconds since the epoch; so is `checkedAt`. `ttl` in milliseconds
 */
export const staleReport = (
  {kind, reason}: {kind: string; reason: string},
  served: string,
  {checkedAt, ttl, now}: {checkedAt: number; ttl: number; now: number},
): CacheReport => ({
  how: 'stale',
  ...ageOf(now - checkedAt, ttl),
  detail: kind,
  warning: `${reason}; serving ${served} ${new Date(checkedAt).toISOString()}`,
});

/** The report in one word, for counting. */
export function outcomeOf({how, collapsed, warning, detail}: CacheReport): Outcome {
  if (how === 'hit') return 'hit';
  if (warning !== undefined && detail !== PARTIAL) return 'stale';
  if (detail === 'unchanged') return 'revalidated';
  return collapsed ? 'collapsed' : 'miss';
}
