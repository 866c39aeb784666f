import type {Events} from '../events.ts';
import {DiskFull} from '../storage/metadata.ts';

/**
 * Runs the commit that keeps what an upstream said. Without room for it nothing is kept, which is told, and whoever
 * asked is answered all the same: a cache that is full is passed by.
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
    unkept(events, what, error);
    return false;
  }
}

/** Tells of what is not kept because there is no room. */
export const unkept = (events: Events, what: string, error: DiskFull): void =>
  void events.emit('background.failed', {task: `keep ${what}`, error});
