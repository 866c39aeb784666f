import {KeyedHeap} from '../../src/registry/maintenance/keyed-heap.ts';
import {Counter, type Figures} from './figures.ts';
import type {Pull, Workload} from './workload.ts';

/** A cache of single blobs; manifests are blobs too. */
interface BlobCache {
  has(content: number): boolean;
  /** Takes notice of a request. @returns the contents that were evicted for it */
  request(content: number, nextUse: number): readonly number[];
}

/** Simulates a cache that evicts what was used least recently. */
export const simulateLru = (workload: Workload, capacity: number): Figures =>
  simulate(workload, new LruCache(workload.sizes, capacity));

/** Simulates a cache that knows the future, and evicts what is used last: what any order can reach at most, roughly. */
export const simulateBelady = (workload: Workload, capacity: number): Figures =>
  simulate(workload, new BeladyCache(workload.sizes, capacity));

function simulate({sizes, images, pulls}: Workload, cache: BlobCache): Figures {
  const requests = pulls.map(({image, blobs}) => [images[image]?.manifest ?? 0, ...blobs]);
  const nextUses = nextUsesOf(requests, sizes.length);
  const counter = new Counter();
  const storedAt = new Map<number, number>();
  const evictedAt = new Map<number, number>();
  let time = 0;
  for (const [index, contents] of requests.entries()) {
    const {isCrawl} = pulls[index] as Pull;
    const result = {isCrawl, bytes: 0, hitBytes: 0, isComplete: true, isBroken: false};
    const [manifest = 0] = contents;
    const hadManifest = cache.has(manifest);
    for (const content of contents) {
      const size = sizes[content] ?? 0;
      result.bytes += size;
      if (cache.has(content)) result.hitBytes += size;
      else {
        result.isComplete = false;
        result.isBroken ||= hadManifest && (evictedAt.get(content) ?? -1) > (storedAt.get(manifest) ?? 0);
        storedAt.set(content, time);
      }
      for (const evicted of cache.request(content, nextUses[time] ?? NEVER)) evictedAt.set(evicted, time);
      time += 1;
    }
    counter.count(result);
  }
  return counter.figures();
}

const NEVER = 2 ** 31 - 1;

/** By request, when its content is requested again. */
function nextUsesOf(requests: readonly (readonly number[])[], contents: number): Int32Array {
  const all = requests.flat();
  const nextUses = new Int32Array(all.length);
  const next = new Int32Array(contents).fill(NEVER);
  for (let time = all.length - 1; time >= 0; time--) {
    const content = all[time] ?? 0;
    nextUses[time] = next[content] ?? NEVER;
    next[content] = time;
  }
  return nextUses;
}

class LruCache implements BlobCache {
  readonly #sizes: Float64Array;
  readonly #capacity: number;
  readonly #contents = new Set<number>();
  #used = 0;

  constructor(sizes: Float64Array, capacity: number) {
    this.#sizes = sizes;
    this.#capacity = capacity;
  }

  has(content: number): boolean {
    return this.#contents.has(content);
  }

  request(content: number): readonly number[] {
    const size = this.#sizes[content] ?? 0;
    const evicted: number[] = [];
    if (!this.#contents.delete(content)) {
      if (size > this.#capacity) return evicted;
      this.#used += size;
    }
    this.#contents.add(content);
    for (const oldest of this.#contents) {
      if (this.#used <= this.#capacity) break;
      this.#contents.delete(oldest);
      this.#used -= this.#sizes[oldest] ?? 0;
      evicted.push(oldest);
    }
    return evicted;
  }
}

class BeladyCache implements BlobCache {
  readonly #sizes: Float64Array;
  readonly #capacity: number;
  /** The lowest key is the farthest use. */
  readonly #byUse = new KeyedHeap<number>();
  readonly #contents = new Set<number>();
  #used = 0;

  constructor(sizes: Float64Array, capacity: number) {
    this.#sizes = sizes;
    this.#capacity = capacity;
  }

  has(content: number): boolean {
    return this.#contents.has(content);
  }

  request(content: number, nextUse: number): readonly number[] {
    if (!this.#contents.has(content)) {
      this.#contents.add(content);
      this.#used += this.#sizes[content] ?? 0;
    }
    this.#byUse.set(content, -nextUse);
    const evicted: number[] = [];
    while (this.#used > this.#capacity) {
      const farthest = this.#byUse.lowest()?.item;
      if (farthest === undefined) break;
      this.#byUse.delete(farthest);
      this.#contents.delete(farthest);
      this.#used -= this.#sizes[farthest] ?? 0;
      evicted.push(farthest);
    }
    return evicted;
  }
}
