import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import {createAccess} from './registry/access.ts';
import type {AccessPolicy} from './registry/access-policy.ts';
import {createBlobs} from './registry/blobs/blobs.ts';
import {createDamagedBlobs} from './registry/blobs/damaged.ts';
import {createFills} from './registry/blobs/fills.ts';
import {createBlobLifecycle} from './registry/blobs/lifecycle.ts';
import type {Generations} from './registry/generations.ts';
import {createManifests} from './registry/manifests/manifests.ts';
import {createMemory, shareMemory} from './registry/memory.ts';
import {createNegativeCache} from './registry/negative-cache.ts';
import {createManifestPull, type ManifestPullParts} from './registry/pull/manifest.ts';
import {createServedAgain} from './registry/repeat.ts';
import type {Space} from './registry/space.ts';
import {createTagLists} from './registry/tags/tag-lists.ts';
import {createTags} from './registry/tags/tags.ts';
import {createUses} from './registry/uses.ts';
import {createWriteFence} from './registry/write-fence.ts';
import type {Storage} from './storage/open.ts';

export interface ContentParts {
  storage: Storage;
  /** The rules in force. */
  policy(): AccessPolicy;
  generations: Generations;
  clock: Clock;
  events: Events;
}

/** Tags, manifests and blobs, and how they are pulled. */
export type WiredContent = ReturnType<typeof wireContent>;

export function wireContent(
  {cache}: {cache: Pick<Config['cache'], 'memory'>},
  {storage, policy, generations, clock, events}: ContentParts,
  space: Space,
  arrived: ManifestPullParts['arrived'],
) {
  const {metadata, store, spools, claims: coordination} = storage;
  const writeFence = createWriteFence();
  const memory = createMemory(shareMemory(cache.memory).content, generations);
  const negativeCache = createNegativeCache(clock);
  const access = createAccess({metadata, memory, policy, clock, events});
  const pull = createManifestPull({metadata, writeFence, clock, arrived});
  const damaged = createDamagedBlobs(events);
  const lifecycle = createBlobLifecycle({store, metadata, space, memory, damaged, clock});
  const fills = createFills({spools, space, store, lifecycle, coordination, clock, events});
  const blobs = createBlobs({
    store,
    lifecycle,
    metadata,
    access,
    fills,
    negativeCache,
    memory,
    generations,
    clock,
    events,
  });
  const tags = createTags({metadata, pull, negativeCache, writeFence, generations, clock, events});
  const tagLists = createTagLists({metadata, access, negativeCache, clock, events});
  const uses = createUses({metadata, clock});
  const manifests = createManifests({
    metadata,
    access,
    pull,
    tags,
    negativeCache,
    uses,
    generations,
    events,
    arrived,
  });
  return {
    space,
    writeFence,
    memory,
    negativeCache,
    access,
    pull,
    damaged,
    lifecycle,
    fills,
    blobs,
    tags,
    tagLists,
    uses,
    servedAgain: createServedAgain({events, uses}),
    manifests,
  };
}
