import {ANONYMOUS, type Caller} from '../caller.ts';

/**
 * Characters of `Via` that are passed on: twenty proxies, the latest ones. An upstream may refuse a longer one, and its
 * refusal would be everybody's who shares the answer.
 */
const MAX_VIA = 1024;

/**
 * Who asks. Every client is anonymous: an `Authorization` that one sends along, as Docker does to mirrors, is neither
 * looked at nor passed on.
 */
export function callerOf(via: string | undefined): Caller {
  if (via === undefined) return ANONYMOUS;
  const entries = via
    .slice(-MAX_VIA)
    .split(',')
    .map((entry) => entry.trim());
  // Of a longer one, the first entry is only the end of one.
  return {...ANONYMOUS, via: via.length > MAX_VIA ? entries.slice(1) : entries};
}
