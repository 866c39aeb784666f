import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {fullReference, type Metadata} from '../../storage/metadata.ts';
import {imageNamed} from '../image-name.ts';
import type {Registries} from '../registries.ts';
import {requireServed} from '../served.ts';
import {checkImage, type ImageCheckParts, type MissingContent, TooManyDescriptors} from './image-check.ts';

/** What would become of an image with the upstream gone. */
export interface ImageReadiness {
  /** As it was named. */
  image: string;
  /** What the name points at here. */
  digest?: Digest;
  /** Everything that a pull needs is here, and may be served. */
  pulls: boolean;
  /** It pulls, and everything that a verification needs is here: lists of referrers, referrers, cosign's tags. */
  verifies: boolean;
  /** Why it could not be looked at: its name is malformed, or the configuration does not serve it. */
  problem?: string;
  /** Until when its tag is served without the upstream, as an ISO 8601 date. */
  until?: string;
  /**
   * Set where cosign's tags are not asked for with each pull, and no list of tags is known: `verifies` counts those that
   * are here.
   */
  areTagsUnknown?: true;
  /** The first of what is missing. */
  missing: readonly MissingContent[];
  /** All of it, in numbers; `bytes` where their sizes are known. */
  lacking: {pull: number; verify: number; bytes: number};
}

/** How many images would pull, and how many of these would also verify. */
export interface ReadyCounts {
  images: number;
  pulls: number;
  verifies: number;
}

export interface ReadyResult extends ReadyCounts {
  readiness: ImageReadiness[];
}

export interface ReadyProgress extends ReadyCounts {
  /** The part of the work that is done, 0 to 1. */
  done: number;
}

export interface ReadyOptions {
  /** Names as clients write them. */
  images: readonly string[];
  /** Platforms that have to be whole; empty: of an index, one is enough. */
  platforms: readonly string[];
  /** Ends the work between two reads. */
  signal: AbortSignal;
  progress(state: ReadyProgress): void;
}

/** Finds out which images survive an outage of their upstreams. */
export interface Ready {
  /**
   * Looks at each image: would it pull, and would it verify? Asks no upstream.
   * @throws Error for too many images; StoreMissing; the signal's reason
   */
  run(options: ReadyOptions): Promise<ReadyResult>;
  /**
   * Looks at the images that are pinned by name, and emits `images.checked`: an operator wants to hear of one that would
   * not survive. @throws StoreMissing; the signal's reason
   */
  checkPinned(signal: AbortSignal): Promise<void>;
}

export interface ReadyParts extends ImageCheckParts {
  metadata: ImageCheckParts['metadata'] & Pick<Metadata, 'pins'>;
  registries(): Registries;
  /** The globs of the configuration; those that name one tag are images. */
  pins: readonly string[];
  events: Events;
}

/** More than the pods of any cluster name. */
const MAX_IMAGES = 10_000;
/** What is listed of what one image lacks. */
const MAX_LISTED = 20;

export const createReady = (parts: ReadyParts): Ready => ({
  async run({images, platforms, signal, progress}) {
    requireFewImages(images);
    const result: ReadyResult = {images: 0, pulls: 0, verifies: 0, readiness: []};
    for (const image of images) {
      signal.throwIfAborted();
      const readiness = await readinessOf(parts, image, platforms, signal);
      result.readiness.push(readiness);
      result.images += 1;
      if (readiness.pulls) result.pulls += 1;
      if (readiness.verifies) result.verifies += 1;
      const {readiness: _, ...counts} = result;
      progress({...counts, done: result.images / images.length});
    }
    return result;
  },

  async checkPinned(signal) {
    const stored = await parts.metadata.pins();
    const named = stored.map(({registry, name, reference}) => fullReference({registry, name}, reference));
    const images = [...new Set([...parts.pins.filter(isOneTag), ...named])].slice(0, MAX_IMAGES);
    const counts = {verifies: 0, pulls: 0, incomplete: 0};
    for (const image of images) {
      signal.throwIfAborted();
      counts[stateOf(await readinessOf(parts, image, [], signal))] += 1;
    }
    parts.events.emit('images.checked', counts);
  },
});

/** Whether a glob has no wildcard and names a tag. */
const isOneTag = (glob: string): boolean => /^[\w./:-]+:[\w.-]+$/.test(glob);

function stateOf({pulls, verifies}: ImageReadiness): 'verifies' | 'pulls' | 'incomplete' {
  if (verifies) return 'verifies';
  return pulls ? 'pulls' : 'incomplete';
}

/** @throws Error */
export function requireFewImages(images: readonly string[]): void {
  if (images.length > MAX_IMAGES)
    throw new Error(`${images.length} images are named; at most ${MAX_IMAGES} are looked at in one run`);
}

/** What an image lacks. @throws StoreMissing; the signal's reason */
export async function readinessOf(
  parts: ReadyParts,
  image: string,
  platforms: readonly string[],
  signal: AbortSignal,
): Promise<ImageReadiness> {
  try {
    const named = imageNamed(parts.registries(), image);
    requireServed(named.route);
    const {digest, until, missing, areTagsUnknown} = await checkImage(parts, named, platforms, signal);
    const toPull = missing.filter(({neededTo}) => neededTo === 'pull').length;
    return {
      image,
      ...(digest ? {digest} : {}),
      ...(until === undefined ? {} : {until: new Date(until).toISOString()}),
      pulls: toPull === 0,
      verifies: missing.length === 0,
      ...(areTagsUnknown ? {areTagsUnknown} : {}),
      missing: missing.slice(0, MAX_LISTED),
      lacking: {
        pull: toPull,
        verify: missing.length - toPull,
        bytes: missing.reduce((sum, {size = 0}) => sum + size, 0),
      },
    };
  } catch (error) {
    if (!(error instanceof OciError || error instanceof TooManyDescriptors)) throw error;
    return {
      image,
      pulls: false,
      verifies: false,
      problem: error.message,
      missing: [],
      lacking: {pull: 0, verify: 0, bytes: 0},
    };
  }
}
