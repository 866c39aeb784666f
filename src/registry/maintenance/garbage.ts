import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {type Claim, type Coordination, claimInTurn} from '../../storage/coordination.ts';
import type {Metadata} from '../../storage/metadata.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import type {Memory} from '../memory.ts';

/** What was collected. */
export interface GarbageResult {
  /** Expired uploads. */
  uploads: number;
  /** Expired lists of referrers that were synthesized for readers of fallback tags. */
  indexes: number;
  /** Links of repositories to pushed blobs that no manifest refers to. */
  links: number;
  /** Manifests that no repository is linked to. */
  manifests: number;
  /** Blobs that no repository is linked to, and bytes that a process left behind when it died. */
  blobs: number;
  /** Bytes of those manifests and blobs. */
  bytes: number;
}

export interface GarbageProgress extends GarbageResult {
  /** The fraction of the kinds of garbage that are done, 0 to 1. */
  done: number;
}

export interface GarbageOptions {
  /** For how many milliseconds unreferenced content is kept: a push uploads blobs before the manifest that refers to them. */
  grace: number;
  /** Ends the wait for another collection, and the collection between two pieces. What was collected by then stays so. */
  signal: AbortSignal;
  progress(state: GarbageProgress): void;
}

/**
 * Collects unreferenced content while pushes and pulls continue: the commit that deletes a piece checks it again, so a
 * manifest that arrives meanwhile keeps its blobs.
 */
export interface Garbage {
  /**
   * One collection runs at a time; one that is asked for meanwhile follows it.
   * @throws the signal's reason; StoreMissing, with nothing collected, while the blob store is missing
   */
  run(options: GarbageOptions): Promise<GarbageResult>;
}

export interface GarbageParts {
  metadata: Metadata;
  store: BlobStore;
  lifecycle: BlobLifecycle;
  memory: Memory;
  coordination: Coordination;
  /** Removes uploads that were last touched before `before`. @returns their number */
  expireUploads(before: number, signal: AbortSignal): Promise<number>;
  /** Milliseconds after which an upload that no request continues expires. */
  uploadLife: number;
  clock: Clock;
  events: Events;
}

/** Pieces that one query looks for. */
const BATCH = 200;
/** How long after a walk over all stored bytes the next one is due. */
const ORPHAN_WALK_INTERVAL_MS = 24 * 60 * 60 * 1000;
const CLAIM = 'garbage collection';
/** How long other processes wait for a collector that died. */
const CLAIM_TTL_MS = 60_000;

/**
 * While the claim is held, nothing is collected. Waits until it is free.
 * @throws the signal's reason when it is aborted during the wait
 */
export const claimCollection = (coordination: Coordination, signal: AbortSignal): Promise<Claim> =>
  claimInTurn(coordination, CLAIM, {ttlMs: CLAIM_TTL_MS, signal});

/** The same without waiting. @returns undefined while somebody else holds the claim */
export async function claimCollectionNow(coordination: Coordination): Promise<Claim | undefined> {
  const claim = await coordination.claim(CLAIM, CLAIM_TTL_MS);
  return claim.mine ? claim : undefined;
}

/** What the collection of one piece adds to the result; undefined where the piece turned out to be needed. */
type Collected = Partial<GarbageResult>;

export const createGarbage = (parts: GarbageParts): Garbage => new GarbageCollector(parts);

class GarbageCollector implements Garbage {
  readonly #parts: GarbageParts;
  #orphanWalkDueAt = 0;

  constructor(parts: GarbageParts) {
    this.#parts = parts;
  }

