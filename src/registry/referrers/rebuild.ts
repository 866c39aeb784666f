import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import {type Edge, edgeOf} from '../../oci/referrers.ts';
import type {
  Change,
  LinkedManifest,
  ManifestCursor,
  Metadata,
  ReferrerCursor,
  ReferrerRow,
} from '../../storage/metadata.ts';

export interface ReindexResult {
  /** Stored manifests that were read, each once for every repository that is linked to it. */
  manifests: number;
  /** Those of them that refer to another manifest, and are in the index now. */
  edges: number;
  /** Edges that were removed from the index because no stored manifest makes them. */
  removed: number;
}

export interface ReindexProgress extends ReindexResult {
  /** The part of the work that is done, 0 to 1; never less than before. */
  done: number;
}

export interface ReindexOptions {
  /** Ends the work between two batches. What was done until then stays, and is valid. */
  signal: AbortSignal;
  /** Called after every batch. */
  progress(state: ReindexProgress): void;
}

/** Rebuilds the index of referrers from the stored manifests, while the server goes on serving requests. */
export interface Reindex {
  /**
   * Commits the edge of each stored manifest, oldest link first, so that lost edges come back in the order in which
   * their manifests came. Then removes the edges that no manifest makes. Rows that an upstream's list brought, and when
   * that list was read, are left alone: they cannot be rebuilt here.
   * @throws the signal's reason
   */
  run(options: ReindexOptions): Promise<ReindexResult>;
}

export interface ReindexParts {
  metadata: Metadata;
  clock: Clock;
}

/** A batch has at least one manifest, at most this many, and about this many bytes of them. */
const MAX_MANIFESTS = 500;
const FIRST_MANIFESTS = 16;
const BATCH_BYTES = 4 * 1024 * 1024;
const MAX_ROWS = 500;
/** The part of the work that restoring the edges is. */
const RESTORE_PART = 0.8;

export const createReindex = (parts: ReindexParts): Reindex => new StoreReindex(parts);

class StoreReindex implements Reindex {
  readonly #metadata: Metadata;
  readonly #clock: Clock;

  constructor({metadata, clock}: ReindexParts) {
    this.#metadata = metadata;
    this.#clock = clock;
  }

  async run({signal, progress}: ReindexOptions): Promise<ReindexResult> {
    const result = {manifests: 0, edges: 0, removed: 0};
    let rows = 0;
    const report = async (done: number) => {
      progress({...result, done});
      // Reads run on this thread: waiting requests come first.
      await nextTurn();
      signal.throwIfAborted();
    };
    signal.throwIfAborted();
    for await (const {manifests, edges, done} of this.#restoreEdges()) {
      result.manifests += manifests;
      result.edges += edges;
      await report(done * RESTORE_PART);
    }
    for await (const {removed} of this.#removeOrphans()) {
      result.removed += removed;
      rows += MAX_ROWS;
      await report(RESTORE_PART + (1 - RESTORE_PART) * Math.min(1, rows / Math.max(rows, result.edges)));
    }
    progress({...result, done: 1});
    return result;
  }

  async *#restoreEdges(): AsyncGenerator<{manifests: number; edges: number; done: number}> {
    // What is linked from now on brings its edge along.
    const last = (await this.#metadata.lastManifest()) ?? 0;
    let limit = FIRST_MANIFESTS;
    for (let after: ManifestCursor = 0; after < last; ) {
      const page = await this.#metadata.manifests(after, limit);
      const changes = page.flatMap((manifest): Change[] => {
        const edge = edgeOf(manifest);
        if (!edge) return [];
        return [{type: 'referrer.put', repository: manifest.repository, edge, at: this.#clock.now()}];
      });
      if (changes.length > 0) await this.#metadata.commit(changes);
      after = page.at(-1)?.cursor ?? last;
      limit = nextLimit(page);
      yield {manifests: page.length, edges: changes.length, done: Math.min(1, after / last)};
    }
  }

  async *#removeOrphans(): AsyncGenerator<{removed: number}> {
    for (let after: ReferrerCursor | undefined; ; ) {
      const page: ReferrerRow[] = await this.#metadata.referrerRows(after, MAX_ROWS);
      if (page.length === 0) return;
      after = page.at(-1)?.cursor;
      let removed = 0;
      for (const row of page) {
        // Each may be a manifest of megabytes, parsed on this thread.
        await nextTurn();
        if (row.source !== 'content' || (await this.#edgeBehind(row))) continue;
        await this.#remove(row);
        removed += 1;
      }
      yield {removed};
    }
  }

  async #edgeBehind({repository, subject, digest}: ReferrerRow): Promise<Edge | undefined> {
    const manifest = await this.#metadata.manifest(repository, digest);
    const edge = manifest && edgeOf(manifest);
    return edge?.subject === subject ? edge : undefined;
  }

  /** Puts the edge back if its manifest was pulled or pushed meanwhile: that commit may have come before ours. */
  async #remove(row: ReferrerRow): Promise<void> {
    const {repository, subject, digest} = row;
    await this.#metadata.commit([{type: 'referrer.delete', repository, subject, digest}]);
    const edge = await this.#edgeBehind(row);
    if (!edge) return;
    await this.#metadata.commit([{type: 'referrer.put', repository, edge, at: this.#clock.now()}]);
  }
}

/** As many manifests as fit into a batch if they are as large as those of the last one. */
function nextLimit(page: readonly LinkedManifest[]): number {
  const bytes = page.reduce((sum, manifest) => sum + manifest.bytes.length, 0);
  const average = Math.max(1, bytes / Math.max(1, page.length));
  return Math.min(MAX_MANIFESTS, Math.max(1, Math.floor(BATCH_BYTES / average)));
}
