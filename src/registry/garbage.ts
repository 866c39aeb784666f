import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../clock.ts';
import type {Events} from '../events.ts';
import type {BlobStore} from '../storage/blob-store.ts';
import type {Metadata} from '../storage/metadata.ts';
import type {Custody} from './custody.ts';
import type {Memory} from './memory.ts';

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
  /** One run at a time: who asks meanwhile gets a run of their own afterwards. @throws the signal's reason */
  run(options: GarbageOptions): Promise<GarbageResult>;
}

export interface GarbageParts {
  metadata: Metadata;
  store: BlobStore;
  custody: Custody;
  memory: Memory;
  /** Removes uploads that were last heard of before `before`, and gives their number. */
  expireUploads(before: number, signal: AbortSignal): Promise<number>;
  /** Milliseconds after which an upload that nobody goes on with is over. */
  uploadLife: number;
  clock: Clock;
  events: Events;
}

/** Pieces that are looked for at a time. */
const BATCH = 200;

/** One piece: what its collection adds to the result, or nothing where it turned out to be needed. */
type Collected = Partial<GarbageResult>;

export function createGarbage(parts: GarbageParts): Garbage {
  const {metadata, store, custody, memory, expireUploads, uploadLife, clock, events} = parts;

  let lookedForStrays = false;

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
      () => metadata.looseBlobs(before, BATCH),
      async ({repository, digest}) => {
        const unlinked = await metadata.commit(
          [{type: 'blob.unlink', repository, digest}],
          [{type: 'blob.loose', repository, digest, before}],
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
      async ({digest, size}) => ((await custody.remove(digest)) ? {blobs: 1, bytes: size} : undefined),
    );
  }

  /** Whole blobs without a row: only a process that dies leaves them, so they are looked for once in each. */
  async function* strays(): AsyncGenerator<Collected> {
    if (lookedForStrays) return;
    for await (const {digest, size} of store.list()) {
      const isStray = !(await metadata.blob(digest)) && (await custody.removeStray(digest));
      yield isStray ? {blobs: 1, bytes: size} : {};
    }
    lookedForStrays = true;
  }

  async function collect({grace, signal, progress}: GarbageOptions): Promise<GarbageResult> {
    const result: GarbageResult = {uploads: 0, indexes: 0, links: 0, manifests: 0, blobs: 0, bytes: 0};
    const before = clock.now() - grace;
    const kinds = [uploads(signal), indexes(), links(before), manifests(), blobs(before), strays()];
    signal.throwIfAborted();
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
