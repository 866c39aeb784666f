import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {EventMap, Events} from '../../events.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import type {Claim, Coordination} from '../../storage/coordination.ts';
import type {Pin} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';
import type {Capacity} from './capacity.ts';
import {type EvictedRoot, type EvictionTerms, RootEviction, type RootEvictionParts} from './evict-root.ts';
import {createEvictionOrder, type EvictionOrder, probationLimitOf} from './eviction-order.ts';
import {claimCollectionNow} from './garbage.ts';
import {type ImageRoot, type Inventory, type Protection, takeInventory} from './inventory.ts';
import {eachNumber} from './inventory-rows.ts';
import {renewing} from './recheck.ts';

/** Keeps the cache below its limit, in small steps beside pulls: the images that are worth least go first. */
export interface Evictor {
  /**
   * Evicts until so many bytes more have room below the limit, or, where the cache is above the high watermark, down to
   * the low one. Resolves when that is done, or cannot be: at once while
   * something else holds `claimCollection`.
   * @param waiting aborted when nobody waits for these bytes any more: then they do not count
   */
  makeRoom(bytes: number, waiting?: AbortSignal): Promise<void>;
  /** Measures the disk, counts what is stored now and then, and evicts above the high watermark. */
  step(signal: AbortSignal): Promise<void>;
  /** Evicts one root; hold `claimCollection` meanwhile. As `RootEviction.evict`. */
  evict(inventory: Inventory, root: ImageRoot, terms: EvictionTerms): Promise<EvictedRoot | undefined>;
  /** The protection that the configuration and the stored pins give now. */
  protection(): Promise<Protection>;
  /** Ends the round that runs, within a step. */
  close(): Promise<void>;
}

export interface EvictorParts extends RootEvictionParts {
  capacity: Capacity;
  protection(stored: readonly Pin[]): Protection;
  /** Whether there is a limit to keep to: then a full disk is prepared for. */
  isBounded: boolean;
  store: BlobStore;
  spools: Spools;
  coordination: Coordination;
  events: Events;
}

/** How long a blob that no manifest names is kept: one that was just pulled may be named by the next manifest. */
const UNROOTED_GRACE_MS = 60 * 60_000;
/** Unfinished downloads that nobody went on with for so long make room before any image. */
const ABANDONED_MS = 10 * 60_000;
/** How long after a round that could not make the room the next one may begin. */
const PAUSE_MS = 60_000;
const RECOUNT_MS = 6 * 60 * 60_000;

type Evicted = EventMap['cache.evicted'][0];
type Reason = keyof Evicted['counts'];

export const createEvictor = (parts: EvictorParts): Evictor => new CacheEvictor(parts);

class CacheEvictor implements Evictor {
  readonly #parts: EvictorParts;
  readonly #roots: RootEviction;
  readonly #stopping = new AbortController();
  #round: Promise<void> | undefined;
  /** What each of those who wait for the round needs. */
  readonly #wanted = new Set<{bytes: number}>();
  /** No round begins before, by the monotonic clock. */
  #pausedUntil = 0;
  /** It was said that what is kept fills the cache. */
  #isCrowded = false;
  #countedAt = Number.NEGATIVE_INFINITY;

  constructor(parts: EvictorParts) {
    this.#parts = parts;
    this.#roots = new RootEviction(parts);
  }

