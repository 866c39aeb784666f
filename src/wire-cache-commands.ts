import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import type {Events} from './events.ts';
import type {Capacity} from './registry/maintenance/capacity.ts';
import {createDiskUsage} from './registry/maintenance/disk-usage.ts';
import type {Evictor} from './registry/maintenance/evictor.ts';
import {createImageRemoval} from './registry/maintenance/image-removal.ts';
import {createPins} from './registry/maintenance/pins.ts';
import {createPulls} from './registry/pulls.ts';
import type {Registries} from './registry/registries.ts';
import type {Storage} from './storage/open.ts';

interface CacheCommandParts {
  storage: Storage;
  registries(): Registries;
  requests(): {handOver(): Promise<void>};
  capacity: Capacity;
  evictor: Evictor;
  clock: Clock;
  events: Events;
}

export type WiredCacheCommands = ReturnType<typeof wireCacheCommands>;

/** What an operator does to the cache, and asks about it: a part of `wire`. */
export const wireCacheCommands = (
  {pins}: Pick<Config, 'pins'>,
  {
    storage: {metadata, claims: coordination},
    registries,
    requests,
    capacity,
    evictor,
    clock,
    events,
  }: CacheCommandParts,
) => ({
  usage: createDiskUsage({metadata, capacity, evictor, clock}),
  removal: createImageRemoval({metadata, evictor, registries, coordination, clock, events}),
  pins: createPins({metadata, registries, configured: pins, clock}),
  pulls: createPulls({metadata, events, handOver: () => requests().handOver()}),
});
