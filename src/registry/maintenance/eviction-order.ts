import {KeyedHeap} from './keyed-heap.ts';

/** What the order of eviction goes by: an image root, or anything else that is pulled and evicted as a whole. */
export interface EvictionFacts {
  readonly uses: number;
  /** The cache's age at the last use. */
  readonly age: number;
  readonly arrivedAt: number;
  /**
   * Bytes that it needs alone, and its part of those that several need. With the former alone, two images of the same
   * layers would both seem to cost nothing, and stay for ever.
   */
  readonly bytesShare: number;
  /** The requests that it takes to pull again what eviction frees. */
  readonly requests: number;
  /** It belongs to another one that is here. */
  readonly isMember: boolean;
}

export interface NextToEvict<Root> {
  root: Root;
  /** `probation`: used too rarely since it arrived. `value`: worth least of those that were used more often. */
  reason: 'probation' | 'value';
  /** The cache's age rises to it when a root goes for its value. */
  value: number;
}

/** Which root goes next. */
export interface EvictionOrder<Root> {
  /** Undefined when there is none. The root stays in the order until it is removed. */
  next(): NextToEvict<Root> | undefined;
  /** Adds a root, or takes notice of what changed about it. */
  update(root: Root): void;
  remove(root: Root): void;
  has(root: Root): boolean;
}

/** From so many uses on, a root is off probation: a scanner's one pull does not take it there. */
const USES_OF_A_REGULAR = 2;
/** The share of the capacity that roots on probation may hold while there are others. */
const PROBATION_SHARE = 0.1;
/** A request costs as much as so many bytes: about the time of one against that of a transfer from a distant registry. */
const BYTES_PER_REQUEST = 4_000_000;
/** What anything takes at least: a block of the file system. */
const MIN_BYTES = 4096;

/** @param capacity bytes */
export const probationLimitOf = (capacity: number): number => capacity * PROBATION_SHARE;

/** What it costs to pull something again, in bytes. */
const fetchCost = ({requests, bytes}: {requests: number; bytes: number}): number =>
  requests * BYTES_PER_REQUEST + bytes;

/**
 * GreedyDual-Size-Frequency: what a byte of it saves, on top of the age that the cache had at the last use. As the cache's age
 * rises, what was popular once is overtaken by what is used now.
 */
export function retentionValue({age, uses, requests, bytesShare}: EvictionFacts): number {
  const bytes = Math.max(bytesShare, MIN_BYTES);
  return age + (uses * fetchCost({requests, bytes})) / bytes;
}

/**
 * Those on probation go first, oldest first, while they hold more than `probationLimit` bytes (as in S3-FIFO); otherwise the
 * one of the lowest value goes. Members of other roots wait for these, as they free nothing before.
 */
export function createEvictionOrder<Root extends EvictionFacts>(
  roots: Iterable<Root>,
  {probationLimit}: {probationLimit: number},
): EvictionOrder<Root> {
  const order = new Order<Root>(probationLimit);
  for (const root of roots) order.update(root);
  return order;
}

class Order<Root extends EvictionFacts> implements EvictionOrder<Root> {
  readonly #probationLimit: number;
  readonly #probation = new KeyedHeap<Root>();
  readonly #regulars = new KeyedHeap<Root>();
  /** Of the roots on probation. */
  readonly #bytes = new Map<Root, number>();
  #probationBytes = 0;

  constructor(probationLimit: number) {
    this.#probationLimit = probationLimit;
  }

  next(): NextToEvict<Root> | undefined {
    const oldest = this.#probation.lowest()?.item;
    const least = this.#regulars.lowest();
    const isCrowded = this.#probationBytes > this.#probationLimit;
    if (oldest && (isCrowded || !least || least.item.isMember)) {
      return {root: oldest, reason: 'probation', value: retentionValue(oldest)};
    }
    return least && {root: least.item, reason: 'value', value: retentionValue(least.item)};
  }

  update(root: Root): void {
    this.remove(root);
    if (root.isMember) {
      this.#regulars.set(root, Number.POSITIVE_INFINITY);
    } else if (root.uses < USES_OF_A_REGULAR) {
      this.#probation.set(root, root.arrivedAt);
      this.#bytes.set(root, root.bytesShare);
      this.#probationBytes += root.bytesShare;
    } else this.#regulars.set(root, retentionValue(root));
  }

  has(root: Root): boolean {
    return this.#regulars.has(root) || this.#probation.has(root);
  }

  remove(root: Root): void {
    this.#regulars.delete(root);
    if (!this.#probation.delete(root)) return;
    this.#probationBytes -= this.#bytes.get(root) ?? 0;
    this.#bytes.delete(root);
  }
}