  makeRoom(bytes: number, waiting?: AbortSignal): Promise<void> {
    const {clock, events} = this.#parts;
    const isPaused = this.#round === undefined && clock.monotonic() < this.#pausedUntil;
    if (isPaused || this.#stopping.signal.aborted) return Promise.resolve();
    const wanted = {bytes};
    this.#wanted.add(wanted);
    waiting?.addEventListener('abort', () => this.#wanted.delete(wanted), {once: true});
    this.#round ??= this.#run()
      .catch((error: unknown) => {
        if (this.#stopping.signal.aborted) return;
        this.#pausedUntil = clock.monotonic() + PAUSE_MS;
        events.emit('background.failed', {task: 'evict images', error});
      })
      .finally(() => {
        this.#round = undefined;
        this.#wanted.clear();
      });
    return this.#round;
  }

  async step(signal: AbortSignal): Promise<void> {
    const {capacity, clock} = this.#parts;
    if (clock.monotonic() - this.#countedAt >= RECOUNT_MS) {
      await capacity.count(signal);
      this.#countedAt = clock.monotonic();
    }
    const {used, high} = await capacity.measure();
    if (used > high) await this.makeRoom(0);
    await this.#occupyBallast();
  }

  evict(inventory: Inventory, root: ImageRoot, terms: EvictionTerms): Promise<EvictedRoot | undefined> {
    return this.#roots.evict(inventory, root, terms);
  }

  async protection(): Promise<Protection> {
    return this.#parts.protection(await this.#parts.metadata.pins());
  }

  async close(): Promise<void> {
    this.#stopping.abort();
    await this.#round;
  }

  async #run(): Promise<void> {
    const {coordination, capacity, clock} = this.#parts;
    // A backup or a restore may hold it for minutes: what needs room meanwhile is passed on uncached at once.
    const claim = await claimCollectionNow(coordination);
    if (!claim) return;
    try {
      const {used, high, limit} = await capacity.measure();
      if (used <= high && used + this.#wantedBytes() <= limit) return;
      await this.#evictImages(claim);
      if (this.#excess() > 0) this.#pausedUntil = clock.monotonic() + PAUSE_MS;
    } finally {
      await claim.release();
    }
  }

  #wantedBytes(): number {
    let sum = 0;
    for (const {bytes} of this.#wanted) sum += bytes;
    return sum;
  }

  /** The bytes that are still to go. */
  #excess(): number {
    const {used, low, limit} = this.#parts.capacity.usage();
    return used - Math.max(0, Math.min(low, limit - this.#wantedBytes()));
  }

  async #evictImages(claim: Claim): Promise<void> {
    const round = new Round(this.#parts.clock);
    try {
      await this.#removeLeftovers(round);
      if (this.#excess() > 0) await this.#evictInOrder(round, renewing(claim, this.#parts.clock));
    } finally {
      const evicted = round.result();
      if (evicted) this.#parts.events.emit('cache.evicted', evicted);
    }
  }

  /** Damaged copies and abandoned downloads make room before any image. */
  async #removeLeftovers(round: Round): Promise<void> {
    const {store, spools, capacity, clock} = this.#parts;
    const dropped = await store.dropSetAside(Math.max(0, this.#excess()));
    if (dropped > 0) round.add('damaged', dropped);
    await capacity.measure();
    if (this.#excess() <= 0) return;
    await spools.sweep(clock.now() - ABANDONED_MS, async () => true);
    await capacity.measure();
  }

  async #evictInOrder(round: Round, renew: () => Promise<void>): Promise<void> {
    const {metadata, capacity, clock} = this.#parts;
    const {signal} = this.#stopping;
    const takenAt = clock.now();
    const inventory = await takeInventory(metadata, await this.protection(), takenAt);
    await this.#evictUnrooted(inventory, round);
    const probationLimit = probationLimitOf(capacity.usage().limit);
    const order = createEvictionOrder<ImageRoot>([], {probationLimit});
    // To value a hundred thousand images takes a second.
    await eachNumber(inventory.roots.length, (index) => {
      const root = inventory.roots[index];
      if (root && root.kept === undefined) order.update(root);
    });
    let spared = 0;
    while (this.#excess() > 0) {
      signal.throwIfAborted();
      await renew();
      const isGone = await this.#evictNext(inventory, order, {round, takenAt});
      if (isGone === undefined) break;
      if (!isGone) spared += 1;
      await nextTurn();
    }
    this.#reportCrowded(inventory, spared);
  }

  /** @returns whether it went; undefined when there is none left */
  async #evictNext(
    inventory: Inventory,
    order: EvictionOrder<ImageRoot>,
    {round, takenAt}: {round: Round; takenAt: number},
  ): Promise<boolean | undefined> {
    const next = order.next();
    if (!next) return undefined;
    const {root, reason, value} = next;
    const usedAt = Math.max(root.lastUsedAt, root.arrivedAt);
    order.remove(root);
    if (await this.#isPinnedNow(root)) return false;
    const {signal} = this.#stopping;
    const age = reason === 'value' ? {age: value} : {};
    const gone = await this.#roots.evict(inventory, root, {idleSince: takenAt, ...age, signal});
    if (!gone) return false;
    for (const changed of gone.changed) if (order.has(changed)) order.update(changed);
    round.add(reason, gone.bytes, usedAt);
    return true;
  }

  /** Looked at again for each root: it may have been pinned since the inventory was taken. */
  async #isPinnedNow({repository, tags, members}: ImageRoot): Promise<boolean> {
    return (await this.protection()).isPinned(repository, [...tags, ...members]);
  }

  async #evictUnrooted(inventory: Inventory, round: Round): Promise<void> {
    const before = this.#parts.clock.now() - UNROOTED_GRACE_MS;
    for (const blob of inventory.unrooted) {
      if (this.#excess() <= 0) return;
      this.#stopping.signal.throwIfAborted();
      if (blob.storedAt >= before) continue;
      const bytes = await this.#roots.deleteAll([blob], this.#stopping.signal);
      if (bytes > 0) round.add('unrooted', bytes);
    }
  }

  /** Says once that everything that is left is kept. @param spared roots that are being pulled or were just used */
  #reportCrowded({roots}: Inventory, spared: number): void {
    const {used, low, limit} = this.#parts.capacity.usage();
    const isCrowded = used > low && spared === 0 && this.#excess() > 0;
    if (isCrowded && !this.#isCrowded) {
      this.#parts.events.emit('cache.crowded', {used, limit: Math.floor(limit), kept: roots.length});
    }
    this.#isCrowded = isCrowded;
  }

  /** Not on a disk that is nearly full: what it has left is for others. */
  async #occupyBallast(): Promise<void> {
    const {disk, isBounded} = this.#parts;
    if (!isBounded) return;
    try {
      const {free} = await disk.measure();
      if (free > MIN_FREE_FOR_BALLAST) await disk.occupyBallast();
    } catch {
      // Tried again with the next step.
    }
  }
}

const MIN_FREE_FOR_BALLAST = 32 * 2 ** 20;

/** What one round has evicted. */
class Round {
  readonly #clock: Clock;
  readonly #counts: Record<Reason, number> = {probation: 0, value: 0, unrooted: 0, damaged: 0, removed: 0};
  #bytes = 0;
  #youngest: number | undefined;

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** @param usedAt when an image was used last, in milliseconds since the epoch */
  add(reason: Reason, bytes: number, usedAt?: number): void {
    this.#counts[reason] += 1;
    this.#bytes += bytes;
    if (usedAt === undefined) return;
    const age = Math.max(0, this.#clock.now() - usedAt);
    this.#youngest = Math.min(this.#youngest ?? age, age);
  }

  /** Undefined when it evicted nothing. */
  result(): Evicted | undefined {
    if (Object.values(this.#counts).every((count) => count === 0)) return undefined;
    return {counts: {...this.#counts}, bytes: this.#bytes, youngest: this.#youngest};
  }
}
