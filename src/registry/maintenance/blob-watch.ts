import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import type {Digest} from '../../oci/digest.ts';
import type {Change, Metadata, Precondition, RepositoryKey} from '../../storage/metadata.ts';

/** Watches how blobs are asked for: which are being pulled, and whether one is missed that was evicted. */
export interface BlobWatch {
  /** The metadata, whose commits tell the watch what is evicted, and what is promised afterwards. */
  readonly metadata: Metadata;
  /** Whether it was served within the last minute. */
  isRecent(digest: Digest): boolean;
}

export interface BlobWatchParts {
  metadata: Metadata;
  clock: Clock;
  events: Events;
}

const RECENT_MS = 60_000;
const MAX_RECENT = 10_000;
const MAX_EVICTED = 100_000;

export function createBlobWatch({metadata, clock, events}: BlobWatchParts): BlobWatch {
  /** When each was served last, by the monotonic clock. */
  const served = createLru<Digest, number>(MAX_RECENT);
  /** Evicted blobs that no manifest stored since then names. */
  const evicted = createLru<Digest, true>(MAX_EVICTED);

  /**
   * Commits are made in the order in which they are asked for, so that order tells which manifests were here at an
   * eviction. Dates do not: a manifest carries the date of its arrival, which is before its commit.
   */
  async function commit(changes: readonly Change[], terms: readonly Precondition[] = []): Promise<boolean> {
    for (const change of changes)
      if (change.type === 'manifest.put') for (const {digest} of change.references) evicted.delete(digest);
    const blob = terms.find((term) => term.type === 'blob.unneeded')?.digest;
    if (blob === undefined) return metadata.commit(changes, terms);
    evicted.set(blob, true);
    let isEvicted = false;
    try {
      isEvicted = await metadata.commit(changes, terms);
    } finally {
      if (!isEvicted) evicted.delete(blob);
    }
    return isEvicted;
  }

  async function look(repository: RepositoryKey, digest: Digest): Promise<void> {
    const isPromised = (await metadata.promisedSize(repository, digest)) !== undefined;
    if (!isPromised || !evicted.has(digest)) return;
    const {registry, name} = repository;
    events.emit('cache.broken-promise', {registry, repository: name, digest});
  }

  events.on('blob.served', ({digest}) => served.set(digest, clock.monotonic()));
  events.on('requests.counted', (counted) => {
    for (const {kind, digest, isServedHere} of counted)
      if (isServedHere && kind === 'blob' && digest) served.set(digest, clock.monotonic());
  });
  events.on('blob.missed', ({registry, repository, digest}) => {
    if (!evicted.has(digest)) return;
    look({registry, name: repository}, digest).catch((error: unknown) =>
      events.emit('background.failed', {task: 'look at a missed blob', error}),
    );
  });
  return {
    metadata: {...metadata, commit},
    isRecent: (digest) => {
      const at = served.get(digest);
      return at !== undefined && clock.monotonic() - at < RECENT_MS;
    },
  };
}
