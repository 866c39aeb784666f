import {isIPv6} from 'node:net';
import type {Clock} from '../clock.ts';
import {createLru} from '../lru.ts';
import {OciError} from '../oci/errors.ts';
import {LoginRefused} from './authenticator.ts';

/** So many wrong credentials may come from one address within WINDOW_MS. */
const MAX_FAILURES = 10;
const WINDOW_MS = 60_000;

/** Addresses that are remembered. Who has as many can guess no faster than bcrypt computes. */
const MAX_ADDRESSES = 10_000;

/** Comparisons of one address that wait until others have ended. */
const MAX_WAITING = 100;

/** Counts wrong credentials by address, whatever their kind. Who has logged in already is not held up. */
export interface Attempts {
  /**
   * Begins a comparison. While as many run as could fail, further ones of the address wait: in parallel, no more passwords
   * can be tried than one after the other.
   * @returns what ends it, with whether the password was wrong
   * @throws OciError TOOMANYREQUESTS with `Retry-After` where too many have failed, or wait
   */
  begin(address: string | undefined): Promise<(isWrong: boolean) => void>;
  /**
   * The same for `check`, which fails with LoginRefused for a wrong credential.
   * @returns what `check` returns @throws OciError TOOMANYREQUESTS, and checks nothing; what `check` throws
   */
  run<T>(address: string | undefined, check: () => Promise<T>): Promise<T>;
  /** Counts a wrong credential that was not, or is no longer, a comparison that others wait for. */
  fail(address: string | undefined): void;
}

interface Address {
  failures: number;
  running: number;
  since: number;
  readonly waiting: (() => void)[];
}

export function createAttempts(clock: Pick<Clock, 'monotonic'>): Attempts {
  const addresses = createLru<string, Address>(MAX_ADDRESSES);
  const current = (holder: string): Address => {
    const found = addresses.get(holder);
    if (found && clock.monotonic() - found.since < WINDOW_MS) return found;
    const fresh = {failures: 0, running: 0, since: clock.monotonic(), waiting: []};
    addresses.set(holder, fresh);
    return fresh;
  };

  function refuse({since}: Address, why: string): never {
    const seconds = Math.ceil((since + WINDOW_MS - clock.monotonic()) / 1000);
    throw new OciError('TOOMANYREQUESTS', {
      message: `${why}; try again in ${seconds} s`,
      headers: {'Retry-After': String(seconds)},
    });
  }

  const attempts: Attempts = {
    fail(address) {
      current(holderOf(address)).failures += 1;
    },

    async run(address, check) {
      const end = await attempts.begin(address);
      let isWrong = false;
      try {
        return await check();
      } catch (error) {
        isWrong = error instanceof LoginRefused;
        throw error;
      } finally {
        end(isWrong);
      }
    },

    async begin(address) {
      const holder = holderOf(address);
      for (;;) {
        const found = current(holder);
        if (found.failures >= MAX_FAILURES)
          refuse(found, `${MAX_FAILURES} logins from this address have failed within a minute`);
        if (found.failures + found.running < MAX_FAILURES) {
          found.running += 1;
          return (isWrong) => {
            found.running -= 1;
            if (isWrong) found.failures += 1;
            for (const proceed of found.waiting.splice(0)) proceed();
          };
        }
        if (found.waiting.length >= MAX_WAITING)
          refuse(found, `${MAX_WAITING} logins from this address wait to be checked`);
        await new Promise<void>((resolve) => void found.waiting.push(resolve));
      }
    },
  };
  return attempts;
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
