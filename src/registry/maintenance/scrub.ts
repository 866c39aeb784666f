import {setImmediate as nextTurn} from 'node:timers/promises';
import {type Clock, sleep} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import type {Claim, Coordination} from '../../storage/coordination.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {Recheck, type RecheckParts, renewing} from './recheck.ts';

/** Hashes a little of what is stored again and again, so that everything is hashed once in each period. */
export interface Scrub {
  /**
   * Hashes what has become due since the last step, at no more than `MAX_BYTES_PER_SECOND`. The first step after a start
   * only notes where the schedule is.
   * @throws the signal's reason; StoreMissing, with nothing found bad, while the blob store is missing
   */
  step(signal: AbortSignal): Promise<void>;
}

export interface ScrubParts extends RecheckParts {
  metadata: Metadata;
  store: BlobStore;
  coordination: Coordination;
  clock: Clock;
  /** Milliseconds in which everything is hashed once. */
  every: number;
}

/** A part of all digests in their order; both ends from 0 to 1. */
export interface DigestRange {
  from: number;
  to: number;
}

/** Bytes that are read per second, so that pulls keep the disk. */
const MAX_BYTES_PER_SECOND = 32 * 1024 * 1024;
/** Bytes after which reading waits for its time. */
const BURST_BYTES = MAX_BYTES_PER_SECOND / 10;
/** Rows that one query reads. A manifest may have megabytes. */
const MAX_BLOBS = 200;
const MAX_MANIFESTS = 16;
/** Each period begins this part of all digests further on. Multiples of the golden ratio spread evenly. */
const PERIOD_SHIFT = 0.6180339887498949;

const CLAIM = 'scrub';
/** How long other processes wait for one that died. */
const CLAIM_TTL_MS = 60_000;

type Pace = (bytes: number) => Promise<void>;

export const createScrub = (parts: ScrubParts): Scrub => new Scrubber(parts);

class Scrubber implements Scrub {
  readonly #parts: ScrubParts;
  /** Where the last step ended, in periods since the epoch. */
  #reached: number | undefined;

  constructor(parts: ScrubParts) {
    this.#parts = parts;
  }

  async step(signal: AbortSignal): Promise<void> {
    const {store, coordination, clock, every} = this.#parts;
    const due = clock.now() / every;
    this.#reached ??= due;
    // Nothing is hashed twice for a disk that is too slow, or a clock that was set.
    const reached = Math.max(this.#reached, due - 1);
    const claim = await coordination.claim(CLAIM, CLAIM_TTL_MS);
    if (!claim.mine) return;
    try {
      await store.check();
      await this.#hash(rangesDue(reached, due), this.#pacing(claim, signal));
    } finally {
      await claim.release();
    }
    this.#reached = due;
  }

  async #hash(ranges: readonly DigestRange[], pace: Pace): Promise<void> {
    const recheck = new Recheck(this.#parts, false);
    for (const range of ranges) {
      await this.#hashManifests(recheck, range, pace);
      await this.#hashBlobs(recheck, range, pace);
    }
    recheck.end();
  }

  async #hashManifests(recheck: Recheck, {from, to}: DigestRange, pace: Pace): Promise<void> {
    const {metadata} = this.#parts;
    const all = (await metadata.lastManifest()) ?? 0;
    const last = Math.floor(to * all);
    for (let after = Math.floor(from * all); after < last; ) {
      const page = await metadata.manifests(after, Math.min(MAX_MANIFESTS, last - after));
      for (const manifest of page) {
        if (manifest.cursor > last) return;
        recheck.manifest(manifest);
        await pace(manifest.bytes.length);
      }
      after = page.at(-1)?.cursor ?? last;
    }
  }

  async #hashBlobs(recheck: Recheck, {from, to}: DigestRange, pace: Pace): Promise<void> {
    for (const algorithm of ['sha256', 'sha512']) {
      const end = `${algorithm}:${hexOf(to)}`;
      for (let after = `${algorithm}:${hexOf(from)}`; after < end; ) {
        const page = await this.#parts.metadata.blobs(after as Digest, MAX_BLOBS);
        for (const {digest} of page) if (digest < end) await recheck.blob(digest, pace);
        after = page.at(-1)?.digest ?? end;
      }
    }
  }

  /** Waits after each burst, so that what was read has taken its time. */
  #pacing(claim: Claim, signal: AbortSignal): Pace {
    const {clock} = this.#parts;
    const renew = renewing(claim, clock);
    let burst = 0;
    return async (bytes) => {
      signal.throwIfAborted();
      await nextTurn();
      burst += bytes;
      if (burst < BURST_BYTES) return;
      const ms = (burst / MAX_BYTES_PER_SECOND) * 1000;
      burst = 0;
      await sleep(clock, ms, signal);
      await renew();
    };
  }
}

/**
 * The parts of all digests that are due between two times. The time alone decides which, so a server that restarts goes
 * on where the schedule is. A period begins elsewhere than the one before: a machine that is off at the same hours each
 * day misses other digests in each period.
 * @param from periods since the epoch
 * @param to the same, at most one period later
 */
export function rangesDue(from: number, to: number): DigestRange[] {
  const ranges: DigestRange[] = [];
  for (let period = Math.floor(from); period < to; period++) {
    const shift = (period * PERIOD_SHIFT) % 1;
    // The digests from the shift to the end come first, then those before it.
    const turn = period + 1 - shift;
    // The ends of both parts are exact: rounding must not leave out what lies between.
    for (const part of [
      {start: period, end: turn, from: shift, to: 1},
      {start: turn, end: period + 1, from: 0, to: shift},
    ]) {
      const start = Math.max(from, part.start);
      const end = Math.min(to, part.end);
      if (start >= end) continue;
      ranges.push({
        from: start === part.start ? part.from : part.from + start - part.start,
        to: end === part.end ? part.to : part.from + end - part.start,
      });
    }
  }
  return ranges;
}

/** Where a part of all digests begins. The end of all digests comes after every digit. */
const hexOf = (place: number): string => {
  const step = Math.floor(place * 2 ** DIGEST_BITS);
  return step >= 2 ** DIGEST_BITS ? '~' : step.toString(16).padStart(DIGEST_BITS / 4, '0');
};

/** The leading bits of a digest that decide when it is due: as many as a time in periods can distinguish. */
const DIGEST_BITS = 32;