  async run(options: GarbageOptions): Promise<GarbageResult> {
    const claim = await claimCollection(this.#parts.coordination, options.signal);
    try {
      return await this.#collect(options);
    } finally {
      await claim.release();
    }
  }

  async #collect({grace, signal, progress}: GarbageOptions): Promise<GarbageResult> {
    const {store, clock, events} = this.#parts;
    const result: GarbageResult = {uploads: 0, indexes: 0, links: 0, manifests: 0, blobs: 0, bytes: 0};
    const before = clock.now() - grace;
    const kinds = [
      this.#uploads(signal),
      this.#indexes(),
      this.#links(before),
      this.#manifests(),
      this.#blobs(before),
      this.#orphans(before),
    ];
    signal.throwIfAborted();
    await store.check();
    for (const [index, kind] of kinds.entries()) {
      for await (const piece of kind) {
        for (const [name, count] of Object.entries(piece)) result[name as keyof GarbageResult] += count;
        progress({...result, done: index / kinds.length});
        // Queries run on this thread: requests that wait come first.
        await nextTurn();
        signal.throwIfAborted();
      }
    }
    progress({...result, done: 1});
    const {bytes, ...counts} = result;
    const pieces = Object.values(counts).reduce((sum, count) => sum + count, 0);
    events.emit('garbage.collected', {pieces, bytes});
    return result;
  }

  async *#uploads(signal: AbortSignal): AsyncGenerator<Collected> {
    const before = this.#parts.clock.now() - this.#parts.uploadLife;
    yield {uploads: await this.#parts.expireUploads(before, signal)};
  }

  #indexes(): AsyncGenerator<Collected> {
    const {metadata, memory, clock} = this.#parts;
    return collectAll(
      () => metadata.expiredManifests(clock.now(), BATCH),
      async ({repository, digest}) => {
        await metadata.commit([{type: 'manifest.unlink', repository, digest}]);
        memory.forgetManifest(repository, digest);
        return {indexes: 1};
      },
    );
  }

  #links(before: number): AsyncGenerator<Collected> {
    const {metadata} = this.#parts;
    return collectAll(
      () => metadata.unreferencedBlobs(before, BATCH),
      async ({repository, digest}) => {
        const unlinked = await metadata.commit(
          [{type: 'blob.unlink', repository, digest}],
          [{type: 'blob.unreferenced', repository, digest, before}],
        );
        return unlinked ? {links: 1} : undefined;
      },
    );
  }

  #manifests(): AsyncGenerator<Collected> {
    const {metadata} = this.#parts;
    return collectAll(
      () => metadata.uncollectedManifests(BATCH),
      async ({digest, size}) => {
        await metadata.commit([{type: 'manifest.collect', digest}]);
        return {manifests: 1, bytes: size};
      },
    );
  }

  #blobs(before: number): AsyncGenerator<Collected> {
    const {metadata, lifecycle} = this.#parts;
    return collectAll(
      () => metadata.uncollectedBlobs(before, BATCH),
      async ({digest, size}) => ((await lifecycle.delete(digest)) ? {blobs: 1, bytes: size} : undefined),
    );
  }

  /**
   * Whole blobs without a row. They are left only by a process that dies or by a removal that fails, so they are looked
   * for rarely. They get the same grace as everything else: a backup of the metadata may bring their row back.
   */
  async *#orphans(before: number): AsyncGenerator<Collected> {
    const {metadata, store, lifecycle, clock} = this.#parts;
    if (clock.monotonic() < this.#orphanWalkDueAt) return;
    let tooYoung = 0;
    for await (const {digest, size, storedAt} of store.list()) {
      if (await metadata.blob(digest)) {
        yield {};
        continue;
      }
      if (storedAt >= before) tooYoung += 1;
      else if (await lifecycle.deleteOrphan(digest)) yield {blobs: 1, bytes: size};
    }
    if (tooYoung === 0) this.#orphanWalkDueAt = clock.monotonic() + ORPHAN_WALK_INTERVAL_MS;
  }
}

/** Collects piece by piece until no more are found, or none of those found can be collected. */
async function* collectAll<Piece>(
  find: () => Promise<readonly Piece[]>,
  collect: (piece: Piece) => Promise<Collected | undefined>,
): AsyncGenerator<Collected> {
  for (;;) {
    const pieces = await find();
    let progressed = false;
    for (const piece of pieces) {
      const collected = await collect(piece);
      if (!collected) continue;
      progressed = true;
      yield collected;
    }
    if (!progressed) return;
  }
}
