import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import type {Coordination} from '../../storage/coordination.ts';
import type {Metadata} from '../../storage/metadata.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import type {Memory} from '../memory.ts';

/** What was collected. */
export interface GarbageResult {
  /** Uploads that nobody went on with. */
  uploads: number;
  /** Lists of referrers that were made here for readers of fallback tags, their time being over. */
  indexes: number;
  /** Links of repositories to blobs that were pushed and that no manifest names. */
  links: number;
  /** Manifests that no repository is linked to any more. */
  manifests: number;
  /** Blobs that no repository is linked to any more, and bytes of blobs that a process left which died. */
  blobs: number;
  /** Bytes of those manifests and blobs. */
  bytes: number;
}

export interface GarbageProgress extends GarbageResult {
  /** Of the kinds of garbage, 0 to 1. */
  done: number;
}

export interface GarbageOptions {
  /** Milliseconds for which what nothing refers to is left alone: a push uploads blobs before the manifest that names them. */
  grace: number;
  /** Ends the work between two pieces. What was done until then stays. */
  signal: AbortSignal;
  progress(state: GarbageProgress): void;
}

/**
 * Collects what nothing refers to, beside pushes and pulls that go on: each piece is checked again inside the commit
 * that gives it up, so that a manifest which comes meanwhile keeps its blobs.
 */
export interface Garbage {
  /**
   * One run at a time: who asks meanwhile gets a run of their own afterwards.
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
  /** Removes uploads that were last heard of before `before`, and gives their number. */
  expireUploads(before: number, signal: AbortSignal): Promise<number>;
  /** Milliseconds after which an upload that nobody goes on with is over. */
  uploadLife: number;
  clock: Clock;
  events: Events;
}

/** Pieces that are looked for at a time. */
const BATCH = 200;

/** How long after a walk over all stored bytes the next one is due. */
const STRAY_WALK_INTERVAL_MS = 24 * 60 * 60 * 1000;

/** One piece: what its collection adds to the result, or nothing where it turned out to be needed. */
type Collected = Partial<GarbageResult>;

export function createGarbage(parts: GarbageParts): Garbage {
  const {metadata, store, lifecycle, memory, expireUploads, uploadLife, clock, events} = parts;

  /** When all bytes are next looked through for those without a row. */
  let strayWalkDueAt = 0;

  async function* uploads(signal: AbortSignal): AsyncGenerator<Collected> {
    yield {uploads: await expireUploads(clock.now() - uploadLife, signal)};
  }

  async function* indexes(): AsyncGenerator<Collected> {
    yield* all(
      () => metadata.expiredManifests(clock.now(), BATCH),
      async ({repository, digest}) => {
        await metadata.commit([{type: 'manifest.unlink', repository, digest}]);
        memory.forgetManifest(repository, digest);
        return {indexes: 1};
      },
    );
  }

  async function* links(before: number): AsyncGenerator<Collected> {
    yield* all(
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

  async function* manifests(): AsyncGenerator<Collected> {
    yield* all(
      () => metadata.uncollectedManifests(BATCH),
      async ({digest, size}) => {
        await metadata.commit([{type: 'manifest.collect', digest}]);
        return {manifests: 1, bytes: size};
      },
    );
  }

  async function* blobs(before: number): AsyncGenerator<Collected> {
    yield* all(
      () => metadata.uncollectedBlobs(before, BATCH),
      async ({digest, size}) => ((await lifecycle.delete(digest)) ? {blobs: 1, bytes: size} : undefined),
    );
  }

  /**
   * Whole blobs without a row: a process that dies leaves them, or a removal that fails, so they are looked for rarely.
   * They are left alone for as long as everything else: their row may come back with a backup of the metadata.
   */
  async function* strays(before: number): AsyncGenerator<Collected> {
    if (clock.monotonic() < strayWalkDueAt) return;
    let tooYoung = 0;
    for await (const {digest, size, storedAt} of store.list()) {
      if (await metadata.blob(digest)) {
        yield {};
        continue;
      }
      if (storedAt >= before) tooYoung += 1;
      else if (await lifecycle.deleteOrphan(digest)) yield {blobs: 1, bytes: size};
    }
    if (tooYoung === 0) strayWalkDueAt = clock.monotonic() + STRAY_WALK_INTERVAL_MS;
  }

  async function collect({grace, signal, progress}: GarbageOptions): Promise<GarbageResult> {
    const result: GarbageResult = {uploads: 0, indexes: 0, links: 0, manifests: 0, blobs: 0, bytes: 0};
    const before = clock.now() - grace;
    const kinds = [uploads(signal), indexes(), links(before), manifests(), blobs(before), strays(before)];
    signal.throwIfAborted();
    await store.check();
    for (const [index, kind] of kinds.entries()) {
      for await (const piece of kind) {
        for (const [name, count] of Object.entries(piece)) result[name as keyof GarbageResult] += count;
        progress({...result, done: index / kinds.length});
        // Reads are done on this thread: the requests that wait come first.
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

  let last: Promise<unknown> = Promise.resolve();
  return {
    run(options) {
      const run = last.then(() => collect(options));
      last = run.catch(() => {});
      return run;
    },
  };
}

/** Collects piece by piece until nothing more is found, or nothing of what is found can be collected. */
async function* all<Piece>(
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
