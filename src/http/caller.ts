import {ANONYMOUS, type Caller} from '../caller.ts';

/**
 * Who asks. Every client is anonymous: an `Authorization` that one sends along, as Docker does to mirrors, is neither
 * looked at nor passed on.
 */
export function callerOf(via: string | undefined): Caller {
  return via === undefined ? ANONYMOUS : {...ANONYMOUS, via: via.split(',').map((entry) => entry.trim())};
}
