import {OciError} from '../oci/errors.ts';

/**
 * Comparisons that run at the same time. They take the threads of libuv's pool, of which there are four, and reading from
 * disks needs some of them.
 */
const CONCURRENCY = 2;
/** Comparisons that wait for their turn. With more, clients that would give up meanwhile get an answer at once. */
const MAX_WAITING = 100;

/** Compares passwords with bcrypt hashes, a few at a time. */
export interface PasswordCheck {
  /** @throws OciError UNAVAILABLE when too many comparisons wait */
  matches(password: string, hash: string): Promise<boolean>;
}

export function createPasswordCheck(): PasswordCheck {
  let running = 0;
  const waiting: (() => void)[] = [];
  const turn = async (): Promise<void> => {
    if (running < CONCURRENCY) {
      running += 1;
      return;
    }
    if (waiting.length >= MAX_WAITING)
      throw new OciError('UNAVAILABLE', {
        message: `${MAX_WAITING} logins wait to be checked; try again later`,
        headers: {'Retry-After': '5'},
      });
    await new Promise<void>((resolve) => void waiting.push(resolve));
  };
  const next = (): void => {
    const begin = waiting.shift();
    if (begin) begin();
    else running -= 1;
  };
  return {
    async matches(password, hash) {
      await turn();
      try {
        // Loaded on demand: most servers have no users.
        const {verify} = await import('@node-rs/bcrypt');
        return await verify(password, hash);
      } finally {
        next();
      }
    },
  };
}
