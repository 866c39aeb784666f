import {LRUCache} from 'lru-cache';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {EMPTY_INDEX, extendIndex} from '../../oci/referrers.ts';
import type {Metadata, ReferrerDescriptor, RepositoryKey} from '../../storage/metadata.ts';

export interface ReferrersQuery {
  /** Only these artifact types, any of them; the empty one is a referrer without a type. Undefined: no filter. */
  types: readonly string[] | undefined;
  /** Only what follows this position; from `next` of the page before. */
  after: number | undefined;
}

export interface ReferrersPage {
  /** An image index of the page's descriptors, oldest first. */
  readonly body: Buffer;
  /** The position that the next page follows, when there is one. It keeps its meaning while the list grows. */
  readonly next: number | undefined;
}

/** Renders the lists of the metadata as they are. */
export interface ReferrersPages {
  page(repository: RepositoryKey, subject: Digest, query: ReferrersQuery): Promise<ReferrersPage>;
  /**
   * The first page of a list of which the metadata has nothing yet, as it will be then; undefined where the list does
   * not fit on one, since its positions are the metadata's.
   */
  unwritten(descriptors: readonly Descriptor[], query: ReferrersQuery): ReferrersPage | undefined;
  /** All pages in one. */
  whole(repository: RepositoryKey, subject: Digest): Promise<Buffer>;
}

/** A page as it was when its list had this version. */
interface Rendered {
  readonly body: Buffer;
  /** The position of its last referrer; of an empty page, the one that it follows. */
  readonly last: number;
  /** More follows that has no room on it. */
  readonly full: boolean;
  readonly version: number;
}

/** A page's largest body: dist-spec asks registries to take manifests of at least this, so clients read it. */
const PAGE_BYTES = 4 * 1024 * 1024;
/** Rows that are read at a time. */
const BATCH = 2000;
/** Bytes of rendered pages that are held in memory. */
const HELD = 32 * 1024 * 1024;

export function createReferrersPages(metadata: Metadata): ReferrersPages {
  const held = new LRUCache<string, Rendered>({
    maxSize: HELD,
    // A key holds the client's filters, which may be longer than the page.
    sizeCalculation: ({body}, key) => body.length + key.length + 512,
  });

  /** The rows behind a position that have room in so many bytes. */
  async function rowsThatFit(
    repository: RepositoryKey,
    subject: Digest,
    {types, after}: ReferrersQuery,
    fits: (size: number, count: number) => boolean,
  ): Promise<{rows: ReferrerDescriptor[]; more: boolean}> {
    const rows: ReferrerDescriptor[] = [];
    let size = 0;
    let position = after;
    for (;;) {
      const batch = await metadata.referrerDescriptors(repository, subject, {
        limit: BATCH,
        ...(types ? {types} : {}),
        ...(position === undefined ? {} : {after: position}),
      });
      for (const row of batch) {
        size += Buffer.byteLength(row.descriptor) + 1;
        if (!fits(size, rows.length)) return {rows, more: true};
        rows.push(row);
      }
      if (batch.length < BATCH) return {rows, more: false};
      position = batch.at(-1)?.seq;
    }
  }

  /** The page with what was added behind its last referrer, as far as that has room on it. */
  async function extend(
    repository: RepositoryKey,
    subject: Digest,
    types: ReferrersQuery['types'],
    page: Rendered,
    version: number,
  ): Promise<Rendered> {
    const room = PAGE_BYTES - page.body.length;
    const isEmpty = page.body.length === EMPTY_INDEX.length;
    const {rows, more} = await rowsThatFit(
      repository,
      subject,
      {types, after: page.last},
      (size, count) =>
        // A page holds at least one descriptor, however large.
        size <= room || (isEmpty && count === 0),
    );
    const body = extendIndex(
      page.body,
      rows.map(({descriptor}) => descriptor),
    );
    return {body, last: rows.at(-1)?.seq ?? page.last, full: more, version};
  }

  async function render(
    repository: RepositoryKey,
    subject: Digest,
    query: ReferrersQuery,
  ): Promise<Rendered> {
    const {registry, name} = repository;
    const key = JSON.stringify([registry, name, subject, query.types, query.after]);
    // Read first: rows that come meanwhile are then on the page and found again by its last one.
    const {version, amended} = (await metadata.referrerList(repository, subject)) ?? UNKNOWN;
    const known = held.get(key);
    if (known?.version === version) return known;
    const still = known && amended <= known.version && known.version < version ? known : undefined;
    const fresh = still?.full
      ? {...still, version}
      : await extend(repository, subject, query.types, still ?? emptyPage(query.after), version);
    held.set(key, fresh);
    return fresh;
  }

  return {
    async page(repository, subject, query) {
      const {body, last, full} = await render(repository, subject, query);
      return {body, next: full ? last : undefined};
    },

    unwritten(descriptors, {types, after}) {
      if (after !== undefined) return undefined;
      const texts: string[] = [];
      let room = PAGE_BYTES - EMPTY_INDEX.length;
      for (const descriptor of descriptors) {
        if (types && !types.includes(descriptor.artifactType ?? '')) continue;
        const text = JSON.stringify(descriptor);
        room -= Buffer.byteLength(text) + 1;
        if (room < 0) return undefined;
        texts.push(text);
      }
      return {body: extendIndex(EMPTY_INDEX, texts), next: undefined};
    },

    async whole(repository, subject) {
      const query = {types: undefined, after: undefined};
      const {rows} = await rowsThatFit(repository, subject, query, () => true);
      return extendIndex(
        EMPTY_INDEX,
        rows.map(({descriptor}) => descriptor),
      );
    },
  };
}

/** Of a list of which nothing is known. */
const UNKNOWN = {version: 0, amended: 0};

const emptyPage = (after = 0): Rendered => ({body: EMPTY_INDEX, last: after, full: false, version: 0});
