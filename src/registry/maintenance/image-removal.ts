import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {parseImageGlob} from '../../oci/image-glob.ts';
import type {Reference, Tag} from '../../oci/name.ts';
import type {Coordination} from '../../storage/coordination.ts';
import {fullName, type Metadata, type RepositoryKey} from '../../storage/metadata.ts';
import {imageNamed} from '../image-name.ts';
import type {Registries} from '../registries.ts';
import type {Evictor} from './evictor.ts';
import {claimCollection} from './garbage.ts';
import type {ImageRoot, Inventory} from './inventory.ts';
import {takeInventoryFor} from './inventory-progress.ts';
import {renewing} from './recheck.ts';

/** An image that was removed, or would be. */
export interface RemovedImage {
  registry: string;
  repository: string;
  digest: Digest;
  tags: readonly Tag[];
  /** Of the blobs that nothing else needs. */
  bytes: number;
}

/**
 * An image that stays. `local`: it was pushed here, or is part of what was; `pinned`, `newest`: by a pin, or by
 * `cache.keep`; `busy`: it is being pulled.
 */
export interface SparedImage extends Omit<RemovedImage, 'bytes'> {
  reason: NonNullable<ImageRoot['kept']> | 'busy';
}

export interface RemovalResult {
  removed: number;
  spared: number;
  /** Bytes that are free again. */
  bytes: number;
  /** The first of each. */
  removedImages: RemovedImage[];
  sparedImages: SparedImage[];
  /** Of what was asked for, what no image here matches. */
  unmatched: string[];
}

export interface RemovalProgress {
  /** The part of the work that is done, 0 to 1. */
  done: number;
  removed: number;
  bytes: number;
}

export interface RemovalOptions {
  /**
   * `registry/repository`, with a tag or without, as a pattern of the configuration; or an image as clients name it,
   * without a tag and digest all of its repository.
   */
  images: readonly string[];
  /** Says what would be removed, and removes nothing. */
  dryRun: boolean;
  /** Ends the work between two images. */
  signal: AbortSignal;
  progress(state: RemovalProgress): void;
}

/** Evicts images that an operator names, whatever their place in the order. */
export interface ImageRemoval {
  /**
   * Copies go; what was pushed here, pinned, kept or is being pulled stays.
   * @throws Error for a pattern that is not valid, OciError for such a name, with nothing removed; DiskFull; the signal's
   * reason
   */
  run(options: RemovalOptions): Promise<RemovalResult>;
}

export interface ImageRemovalParts {
  metadata: Metadata;
  evictor: Pick<Evictor, 'evict' | 'protection'>;
  registries(): Registries;
  coordination: Coordination;
  clock: Clock;
  events: Events;
}

/** Images of each kind that a result lists. */
const MAX_LISTED = 1000;
/** The part of the work that is taking the inventory. */
const INVENTORY_PART = 0.5;
/** What makes a name a pattern. */
const WILD = /[*?[{]/;

type Matches = (repository: RepositoryKey, references: readonly Reference[]) => boolean;

export const createImageRemoval = (parts: ImageRemovalParts): ImageRemoval => ({
  async run(options) {
    const asked = options.images.map((text) => ({text, matches: matcherOf(text, parts.registries())}));
    const claim = await claimCollection(parts.coordination, options.signal);
    try {
      return await new Removal(parts, options, renewing(claim, parts.clock)).run(asked);
    } finally {
      await claim.release();
    }
  },
});

/** One run. */
class Removal {
  readonly #parts: ImageRemovalParts;
  readonly #options: RemovalOptions;
  readonly #renew: () => Promise<void>;
  readonly #result: RemovalResult = {
    removed: 0,
    spared: 0,
    bytes: 0,
    removedImages: [],
    sparedImages: [],
    unmatched: [],
  };

  constructor(parts: ImageRemovalParts, options: RemovalOptions, renew: () => Promise<void>) {
    this.#parts = parts;
    this.#options = options;
    this.#renew = renew;
  }

  async run(asked: readonly {text: string; matches: Matches}[]): Promise<RemovalResult> {
    const inventory = await this.#takeInventory();
    const found = new Set<string>();
    const matching = inventory.roots.filter(({repository, digest, tags}) => {
      const references = [...tags, digest];
      const matched = asked.filter(({matches}) => matches(repository, references));
      for (const {text} of matched) found.add(text);
      return matched.length > 0;
    });
    this.#result.unmatched = asked.map(({text}) => text).filter((text) => !found.has(text));
    try {
      for (const [index, root] of matching.entries()) {
        this.#options.signal.throwIfAborted();
        await this.#renew();
        await this.#remove(inventory, root);
        this.#report(INVENTORY_PART + ((1 - INVENTORY_PART) * (index + 1)) / matching.length);
      }
    } finally {
      this.#emit();
    }
    return this.#result;
  }

  #emit(): void {
    const {removed, bytes} = this.#result;
    if (removed === 0 || this.#options.dryRun) return;
    const counts = {probation: 0, value: 0, unrooted: 0, damaged: 0, removed};
    this.#parts.events.emit('cache.evicted', {counts, bytes, youngest: undefined});
  }

  async #takeInventory(): Promise<Inventory> {
    const {metadata, evictor, clock} = this.#parts;
    const task = {
      signal: this.#options.signal,
      progress: ({done}: {done: number}) => this.#report(INVENTORY_PART * done),
    };
    return takeInventoryFor(task, {metadata, protection: await evictor.protection(), now: clock.now()});
  }

  async #remove(inventory: Inventory, root: ImageRoot): Promise<void> {
    const {registry, name: repository} = root.repository;
    const image = {registry, repository, digest: root.digest, tags: root.tags};
    const bytes = root.kept ? undefined : await this.#evict(inventory, root);
    if (bytes === undefined) {
      this.#result.spared += 1;
      const {sparedImages} = this.#result;
      if (sparedImages.length < MAX_LISTED) sparedImages.push({...image, reason: root.kept ?? 'busy'});
      return;
    }
    this.#result.removed += 1;
    this.#result.bytes += bytes;
    const {removedImages} = this.#result;
    if (removedImages.length < MAX_LISTED) removedImages.push({...image, bytes});
  }

  /** @returns the bytes that are free again; undefined when it is being pulled */
  async #evict(inventory: Inventory, root: ImageRoot): Promise<number | undefined> {
    const {dryRun, signal} = this.#options;
    if (!dryRun) return (await this.#parts.evictor.evict(inventory, root, {signal}))?.bytes;
    const {uniqueBytes} = root;
    inventory.remove(root);
    return uniqueBytes;
  }

  #report(done: number): void {
    const {removed, bytes} = this.#result;
    this.#options.progress({done, removed, bytes});
  }
}

/** @throws Error, OciError */
function matcherOf(text: string, registries: Registries): Matches {
  if (WILD.test(text)) {
    const glob = parseImageGlob(text);
    if (glob) return ({registry, name}, references) => glob.matches(registry, name, references);
    throw new Error(
      `"${text.slice(0, 80)}" is not a pattern: write registry/repository, such as docker.io/library/*, or registry/repository:tag`,
    );
  }
  const {route, reference} = imageNamed(registries, text);
  const wanted = fullName(route.repository);
  const isWhole = !/[:@]/.test(text.slice(text.lastIndexOf('/') + 1));
  return (repository, references) =>
    fullName(repository) === wanted && (isWhole || references.includes(reference));
}
