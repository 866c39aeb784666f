import type {IncomingHttpHeaders} from 'node:http';
import type {Clock} from '../../clock.ts';
import {createLru} from '../../lru.ts';
import {type CurrentQuota, type Quota, UpstreamFailure} from '../port.ts';

const ITEM = /^\s*(\d{1,12})\s*(?:;\s*w=(\d{1,9}))?/;

/** Reads `RateLimit-Limit: 100;w=21600` and `RateLimit-Remaining: 76;w=21600`, as Docker Hub sends them, or plain numbers. */
export function parseQuota(headers: IncomingHttpHeaders): Quota | undefined {
  const limit = ITEM.exec(String(headers['ratelimit-limit'] ?? ''));
  const remaining = ITEM.exec(String(headers['ratelimit-remaining'] ?? ''));
  if (!limit || !remaining) return undefined;
  const seconds = limit[2] ?? remaining[2];
  return {
    limit: Number(limit[1]),
    remaining: Number(remaining[1]),
    window: seconds === undefined ? undefined : Number(seconds) * 1000,
  };
}

/** The window of a quota that names none: most limits count by the hour, or by less. */
const DEFAULT_WINDOW_MS = 60 * 60 * 1000;

/** What an upstream last reported of its rate limit. After the window, that says nothing any more: the limit is whole again. */
export interface LastQuota {
  reported(quota: Quota): void;
  current(): CurrentQuota | undefined;
}

export function createLastQuota(clock: Clock): LastQuota {
  let last: {quota: Quota; until: number} | undefined;
  return {
    reported(quota) {
      last = {quota, until: clock.monotonic() + (quota.window ?? DEFAULT_WINDOW_MS)};
    },
    current() {
      const left = last ? last.until - clock.monotonic() : 0;
      return last && left > 0 ? {...last.quota, left} : undefined;
    },
  };
}

/** A 429 (RFC 6585, section 4). */
export interface RateLimited {
  /** The host that answered: the upstream, its token service, or a host that either redirects to. */
  host: string;
  /** For the failure and the log. */
  reason: string;
  /** Milliseconds to wait according to `Retry-After`; undefined when it is missing. */
  retryAfter: number | undefined;
}

/**
 * One gate for each host that an upstream uses. After a 429 with `Retry-After` the host's gate stays closed for that
 * time, and no request is sent to it: requests count against the limit even when they are refused.
 */
export interface RateGates {
  /** @throws UpstreamFailure `throttled`, without waiting, while the host's gate is closed. */
  check(host: string): void;
  /** Closes the host's gate. @returns the failure of the request that was answered 429. */
  limited(answer: RateLimited): UpstreamFailure;
}

/** The window of Docker Hub's limit. Caps an upstream's `Retry-After`, so that a mistake there does not close a gate for days. */
const MAX_CLOSED_MS = 6 * 60 * 60 * 1000;
/** Hosts whose gates are remembered. */
const MAX_GATES = 1000;

/**
 * @param upstream the upstream's host, for its failures.
 * @param onLimited called when a gate closes, and for each 429 without `Retry-After`.
 */
export function createRateGates(
  upstream: string,
  clock: Clock,
  onLimited: (answer: RateLimited) => void,
): RateGates {
  const gates = createLru<string, {until: number; reason: string}>(MAX_GATES);
  const failure = (reason: string, retryAfter: number | undefined): UpstreamFailure =>
    new UpstreamFailure('throttled', upstream, reason, retryAfter === undefined ? {} : {retryAfter});
  const closedFor = (host: string): number => (gates.get(host)?.until ?? 0) - clock.monotonic();

  return {
    check(host) {
      const left = closedFor(host);
      if (left > 0) throw failure(gates.get(host)?.reason ?? '', left);
    },
    limited(answer) {
      const {host, reason} = answer;
      if (answer.retryAfter === undefined) {
        onLimited(answer);
        return failure(reason, undefined);
      }
      const retryAfter = Math.min(answer.retryAfter, MAX_CLOSED_MS);
      const left = closedFor(host);
      // Requests already under way when the gate closes are answered 429 too; they are not reported again.
      if (left <= 0) onLimited({...answer, retryAfter});
      gates.set(host, {until: clock.monotonic() + Math.max(left, retryAfter), reason});
      return failure(reason, retryAfter);
    },
  };
}

/** For limits that each caller has on its own: no gate closes for the others. @param onLimited called for each 429 */
export const createOpenRateGates = (
  upstream: string,
  onLimited: (answer: RateLimited) => void,
): RateGates => ({
  check() {},
  limited(answer) {
    const {reason, retryAfter} = answer;
    onLimited({...answer, retryAfter: undefined});
    return new UpstreamFailure('throttled', upstream, reason, retryAfter === undefined ? {} : {retryAfter});
  },
});
