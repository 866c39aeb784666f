import type {Clock} from '../../clock.ts';
import {type ImageGlob, parseImageGlob} from '../../oci/image-glob.ts';
import {isDigestReference} from '../../oci/name.ts';
import {fullReference, type Metadata, type Pin} from '../../storage/metadata.ts';
import {imageNamed} from '../image-name.ts';
import type {Registries} from '../registries.ts';
import type {Protection} from './inventory.ts';
import {type InventoryTask, takeInventoryFor} from './inventory-progress.ts';
import {eachNumber} from './inventory-rows.ts';

/** An image that is never evicted because somebody named it. */
export interface PinnedImage {
  /** `docker.io/library/alpine:3`, whatever the client's name for it. */
  image: string;
  /** Since when, as an ISO 8601 date. */
  since: string;
  /** Whether it has been pulled; one that has not is kept from its first pull on. */
  isHere: boolean;
}

/** A pattern of the configuration, with the images that are here because of it. */
export interface PinnedPattern {
  pattern: string;
  /** How many of the images that are here match it. */
  images: number;
}

export interface PinList {
  /** By the command. */
  images: PinnedImage[];
  /** By the configuration. */
  patterns: PinnedPattern[];
}

export interface PinResult {
  pins: {image: string; isHere: boolean; wasPinned: boolean}[];
}

export interface UnpinResult {
  /** `configured`: the patterns of the configuration that still pin the image. */
  pins: {image: string; wasPinned: boolean; configured: string[]}[];
}

/** Names of images as clients write them; none of several is changed when one is not valid. */
export interface PinOptions {
  images: readonly string[];
}

/** What keeps images from being evicted, by an operator's word. */
export interface Pins {
  /** Pins images, here or not. A tag's pin follows the tag. @throws OciError for a name that is not valid */
  add(options: PinOptions): Promise<PinResult>;
  /** Ends pins. @throws as `add` */
  remove(options: PinOptions): Promise<UnpinResult>;
  /** Looks at everything that is here for the configuration's patterns. @throws the signal's reason */
  list(task: InventoryTask): Promise<PinList>;
}

export interface PinsParts {
  metadata: Metadata;
  registries(): Registries;
  /** The patterns of the configuration. */
  configured: readonly string[];
  clock: Clock;
}

type NamedPin = Pick<Pin, 'registry' | 'name' | 'reference'>;

export const createPins = (parts: PinsParts): Pins => new StoredPins(parts);

class StoredPins implements Pins {
  readonly #parts: PinsParts;

  constructor(parts: PinsParts) {
    this.#parts = parts;
  }

  async add({images}: PinOptions): Promise<PinResult> {
    const {metadata, clock} = this.#parts;
    const named = this.#named(images);
    const pinned = await this.#pinned();
    const at = clock.now();
    await metadata.commit(named.map((pin) => ({type: 'pin.put', pin: {...pin, at}})));
    const pins = named.map(async (pin) => {
      const image = imageOf(pin);
      return {image, isHere: await this.#isHere(pin), wasPinned: pinned.has(image)};
    });
    return {pins: await Promise.all(pins)};
  }

  async remove({images}: PinOptions): Promise<UnpinResult> {
    const named = this.#named(images);
    const pinned = await this.#pinned();
    await this.#parts.metadata.commit(named.map((pin) => ({type: 'pin.delete', pin})));
    return {
      pins: named.map((pin) => {
        const image = imageOf(pin);
        return {image, wasPinned: pinned.has(image), configured: this.#configuredFor(pin)};
      }),
    };
  }

  async list(task: InventoryTask): Promise<PinList> {
    const images = (await this.#parts.metadata.pins()).map(async (pin) => ({
      image: imageOf(pin),
      since: new Date(pin.at).toISOString(),
      isHere: await this.#isHere(pin),
    }));
    return {images: await Promise.all(images), patterns: await this.#patterns(task)};
  }

  /** Each image once. */
  #named(images: readonly string[]): NamedPin[] {
    const registries = this.#parts.registries();
    const pins = images.map((text) => {
      const {route, reference} = imageNamed(registries, text);
      return {...route.repository, reference};
    });
    return [...new Map(pins.map((pin) => [imageOf(pin), pin])).values()];
  }

  async #pinned(): Promise<Set<string>> {
    return new Set((await this.#parts.metadata.pins()).map(imageOf));
  }

  async #isHere({registry, name, reference}: NamedPin): Promise<boolean> {
    const {metadata} = this.#parts;
    const repository = {registry, name};
    const digest = isDigestReference(reference)
      ? reference
      : (await metadata.tag(repository, reference))?.digest;
    return digest !== undefined && (await metadata.manifest(repository, digest)) !== undefined;
  }

  #configuredFor({registry, name, reference}: NamedPin): string[] {
    return this.#globs()
      .filter(([, glob]) => glob.matches(registry, name, [reference]))
      .map(([pattern]) => pattern);
  }

  async #patterns(task: InventoryTask): Promise<PinnedPattern[]> {
    const globs = this.#globs().map(([pattern, glob]) => ({pattern, glob, images: 0}));
    if (globs.length === 0) return [];
    const {metadata, clock} = this.#parts;
    const {roots} = await takeInventoryFor(task, {metadata, protection: UNPROTECTED, now: clock.now()});
    await eachNumber(roots.length, (index) => {
      const root = roots[index];
      if (!root) return;
      const {repository, digest, tags} = root;
      for (const each of globs) {
        if (each.glob.matches(repository.registry, repository.name, [...tags, digest])) each.images += 1;
      }
    });
    return globs.map(({pattern, images}) => ({pattern, images}));
  }

  #globs(): [pattern: string, glob: ImageGlob][] {
    return this.#parts.configured.flatMap((pattern): [string, ImageGlob][] => {
      const glob = parseImageGlob(pattern);
      return glob ? [[pattern, glob]] : [];
    });
  }
}

const UNPROTECTED: Protection = {isPinned: () => false, newestKept: () => 0};

/** The registry's own name for the image, which every client can write. */
const imageOf = (pin: NamedPin): string => fullReference(pin, pin.reference);
