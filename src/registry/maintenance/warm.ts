import type {Cancel, Clock} from '../../clock.ts';
import {mapConcurrently} from '../../concurrency.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {BlobAbsent, failureReason} from '../failure.ts';
import {imageNamed} from '../image-name.ts';
import {requireServed} from '../served.ts';
import {TooManyDescriptors} from './image-check.ts';
import {type FetchedImage, ImageFetch, type ImageFetchParts, type ImageFetchState} from './image-fetch.ts';
import {type ReadyParts, readinessOf, requireFewImages} from './ready.ts';

/** What became of one image. */
export interface WarmedImage extends Partial<FetchedImage> {
  /** As it was named. */
  image: string;
  /** What the name points at. */
  digest?: Digest;
  /** Why it is not here as a whole. */
  error?: string;
}

interface WarmCounts {
  /** Images that were named. */
  images: number;
  /** Those that are done, failed ones included. */
  finished: number;
  failed: number;
  /** Bytes of blobs that are here now, whether they were before or not. */
  bytes: number;
}

export interface WarmResult extends WarmCounts {
  warmed: WarmedImage[];
}

/** An image that is being fetched. */
export interface WarmingImage extends ImageFetchState {
  image: string;
}

export interface WarmProgress extends WarmCounts {
  /** The part of the work that is done, 0 to 1: each image counts the same. */
  done: number;
  running: readonly WarmingImage[];
}

export interface WarmOptions {
  /** Names as clients write them. */
  images: readonly string[];
  /** The platforms of an index that are fetched; empty: all. */
  platforms: readonly string[];
  /** Fetches what verifications need as well. */
  referrers: boolean;
  /** Ends the work. Downloads that have begun go on while the server runs. */
  signal: AbortSignal;
  progress(state: WarmProgress): void;
}

/** Fetches images before anybody pulls them. */
export interface Warm {
  /**
   * Fetches what is not here of each image. What cannot be had of one image does not keep the others from being fetched;
   * a further run fetches the rest.
   * @throws Error for too many images; the signal's reason
   */
  run(options: WarmOptions): Promise<WarmResult>;
}

export interface WarmParts extends ReadyParts, ImageFetchParts {
  clock: Clock;
}

/** Images that are fetched at a time. */
const CONCURRENCY = 3;
const PROGRESS_INTERVAL_MS = 200;

export const createWarm = (parts: WarmParts): Warm => ({
  run: (options) => new WarmRun(parts, options).run(),
});

/** One run. */
class WarmRun {
  readonly #parts: WarmParts;
  readonly #options: WarmOptions;
  readonly #running = new Map<string, ImageFetch>();
  readonly #warmed: WarmedImage[] = [];
  #cancel: Cancel = () => {};

  constructor(parts: WarmParts, options: WarmOptions) {
    this.#parts = parts;
    this.#options = options;
  }

  async run(): Promise<WarmResult> {
    const {images, signal} = this.#options;
    requireFewImages(images);
    this.#reportLater();
    try {
      await mapConcurrently(images, CONCURRENCY, async (image) => {
        signal.throwIfAborted();
        this.#warmed.push(await this.#warm(image));
        this.#report();
      });
    } finally {
      this.#cancel();
    }
    signal.throwIfAborted();
    const places = new Map(images.map((image, index) => [image, index]));
    const inOrder = this.#warmed.toSorted(
      (one, other) => (places.get(one.image) ?? 0) - (places.get(other.image) ?? 0),
    );
    return {...this.#counts(), warmed: inOrder};
  }

  async #warm(image: string): Promise<WarmedImage> {
    const {platforms, referrers, signal} = this.#options;
    let fetch: ImageFetch | undefined;
    try {
      const named = imageNamed(this.#parts.registries(), image);
      requireServed(named.route);
      fetch = new ImageFetch(this.#parts, named, {platforms, referrers, signal});
      this.#running.set(image, fetch);
      const fetched = await fetch.run();
      return {image, ...fetched, ...(await this.#faultOf(image, fetch))};
    } catch (error) {
      signal.throwIfAborted();
      return {image, ...fetch?.fetched, error: reasonOf(error)};
    } finally {
      this.#running.delete(image);
    }
  }

  /** What failed on the way; if nothing did, whether everything is really here. */
  async #faultOf(image: string, {failures}: ImageFetch): Promise<{error?: string}> {
    const {platforms, referrers, signal} = this.#options;
    const [first, ...more] = failures.map(reasonOf);
    if (first !== undefined) {
      return {error: more.length > 0 ? `${first} (and ${more.length} more failures)` : first};
    }
    const {problem, pulls, verifies, missing} = await readinessOf(this.#parts, image, platforms, signal);
    if (problem !== undefined) return {error: problem};
    if (referrers ? verifies : pulls) return {};
    const lacking = missing.filter(({neededTo}) => referrers || neededTo === 'pull');
    const {kind = 'content', digest, name} = lacking[0] ?? {};
    return {error: `the upstream did not give all of it: ${kind} ${digest ?? name ?? ''} is missing`};
  }

  #counts(): WarmCounts {
    const {images} = this.#options;
    return {
      images: images.length,
      finished: this.#warmed.length,
      failed: this.#warmed.filter(({error}) => error !== undefined).length,
      bytes: this.#warmed.reduce((sum, {bytes = 0}) => sum + bytes, 0),
    };
  }

  #report(): void {
    const counts = this.#counts();
    const running = [...this.#running].map(([image, {state}]) => ({image, ...state}));
    const parts = running.reduce((sum, {done}) => sum + done, 0);
    const bytes = running.reduce((sum, each) => sum + each.bytes, counts.bytes);
    const done = (counts.finished + parts) / counts.images;
    this.#options.progress({...counts, bytes, done, running});
  }

  #reportLater(): void {
    this.#cancel = this.#parts.clock.after(PROGRESS_INTERVAL_MS, () => {
      this.#report();
      this.#reportLater();
    });
  }
}

/** What failed, for the person who ran this. @throws a defect */
function reasonOf(error: unknown): string {
  if (error instanceof OciError || error instanceof BlobAbsent || error instanceof TooManyDescriptors) {
    return error.message;
  }
  const reason = failureReason(error);
  if (reason === undefined) throw error;
  return reason;
}
