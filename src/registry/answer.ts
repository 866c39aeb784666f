import type {Outcome} from '../events.ts';

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
