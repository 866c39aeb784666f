import type {Clock} from '../../clock.ts';
import type {Metadata} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';

/** How long a spool to which nothing is added waits for somebody who goes on with it. */
const SPOOL_LIFETIME_MS = 24 * 60 * 60 * 1000;

export interface SpoolSweepParts {
  metadata: Pick<Metadata, 'upload'>;
  spools: Spools;
  clock: Clock;
}

/**
 * Makes the call that removes what nobody goes on with: the beginnings of downloads, and what is left of uploads that have
 * no record, as when the process was killed. An upload that has one may be older, since asking where it stands keeps it
 * alive: its spool goes with its record. Gives the number of spools removed.
 */
export const createSpoolSweep =
  ({metadata, spools, clock}: SpoolSweepParts) =>
  (): Promise<number> =>
    spools.sweep(clock.now() - SPOOL_LIFETIME_MS, async (id) => (await metadata.upload(id)) !== undefined);
