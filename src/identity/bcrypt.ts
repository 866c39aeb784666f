import {createTurns} from './turns.ts';

/**
 * Comparisons that run at the same time. They take the threads of libuv's pool, of which there are four, and reading from
 * disks needs some of them.
 */
const CONCURRENCY = 2;
/** Comparisons that wait: a hundred take some seconds. */
const MAX_WAITING = 100;

/** Compares passwords with bcrypt hashes, a few at a time. */
export interface PasswordCheck {
  /** @throws OciError UNAVAILABLE when too many comparisons wait */
  matches(password: string, hash: string): Promise<boolean>;
}

export function createPasswordCheck(): PasswordCheck {
  const turns = createTurns({concurrency: CONCURRENCY, maxWaiting: MAX_WAITING});
  return {
    matches: (password, hash) =>
      turns.run(async () => {
        // Loaded on demand: most servers have no users.
        const {verify} = await import('@node-rs/bcrypt');
        return verify(password, hash);
      }),
  };
}
