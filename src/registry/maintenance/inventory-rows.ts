import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Digest} from '../../oci/digest.ts';
import type {
  BlobLinkCursor,
  BlobRecord,
  EdgeRow,
  LinkRow,
  MetadataReads,
  ReferenceCursor,
  ReferenceRow,
  ReferrerRow,
  TagCursor,
  TagRow,
} from '../../storage/metadata.ts';

type Pages<Row> = Iterable<readonly Row[]> | AsyncIterable<readonly Row[]>;

/** What an inventory is made of, in pages; see `RootReads`. */
export interface InventoryRows {
  links: Pages<Omit<LinkRow, 'cursor' | 'size'>>;
  references: Pages<Pick<ReferenceRow, 'manifest' | 'child'>>;
  tags: Pages<Omit<TagRow, 'origin'>>;
  edges: Pages<EdgeRow>;
  blobs: Pages<BlobRecord>;
  /** Blobs with a link of origin `local`. */
  localBlobs: Pages<{digest: Digest}>;
}

/** Rows of a page, and things that are looked at between two turns of the requests. */
const STEP = 500;

/** @param reads a snapshot, whose pages belong together */
export const rowsOf = (reads: MetadataReads): InventoryRows => ({
  links: pages<LinkRow>((last) => reads.links(last?.cursor, STEP)),
  references: pages<ReferenceRow & {cursor: ReferenceCursor}>((last) =>
    reads.allReferences(last?.cursor, STEP),
  ),
  tags: pages<TagRow & {cursor: TagCursor}>((last) => reads.allTags(last?.cursor, STEP)),
  edges: edgesOf(reads),
  blobs: pages((last) => reads.blobs(last?.digest, STEP)),
  localBlobs: pages<{digest: Digest; cursor: BlobLinkCursor}>((last) =>
    reads.localBlobLinks(last?.cursor, STEP),
  ),
});

async function* pages<Row>(read: (last: Row | undefined) => Promise<Row[]>): AsyncGenerator<Row[]> {
  let page = await read(undefined);
  while (page.length > 0) {
    yield page;
    page = await read(page.at(-1));
  }
}

/** An edge that only an upstream's answer names is no reason to keep anything. */
async function* edgesOf(reads: MetadataReads): AsyncGenerator<EdgeRow[]> {
  for await (const page of pages<ReferrerRow>((last) => reads.referrerRows(last?.cursor, STEP))) {
    yield page.filter(({source}) => source === 'content');
  }
}

/** Reads run on this thread, so requests that wait get their turn after each page. */
export async function eachRow<Row>(rows: Pages<Row>, take: (row: Row) => void): Promise<void> {
  for await (const page of rows) {
    for (const row of page) take(row);
    await nextTurn();
  }
}

/** Does something with each number below `count`, in turn with requests. */
export async function eachNumber(count: number, take: (number: number) => void): Promise<void> {
  for (let number = 0; number < count; number++) {
    take(number);
    if (number % STEP === STEP - 1) await nextTurn();
  }
}
