import {LRUCache} from 'lru-cache';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata, RepositoryKey} from '../../storage/metadata.ts';

/** Watches how blobs are asked for: which are being pulled, and whether one is missed that was evicted. */
export interface BlobWatch {
  /** Whether it was served within the last minute. */
  isRecent(digest: Digest): boolean;
  /** Its bytes have been evicted. */
  evicted(digest: Digest): void;
}

export interface BlobWatchParts {
  metadata: Pick<Metadata, 'namedSince'>;
  clock: Clock;
  events: Events;
}

const RECENT_MS = 60_000;
const MAX_RECENT = 10_000;
const MAX_EVICTED = 100_000;

export function createBlobWatch({metadata, clock, events}: BlobWatchParts): BlobWatch {
  /** When each was served last, by the monotonic clock. */
  const served = new LRUCache<Digest, number>({max: MAX_RECENT});
  /** When each was evicted, by the wall clock, as links are dated. */
  const evicted = new LRUCache<Digest, number>({max: MAX_EVICTED});

  async function look(repository: RepositoryKey, digest: Digest, at: number): Promise<void> {
    const since = await metadata.namedSince(repository, digest);
    if (since === undefined || since >= at) return;
    const {registry, name} = repository;
    events.emit('cache.broken-promise', {registry, repository: name, digest});
  }

  events.on('blob.served', ({digest}) => served.set(digest, clock.monotonic()));
  events.on('blob.missed', ({registry, repository, digest}) => {
    const at = evicted.get(digest);
    if (at === undefined) return;
    look({registry, name: repository}, digest, at).catch((error: unknown) =>
      events.emit('background.failed', {task: 'look at a missed blob', error}),
    );
  });
  return {
    isRecent: (digest) => {
      const at = served.get(digest);
      return at !== undefined && clock.monotonic() - at < RECENT_MS;
    },
    evicted: (digest) => void evicted.set(digest, clock.now()),
  };
}
