import {isIPv6} from 'node:net';
import type {Clock} from '../clock.ts';
import {createLru} from '../lru.ts';
import {OciError} from '../oci/errors.ts';

/** So many wrong passwords may come from one address within WINDOW_MS. */
const MAX_FAILURES = 10;
const WINDOW_MS = 60_000;

/** Addresses that are remembered. Who has as many can guess no faster than bcrypt computes. */
const MAX_ADDRESSES = 10_000;

/** Counts wrong passwords by address. */
export interface Attempts {
  /** @throws OciError TOOMANYREQUESTS with `Retry-After` where too many have failed */
  refuseMore(address: string | undefined): void;
  failed(address: string | undefined): void;
}

export function createAttempts(clock: Pick<Clock, 'monotonic'>): Attempts {
  const failures = createLru<string, {count: number; since: number}>(MAX_ADDRESSES);
  const current = (address: string | undefined) => {
    const found = failures.get(holderOf(address));
    return found && clock.monotonic() - found.since < WINDOW_MS ? found : undefined;
  };
  return {
    refuseMore(address) {
      const found = current(address);
      if (!found || found.count < MAX_FAILURES) return;
      const seconds = Math.ceil((found.since + WINDOW_MS - clock.monotonic()) / 1000);
      throw new OciError('TOOMANYREQUESTS', {
        message: `${MAX_FAILURES} logins from this address have failed within a minute; try again in ${seconds} s`,
        headers: {'Retry-After': String(seconds)},
      });
    },
    failed(address) {
      const found = current(address);
      if (found) found.count += 1;
      else failures.set(holderOf(address), {count: 1, since: clock.monotonic()});
    },
  };
}

/** One client has a whole /64 of IPv6 addresses. */
function holderOf(address: string | undefined): string {
  if (address === undefined || !isIPv6(address)) return address ?? 'unknown';
  const [head = '', tail = ''] = address.split('::');
  const groups = head.split(':').filter((group) => group !== '');
  const after = tail.split(':').filter((group) => group !== '');
  const zeros = address.includes('::') ? Array<string>(8 - groups.length - after.length).fill('0') : [];
  return [...groups, ...zeros, ...after].slice(0, 4).join(':');
}
