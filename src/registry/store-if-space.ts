import type {Events} from '../events.ts';
import {DiskFull} from '../storage/metadata.ts';

/**
 * Runs the commit that keeps what an upstream said. On a disk that is full or read-only nothing is kept, which is logged, and the request is
 * answered all the same.
 * @param what for the log: `the link of a blob`
 * @returns whether it was kept
 * @throws whatever else the commit throws
 */
export async function storeIfSpace(
  events: Events,
  what: string,
  commit: () => Promise<unknown>,
): Promise<boolean> {
  try {
    await commit();
    return true;
  } catch (error) {
    if (!(error instanceof DiskFull)) throw error;
    reportUnkept(events, what, error);
    return false;
  }
}

/** Reports what is not kept because the disk takes nothing. */
export const reportUnkept = (events: Events, what: string, error: DiskFull): void =>
  void events.emit('background.failed', {task: `keep ${what}`, error});
