import {createWorkQueue} from '../concurrency.ts';
import {OciError} from '../oci/errors.ts';

/** What a client that could not wait should wait, in seconds. */
const RETRY_AFTER_S = 5;

/** Runs little of what is expensive at the same time. */
export interface Turns {
  /**
   * Runs `work` when its turn has come.
   * @returns its result @throws OciError UNAVAILABLE with `Retry-After`, and runs nothing, when too many wait; its failure
   */
  run<T>(work: () => Promise<T>): Promise<T>;
}

export interface TurnsOptions {
  concurrency: number;
  /** How many may wait. With more, clients that would give up meanwhile get an answer at once. */
  maxWaiting: number;
}

export function createTurns({concurrency, maxWaiting}: TurnsOptions): Turns {
  const queue = createWorkQueue(concurrency);
  return {
    async run(work) {
      if (queue.waiting >= maxWaiting)
        throw new OciError('UNAVAILABLE', {
          message: `${maxWaiting} logins wait to be checked; try again later`,
          headers: {'Retry-After': String(RETRY_AFTER_S)},
        });
      return queue.run(work);
    },
  };
}

/**
 * The turns of signatures: they are verified in the threads of libuv's pool in a tenth of a millisecond, so that even the
 * last one that waits has its answer within a second.
 */
export const createSignatureTurns = (): Turns => createTurns({concurrency: 4, maxWaiting: 5000});
