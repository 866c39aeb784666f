import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata} from '../../storage/metadata.ts';

/** How long a count is used. Counting a million blobs takes about a second, in small steps. */
const LIFETIME_MS = 60_000;
/** Blobs that are counted without giving way to requests. */
const BLOBS_PER_TURN = 2000;

/**
 * Counts the bytes of all stored blobs, at most once a minute.
 * @returns a function that gives the last count, at once where there is one, and starts a new one when it is old
 */
export function createStoredBytes(
  metadata: Pick<Metadata, 'blobBytes'>,
  clock: Clock,
): () => Promise<number> {
  let known: {bytes: number; at: number} | undefined;
  let counting: Promise<number> | undefined;

  async function count(): Promise<number> {
    let bytes = 0;
    let after: Digest | undefined;
    for (;;) {
      const part = await metadata.blobBytes(after, BLOBS_PER_TURN);
      if (part.last === undefined) break;
      bytes += part.bytes;
      after = part.last;
      await nextTurn();
    }
    known = {bytes, at: clock.monotonic()};
    return bytes;
  }

  function refresh(): Promise<number> {
    counting ??= count().finally(() => {
      counting = undefined;
    });
    return counting;
  }

  return async () => {
    if (!known) return refresh();
    // Nobody waits for this count. When it fails, the next call tries again.
    if (clock.monotonic() - known.at >= LIFETIME_MS) refresh().catch(() => {});
    return known.bytes;
  };
}
