import {LRUCache} from 'lru-cache';
import type {Clock} from '../../clock.ts';
import {UpstreamFailure} from '../port.ts';

/** A host that answered 429 (RFC 6585, section 4). */
export interface RateLimited {
  /** The host that answered: the upstream, its token service, or where it redirects to. */
  host: string;
  /** For the failure and the log. */
  reason: string;
  /** Milliseconds that its `Retry-After` asks to wait; undefined where it has none. */
  retryAfter: number | undefined;
}

/**
 * Keeps the hosts of one upstream from being asked while they limit our rate: asking again is what a limit counts. A
 * host is not asked before the time that its `Retry-After` names, whoever asks.
 */
export interface RateGates {
  /** @throws UpstreamFailure `throttled`, at once, while the host is not to be asked. */
  check(host: string): void;
  /** Closes the host's gate for the time that it names. @returns the failure of the question that was answered. */
  limited(answer: RateLimited): UpstreamFailure;
}

/** Milliseconds that a gate stays closed at the longest: the window of Docker Hub's limit. A typo is not for ever. */
const MAX_CLOSED_MS = 6 * 60 * 60 * 1000;
/** Hosts whose gates are remembered. */
const MAX_GATES = 1000;

/**
 * @param upstream the upstream's host, for its failures.
 * @param onLimited told once for each time that a gate closes, and of each 429 that does not say for how long.
 */
export function createRateGates(
  upstream: string,
  clock: Clock,
  onLimited: (answer: RateLimited) => void,
): RateGates {
  const gates = new LRUCache<string, {until: number; reason: string}>({max: MAX_GATES});
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
      // Those that were under way when it closed are answered 429 as well.
      if (left <= 0) onLimited({...answer, retryAfter});
      gates.set(host, {until: clock.monotonic() + Math.max(left, retryAfter), reason});
      return failure(reason, retryAfter);
    },
  };
}
