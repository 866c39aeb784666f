import {
  createEvictionOrder,
  type EvictionFacts,
  type EvictionOrder,
  probationLimitOf,
} from '../../src/registry/maintenance/eviction-order.ts';
import {NeededBytes} from '../../src/registry/maintenance/needed-bytes.ts';
import {Counter, type Figures} from './figures.ts';
import type {Image, Pull, Workload} from './workload.ts';

/** An image that is here. */
class CachedImage implements EvictionFacts {
  readonly #needed: NeededBytes;
  readonly number: number;
  readonly contents: readonly number[];
  readonly arrivedAt: number;
  readonly isMember = false;
  uses: number;
  age = 0;
  usedAt = Number.NEGATIVE_INFINITY;
  /** The number of the pull that brought it. */
  readonly since: number;

  constructor(
    needed: NeededBytes,
    image: Pick<CachedImage, 'number' | 'contents' | 'arrivedAt' | 'uses' | 'since'>,
  ) {
    this.#needed = needed;
    this.number = image.number;
    this.contents = image.contents;
    this.arrivedAt = image.arrivedAt;
    this.uses = image.uses;
    this.since = image.since;
  }

  /** As a holder of bytes. */
  get holder(): number {
    return this.number + 1;
  }

  get bytesShare(): number {
    return this.#needed.bytesShare(this.contents);
  }

  get requests(): number {
    return this.#needed.uniqueCount(this.holder);
  }
}

/** Simulates the cache of backref: it evicts whole images, in the order of the server's own module. */
export function simulateImages({sizes, images, pulls}: Workload, capacity: number): Figures {
  const cache = new ImageCache({sizes, images}, capacity);
  const counter = new Counter();
  for (const pull of pulls) counter.count(cache.pull(pull));
  return counter.figures();
}

class ImageCache {
  readonly #sizes: Float64Array;
  readonly #images: readonly Image[];
  readonly #capacity: number;
  readonly #needed = new NeededBytes();
  readonly #cached = new Map<number, CachedImage>();
  /** The uses of images that were evicted, the oldest eviction first. */
  readonly #ghosts = new Map<number, number>();
  readonly #order: EvictionOrder<CachedImage>;
  /** By content, the number of the pull that it made room for. */
  readonly #evictedAt = new Map<number, number>();
  #pulls = 0;
  #used = 0;
  #age = 0;

  constructor({sizes, images}: Pick<Workload, 'sizes' | 'images'>, capacity: number) {
    this.#sizes = sizes;
    this.#images = images;
    this.#capacity = capacity;
    this.#order = createEvictionOrder<CachedImage>([], {probationLimit: probationLimitOf(capacity)});
  }

  pull({at, image: number, blobs, isCrawl}: Pull) {
    this.#pulls += 1;
    const known = this.#cached.get(number);
    const image = known ?? this.#link(number, at);
    // An image that is being pulled stays.
    this.#order.remove(image);
    const manifest = this.#images[number]?.manifest ?? 0;
    const result = {isCrawl, bytes: 0, hitBytes: 0, isComplete: true, isBroken: false};
    for (const content of [manifest, ...blobs]) {
      const size = this.#sizes[content] ?? 0;
      result.bytes += size;
      if (this.#needed.sizeOf(content) > 0) result.hitBytes += size;
      else {
        result.isComplete = false;
        result.isBroken ||= known !== undefined && (this.#evictedAt.get(content) ?? -1) > image.since;
        if (this.#makeRoom(size)) {
          this.#needed.setSize(content, size);
          this.#used += size;
        }
      }
    }
    // The server counts the uses within a minute once.
    if (at > image.usedAt) image.uses += 1;
    image.usedAt = at;
    image.age = this.#age;
    this.#order.update(image);
    return result;
  }

  #link(number: number, at: number): CachedImage {
    const {manifest = 0, blobs = []} = this.#images[number] ?? {};
    const uses = this.#ghosts.get(number) ?? 0;
    this.#ghosts.delete(number);
    const contents = [...new Set([manifest, ...blobs])];
    const image = new CachedImage(this.#needed, {number, contents, arrivedAt: at, uses, since: this.#pulls});
    this.#needed.hold(image.holder, contents);
    this.#cached.set(number, image);
    return image;
  }

  /** @returns false when that much cannot be freed: the content passes uncached */
  #makeRoom(size: number): boolean {
    while (this.#used + size > this.#capacity) {
      const next = this.#order.next();
      if (!next) return false;
      if (next.reason === 'value') this.#age = Math.max(this.#age, next.value);
      this.#evict(next.root);
    }
    return true;
  }

  #evict(image: CachedImage): void {
    this.#order.remove(image);
    this.#cached.delete(image.number);
    for (const content of image.contents) {
      if (this.#needed.holdersOf(content) > 1 || this.#needed.sizeOf(content) === 0) continue;
      this.#used -= this.#needed.sizeOf(content);
      this.#needed.setSize(content, 0);
      this.#evictedAt.set(content, this.#pulls);
    }
    const changed = new Set(this.#needed.release(image.holder, image.contents));
    for (const holder of changed) {
      const other = this.#cached.get(holder - 1);
      if (other && this.#order.has(other)) this.#order.update(other);
    }
    this.#ghosts.set(image.number, image.uses);
    for (const [oldest] of this.#ghosts) {
      if (this.#ghosts.size <= this.#cached.size) break;
      this.#ghosts.delete(oldest);
    }
  }
}
