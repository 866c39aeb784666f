import {setImmediate as nextTurn} from 'node:timers/promises';
import {type Clock, waitAtMost} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {type Disk, type DiskState, diskBytes} from '../../storage/disk.ts';
import type {Metadata} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';
import {NoRoom, type Reservation, type Space} from '../space.ts';

/** How much of the disk the cache may use; a share is one of the file system that the blobs are on. */
export interface CacheLimits {
  /** Undefined: no limit but the disk. */
  maxSize: {bytes: number} | {percent: number} | undefined;
  minFree: {bytes: number} | {percent: number};
  /** Percentages of the limit. */
  highWatermark: number;
  lowWatermark: number;
}

/** What the disk is used for, in bytes. */
export interface Usage {
  blobs: number;
  /** Unfinished downloads and uploads. */
  spools: number;
  quarantine: number;
  database: number;
  /** Room for downloads and uploads that has not been written to yet. */
  reserved: number;
  /** All of the above; without the database, where that is on another file system. */
  used: number;
  /** The most that `used` may be; infinite while the disk cannot be measured and nothing else limits it. */
  limit: number;
  /** Above the one, images are evicted; down to the other. */
  high: number;
  low: number;
}

/** Counts what the disk is used for, in blocks as the file system gives them out, and reserves room on it. */
export interface Capacity extends Space {
  /** False until `count` has ended once: until then the disk alone limits what is reserved. */
  readonly isCounted: boolean;
  /** Counts all stored blobs, in small steps. @throws the signal's reason */
  count(signal: AbortSignal): Promise<void>;
  /** Looks at the disk, the unfinished transfers and the quarantine. */
  measure(): Promise<Usage>;
  /** As `measure`, from what was found last. */
  usage(): Usage;
}

export interface CapacityParts {
  limits: CacheLimits;
  metadata: Pick<Metadata, 'blobs'>;
  store: BlobStore;
  spools: Spools;
  disk: Disk;
  /**
   * Evicts until so many more bytes have room, as far as that is possible. 0: down to the low watermark.
   * @param waiting aborted when nobody waits for them any more
   */
  makeRoom(bytes: number, waiting?: AbortSignal): Promise<void>;
  clock: Clock;
}

/** Rows that one query reads. */
const BATCH = 500;
/** How long a download waits for room before it goes on without being kept. */
const ROOM_TIMEOUT_MS = 2000;

/** A part of a reservation. */
interface Held {
  bytes: number;
  written(): number;
}

/** When room for `more` bytes is there. */
interface Rule {
  fits(usage: Usage, more: number): boolean;
  /** Whether evicting could be enough. */
  isPossible(usage: Usage, more: number): boolean;
  refusal(usage: Usage, more: number): string;
}

export const createCapacity = (parts: CapacityParts): Capacity => new DiskCapacity(parts);

class DiskCapacity implements Capacity {
  isCounted = false;
  readonly #parts: CapacityParts;
  readonly #held = new Set<Held>();
  #blobs = 0;
  #idleSpools = 0;
  #quarantine = 0;
  /** Undefined while the disk cannot be measured. */
  #disk: DiskState | undefined;
  /** A count under way: the blobs up to `reached` are in `bytes`. */
  #count: {reached: Digest | undefined; bytes: number} | undefined;

  constructor(parts: CapacityParts) {
    this.#parts = parts;
  }

  async count(signal: AbortSignal): Promise<void> {
    const count: {reached: Digest | undefined; bytes: number} = {reached: undefined, bytes: 0};
    this.#count = count;
    try {
      for (;;) {
        const page = await this.#parts.metadata.blobs(count.reached, BATCH);
        for (const {size} of page) count.bytes += diskBytes(size);
        count.reached = page.at(-1)?.digest ?? count.reached;
        if (page.length < BATCH) break;
        await nextTurn();
        signal.throwIfAborted();
      }
      this.#blobs = count.bytes;
      this.isCounted = true;
    } finally {
      this.#count = undefined;
    }
  }

