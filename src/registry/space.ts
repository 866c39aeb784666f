import type {Digest} from '../oci/digest.ts';
import {DiskFull} from '../storage/metadata.ts';

/** There is no room for content: the cache has reached its limit, or the disk is full. */
export class NoRoom extends DiskFull {
  constructor(message: string) {
    super('full', message);
  }
}

/** Room on the disk for content that is about to be written. */
export interface Reservation {
  /** Reserves `bytes` in all. Fewer than before change nothing. @throws NoRoom */
  grow(bytes: number): Promise<void>;
  /** Ends it: from now on what was written counts. Idempotent. */
  release(): void;
}

/** Reserves room on the disk of the blobs, and is told what is stored there. */
export interface Space {
  /**
   * Reserves room for a copy of what an upstream has, within the limit of the cache. Waits for an eviction that makes it,
   * for a short while.
   * @param bytes 0 while the size is not known
   * @param written how many of them are on the disk
   * @throws NoRoom
   */
  reserve(bytes: number, written: () => number): Promise<Reservation>;
  /** The same for what is pushed here: the limit does not refuse it. @throws NoRoom when the disk has no room for it */
  reservePushed(bytes: number, written: () => number): Promise<Reservation>;
  /** The bytes of a stored blob have changed; undefined where there are none. */
  changed(digest: Digest, before: number | undefined, after: number | undefined): void;
}

/** For what takes no room on the disk. */
export const UNRESERVED: Reservation = {grow: async () => {}, release() {}};

/** For a store without a limit: only the disk itself refuses. */
export const UNLIMITED: Space = {
  reserve: async () => UNRESERVED,
  reservePushed: async () => UNRESERVED,
  changed() {},
};
