import {type Digest, encodedOf} from '../../oci/digest.ts';
import type {Metadata, ReferenceRow} from '../../storage/metadata.ts';
import {type Inventory, inventoryOf, type Protection} from './inventory.ts';
import {type InventoryRows, rowsOf} from './inventory-rows.ts';

/** How far an inventory has come. */
export interface InventoryProgress {
  /** The part of the rows that have been read, 0 to 1. */
  done: number;
  /** Manifests that have been found, counted in each repository. */
  manifests: number;
}

export interface InventoryTask {
  /** Ends it between two pages. */
  signal: AbortSignal;
  progress(state: InventoryProgress): void;
}

/**
 * Takes an inventory as `takeInventory` does, and reports how far it has come.
 * @param now milliseconds since the epoch
 * @throws the signal's reason
 */
export async function takeInventoryFor(
  task: InventoryTask,
  {metadata, protection, now}: {metadata: Pick<Metadata, 'snapshot'>; protection: Protection; now: number},
): Promise<Inventory> {
  const snapshot = await metadata.snapshot();
  try {
    return await inventoryOf(watched(rowsOf(snapshot), task), protection, now);
  } finally {
    await snapshot.close();
  }
}

/** The walks of an inventory, in their order. */
const WALKS = ['links', 'references', 'tags', 'edges', 'blobs', 'localBlobs'] as const;

function watched(rows: InventoryRows, {signal, progress}: InventoryTask): InventoryRows {
  let manifests = 0;
  const countNaming = namingCounter();
  const report = (walk: (typeof WALKS)[number], part: number): void => {
    signal.throwIfAborted();
    progress({done: (WALKS.indexOf(walk) + part) / WALKS.length, manifests});
  };
  return {
    links: seen(rows.links, (page) => {
      manifests += page.length;
      report('links', 0);
    }),
    // In no order of digests. Every manifest that is here is linked somewhere, except those that wait to be collected.
    references: seen(rows.references, (page) =>
      report('references', Math.min(1, countNaming(page) / Math.max(1, manifests))),
    ),
    tags: seen(rows.tags, () => report('tags', 0)),
    edges: seen(rows.edges, () => report('edges', 0)),
    blobs: seen(rows.blobs, (page) => report('blobs', placeOf(page.at(-1)?.digest))),
    localBlobs: seen(rows.localBlobs, (page) => report('localBlobs', placeOf(page.at(-1)?.digest))),
  };
}

async function* seen<Page>(
  pages: Iterable<Page> | AsyncIterable<Page>,
  see: (page: Page) => void,
): AsyncGenerator<Page, void> {
  for await (const page of pages) {
    see(page);
    yield page;
  }
}

/** Counts the manifests of a walk over references, page by page, and gives how many there were up to now. */
function namingCounter(): (page: readonly Pick<ReferenceRow, 'manifest'>[]) => number {
  let last: Digest | undefined;
  let count = 0;
  return (page) => {
    for (const {manifest} of page) {
      if (manifest !== last) count += 1;
      last = manifest;
    }
    return count;
  };
}

/** Where in a walk in the order of digests this one is, 0 to 1: digests are spread evenly. */
const placeOf = (digest: Digest | undefined): number =>
  digest === undefined ? 1 : Number.parseInt(encodedOf(digest).slice(0, 4), 16) / 0x10000;
