import {setImmediate as nextTurn} from 'node:timers/promises';
import {type Clock, sleep} from '../../clock.ts';
import {isRefusedByDisk} from '../../error-code.ts';
import type {EventMap, Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {type BlobStore, StoreMissing} from '../../storage/blob-store.ts';
import {type BlobRecord, DiskFull, type Metadata} from '../../storage/metadata.ts';
import type {Spools} from '../../storage/spool.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';

/** Looks, while the server serves requests, at what a crash may have left, for a bounded time. */
export interface StartCheck {
  /**
   * Ends the deletions that had begun, compares the rows of blobs with the sizes of their files, and counts files without
   * a row, and partial downloads and uploads. Lost copies are forgotten and lost pushed blobs are reported, as when a
   * read meets them. Nothing is hashed: `verify` and the scrub do that. Emits `store.checked`. While the blob store is
   * missing, it is waited for.
   * @param signal ends the check
   * @throws the signal's reason
   */
  run(signal: AbortSignal): Promise<void>;
}

export interface StartCheckParts {
  metadata: Pick<Metadata, 'blob' | 'blobs' | 'uncollectedBlobs'>;
  store: BlobStore;
  spools: Pick<Spools, 'idleBytes'>;
  lifecycle: BlobLifecycle;
  clock: Clock;
  events: Events;
}

/** The time for all of it. Of a larger store the rest is left to reads and to the scrub. */
const MAX_MS = 30_000;
/** Rows or files that are looked at without giving way to requests. */
const PIECES_PER_TURN = 200;
/** How often a missing store is looked for. */
const FIND_STORE_MS = 60_000;

export const createStartCheck = (parts: StartCheckParts): StartCheck => ({
  run: (signal) => new StoreCheck(parts, signal).run(),
});

/** One run. */
class StoreCheck {
  readonly #parts: StartCheckParts;
  readonly #signal: AbortSignal;
  #endsAt = 0;
  #pieces = 0;
  readonly #found: EventMap['store.checked'][0] = {
    blobs: 0,
    copies: 0,
    local: 0,
    deletions: 0,
    unrecorded: 0,
    spoolBytes: 0,
    isComplete: true,
  };

  constructor(parts: StartCheckParts, signal: AbortSignal) {
    this.#parts = parts;
    this.#signal = signal;
  }

  async run(): Promise<void> {
    const {spools, clock, events} = this.#parts;
    await this.#awaitStore();
    this.#endsAt = clock.monotonic() + MAX_MS;
    this.#found.spoolBytes = await spools.idleBytes();
    await this.#endDeletions();
    await this.#compareBlobs();
    await this.#findUnrecorded();
    events.emit('store.checked', this.#found);
  }

  async #awaitStore(): Promise<void> {
    for (;;) {
      try {
        return await this.#parts.store.check();
      } catch (error) {
        if (!(error instanceof StoreMissing)) throw error;
        await sleep(this.#parts.clock, FIND_STORE_MS, this.#signal);
      }
    }
  }

  /** Garbage collection ends those that a full or read-only disk refuses now. */
  async #endDeletions(): Promise<void> {
    try {
      for (;;) {
        // No blob was stored before the epoch: these are only those whose deletion has begun.
        const marked = await this.#parts.metadata.uncollectedBlobs(0, PIECES_PER_TURN);
        if (marked.length === 0) return;
        for (const {digest} of marked) {
          if (!(await this.#goesOn())) return;
          if (await this.#parts.lifecycle.endDeletion(digest)) this.#found.deletions += 1;
        }
      }
    } catch (error) {
      if (!(error instanceof DiskFull || isRefusedByDisk(error))) throw error;
    }
  }

  async #compareBlobs(): Promise<void> {
    let after: Digest | undefined;
    for (;;) {
      const page: BlobRecord[] = await this.#parts.metadata.blobs(after, PIECES_PER_TURN);
      for (const {digest} of page) {
        if (!(await this.#goesOn())) return;
        await this.#compare(digest);
      }
      after = page.at(-1)?.digest;
      if (after === undefined) return;
    }
  }

  async #compare(digest: Digest): Promise<void> {
    const compared = await this.#parts.lifecycle.compare(digest);
    if (compared.state === 'absent') return;
    this.#found.blobs += 1;
    if (compared.state !== 'sound') this.#found[compared.origin === 'local' ? 'local' : 'copies'] += 1;
  }

  /** They are not removed: a backup of the metadata may bring their rows back. Garbage collection does after its grace. */
  async #findUnrecorded(): Promise<void> {
    const {metadata, store, lifecycle} = this.#parts;
    for await (const {digest} of store.list()) {
      if (!(await this.#goesOn())) return;
      if (await metadata.blob(digest)) continue;
      if (await lifecycle.isUnrecorded(digest)) this.#found.unrecorded += 1;
    }
  }

  /** @returns false when the time is over; @throws the signal's reason */
  async #goesOn(): Promise<boolean> {
    this.#signal.throwIfAborted();
    this.#pieces += 1;
    // Queries run on this thread: requests that wait come first.
    if (this.#pieces % PIECES_PER_TURN === 0) await nextTurn();
    if (this.#parts.clock.monotonic() >= this.#endsAt) this.#found.isComplete = false;
    return this.#found.isComplete;
  }
}
