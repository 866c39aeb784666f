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
  /** Those of them that refer to another manifest: so many edges are in the index now. */
  edges: number;
  /** Edges that no stored manifest makes, and that are gone from the index. */
  removed: number;
}

export interface ReindexProgress extends ReindexResult {
  /** Of the work, 0 to 1; never less than before. */
  done: number;
}

export interface ReindexOptions {
  /** Ends the work between two batches. What was done until then stays, and does no harm. */
  signal: AbortSignal;
  /** Told after every batch. */
  progress(state: ReindexProgress): void;
}

/** Rebuilds the index of referrers from the manifests that are stored, beside requests that go on meanwhile. */
export interface Reindex {
  /**
   * Commits the edge of each manifest whose bytes are here, oldest link first, so that edges that were lost come back
   * in the order in which their manifests came; then removes the edges that no manifest makes. What an upstream alone
   * told of (rows of other sources, when its list was read) is not touched, and cannot be made anew here.
   * @throws the signal's reason
   */
  run(options: ReindexOptions): Promise<ReindexResult>;
}

export interface ReindexParts {
  metadata: Metadata;
  clock: Clock;
}

/** Manifests of a batch: at least one, and so many that about so many bytes of them are held at a time. */
const MAX_MANIFESTS = 500;
const FIRST_MANIFESTS = 16;
const BATCH_BYTES = 4 * 1024 * 1024;
const MAX_ROWS = 500;
/** Of the work, what the first of the two walks is. */
const FIRST_WALK = 0.8;

export function createReindex({metadata, clock}: ReindexParts): Reindex {
  const restore = (page: readonly LinkedManifest[]): Change[] =>
    page.flatMap((manifest): Change[] => {
      const edge = edgeOf(manifest);
      return edge ? [{type: 'referrer.put', repository: manifest.repository, edge, at: clock.now()}] : [];
    });

  async function edgeBehind({repository, subject, digest}: ReferrerRow): Promise<Edge | undefined> {
    const manifest = await metadata.manifest(repository, digest);
    const edge = manifest && edgeOf(manifest);
    return edge?.subject === subject ? edge : undefined;
  }

  /** An edge of which the bytes were meanwhile pulled or pushed is put back: that commit may have come before ours. */
  async function remove(row: ReferrerRow): Promise<void> {
    const {repository, subject, digest} = row;
    await metadata.commit([{type: 'referrer.delete', repository, subject, digest}]);
    const edge = await edgeBehind(row);
    if (edge) await metadata.commit([{type: 'referrer.put', repository, edge, at: clock.now()}]);
  }

  async function* putEdges(): AsyncGenerator<{manifests: number; edges: number; done: number}> {
    // What is linked from now on brings its edge along.
    const last = (await metadata.lastManifest()) ?? 0;
    let limit = FIRST_MANIFESTS;
    for (let after: ManifestCursor = 0; after < last; ) {
      const page = await metadata.manifests(after, limit);
      const changes = restore(page);
      if (changes.length > 0) await metadata.commit(changes);
      after = page.at(-1)?.cursor ?? last;
      limit = nextLimit(page);
      yield {manifests: page.length, edges: changes.length, done: Math.min(1, after / last)};
    }
  }

  async function* removeStrays(): AsyncGenerator<{removed: number}> {
    for (let after: ReferrerCursor | undefined; ; ) {
      const page: ReferrerRow[] = await metadata.referrerRows(after, MAX_ROWS);
      if (page.length === 0) return;
      after = page.at(-1)?.cursor;
      let removed = 0;
      for (const row of page) {
        // Each may be a manifest of megabytes, parsed on this thread.
        await nextTurn();
        if (row.source !== 'content' || (await edgeBehind(row))) continue;
        await remove(row);
        removed += 1;
      }
      yield {removed};
    }
  }

  return {
    async run({signal, progress}) {
      const result = {manifests: 0, edges: 0, removed: 0};
      let seen = 0;
      const pause = async (done: number) => {
        progress({...result, done});
        // Reads are done on this thread: the requests that wait come first.
        await nextTurn();
        signal.throwIfAborted();
      };
      signal.throwIfAborted();
      for await (const {manifests, edges, done} of putEdges()) {
        result.manifests += manifests;
        result.edges += edges;
        await pause(done * FIRST_WALK);
      }
      for await (const {removed} of removeStrays()) {
        result.removed += removed;
        seen += MAX_ROWS;
        await pause(FIRST_WALK + (1 - FIRST_WALK) * Math.min(1, seen / Math.max(seen, result.edges)));
      }
      progress({...result, done: 1});
      return result;
    },
  };
}

/** As many manifests as fit into a batch if they are as large as those of the last one. */
function nextLimit(page: readonly LinkedManifest[]): number {
  const bytes = page.reduce((sum, manifest) => sum + manifest.bytes.length, 0);
  const average = Math.max(1, bytes / Math.max(1, page.length));
  return Math.min(MAX_MANIFESTS, Math.max(1, Math.floor(BATCH_BYTES / average)));
}
