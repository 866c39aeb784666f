import type {Clock} from './clock.ts';
import type {Config} from './config.ts';
import {createPins} from './registry/maintenance/pins.ts';
import type {Registries} from './registry/registries.ts';
import type {Storage} from './storage/open.ts';

interface CacheCommandParts {
  storage: Storage;
  registries(): Registries;
  clock: Clock;
}

export type WiredCacheCommands = ReturnType<typeof wireCacheCommands>;

/** What an operator does to the cache: a part of `wire`. */
export const wireCacheCommands = (
  {pins}: Pick<Config, 'pins'>,
  {storage: {metadata}, registries, clock}: CacheCommandParts,
) => ({
  pins: createPins({metadata, registries, configured: pins, clock}),
});