  changed(digest: Digest, before: number | undefined, after: number | undefined): void {
    const change = diskBytes(after ?? 0) - diskBytes(before ?? 0);
    this.#blobs += change;
    // Between two looks at the disk, what is deleted makes room at once.
    if (this.#disk) this.#disk = {...this.#disk, free: Math.max(0, this.#disk.free - change)};
    // What a count has not come to yet it will find changed.
    const count = this.#count;
    if (count?.reached !== undefined && digest <= count.reached) count.bytes += change;
    if (change > 0) this.#evictAboveHigh();
  }

  async measure(): Promise<Usage> {
    const {disk, spools, store} = this.#parts;
    const [state, idle, aside] = await Promise.all([
      unlessFailing(disk.measure()),
      unlessFailing(spools.idleBytes()),
      unlessFailing(store.bytesSetAside()),
    ]);
    this.#disk = state;
    this.#idleSpools = idle ?? this.#idleSpools;
    this.#quarantine = aside ? aside.upstream + aside.local : this.#quarantine;
    return this.usage();
  }

  usage(): Usage {
    const {highWatermark, lowWatermark} = this.#parts.limits;
    const disk = this.#disk;
    const {written, unwritten: reserved} = this.#transfers();
    const [blobs, quarantine, database] = [this.#blobs, this.#quarantine, disk?.database ?? 0];
    const spools = this.#idleSpools + written;
    const here = blobs + spools + quarantine + (disk?.isShared ? database : 0);
    const limit = this.#limit(here);
    return {
      blobs,
      spools,
      quarantine,
      database,
      reserved,
      used: here + reserved,
      limit,
      high: (limit * highWatermark) / 100,
      low: (limit * lowWatermark) / 100,
    };
  }

  reserve(bytes: number, written: () => number): Promise<Reservation> {
    return this.#reserve(bytes, written, {
      fits: ({used, limit}, more) => used + more <= limit,
      isPossible: ({limit}, more) => more <= limit,
      refusal: ({used, limit}, more) =>
        `the cache has no room for ${more} bytes: ${used} of ${Math.floor(limit)} are in use`,
    });
  }

  reservePushed(bytes: number, written: () => number): Promise<Reservation> {
    const free = () => this.#disk?.free ?? Number.POSITIVE_INFINITY;
    return this.#reserve(bytes, written, {
      fits: ({reserved}, more) => more + reserved <= free(),
      isPossible: ({blobs}, more) => more <= free() + blobs,
      refusal: (_, more) => `the disk has no room for ${more} bytes: ${free()} are free`,
    });
  }

  async #reserve(bytes: number, written: () => number, rule: Rule): Promise<Reservation> {
    const held: Held = {bytes: 0, written};
    const release = () => void this.#held.delete(held);
    this.#held.add(held);
    try {
      await this.#grow(held, bytes, rule);
    } catch (error) {
      release();
      throw error;
    }
    return {grow: (total) => this.#grow(held, total, rule), release};
  }

  async #grow(held: Held, total: number, rule: Rule): Promise<void> {
    // Looked at and taken in one go: others ask in the meantime.
    const isTaken = (): boolean => {
      if (total > held.bytes && !rule.fits(this.usage(), total - held.bytes)) return false;
      held.bytes = Math.max(held.bytes, total);
      return true;
    };
    const more = total - held.bytes;
    if (more <= 0) return;
    await this.#measureSpace();
    if (isTaken()) return this.#evictAboveHigh();
    await this.measure();
    if (!isTaken()) {
      if (rule.isPossible(this.usage(), more)) await this.#makeRoom(more);
      await this.#measureSpace();
      if (!isTaken()) throw new NoRoom(rule.refusal(this.usage(), more));
    }
    this.#evictAboveHigh();
  }

  /** For each reservation. The database, and which disk it is on, change slowly: they are measured with everything else. */
  async #measureSpace(): Promise<void> {
    const {disk} = this.#parts;
    const space = this.#disk && (await unlessFailing(disk.space()));
    // Looked at again: it may have been measured meanwhile.
    if (space && this.#disk) this.#disk = {...this.#disk, ...space};
    else this.#disk = await unlessFailing(disk.measure());
  }

  async #makeRoom(bytes: number): Promise<void> {
    const waiting = new AbortController();
    await waitAtMost(ROOM_TIMEOUT_MS, this.#parts.makeRoom(bytes, waiting.signal), this.#parts.clock);
    waiting.abort();
  }

  #evictAboveHigh(): void {
    if (!this.isCounted) return;
    const {used, high} = this.usage();
    if (used > high) this.#parts.makeRoom(0).catch(() => {});
  }

  /** What running transfers have on the disk, and what they still have room for. */
  #transfers(): {written: number; unwritten: number} {
    let written = 0;
    let unwritten = 0;
    for (const held of this.#held) {
      const size = held.written();
      written += diskBytes(size);
      unwritten += Math.max(0, held.bytes - size);
    }
    return {written, unwritten};
  }

  /** @param here the bytes on the disk now: what is free beside them may be used up to the part that stays free */
  #limit(here: number): number {
    const {maxSize, minFree} = this.#parts.limits;
    const disk = this.#disk;
    const isLimited = maxSize !== undefined && this.isCounted;
    const ceiling = isLimited ? bytesOf(maxSize, disk) : Number.POSITIVE_INFINITY;
    const free = disk ? disk.free - bytesOf(minFree, disk) : Number.POSITIVE_INFINITY;
    return Math.max(0, Math.min(ceiling, here + free));
  }
}

function bytesOf(amount: {bytes: number} | {percent: number}, disk: DiskState | undefined): number {
  if ('bytes' in amount) return amount.bytes;
  return disk ? (disk.size * amount.percent) / 100 : Number.POSITIVE_INFINITY;
}

/** What a disk says that may not be mounted. */
const unlessFailing = <T>(answer: Promise<T>): Promise<T | undefined> =>
  answer.then(
    (value) => value,
    () => undefined,
  );
