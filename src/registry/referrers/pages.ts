import {LRUCache} from 'lru-cache';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {EMPTY_INDEX, extendIndex} from '../../oci/referrers.ts';
import type {Metadata, RepositoryKey} from '../../storage/metadata.ts';

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
  /** All pages in one; undefined where that would be larger than a manifest may be. */
  whole(repository: RepositoryKey, subject: Digest): Promise<Buffer | undefined>;
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

/** What a page takes. */
interface Room {
  readonly bytes: number;
  /** One is taken in any case. */
  readonly orOne: boolean;
}

/** A page's largest body: dist-spec asks registries to take manifests of at least this, so clients read it. */
const PAGE_BYTES = 4 * 1024 * 1024;
/** The whole list's, as large as the largest manifest that is taken from an upstream. */
const WHOLE_BYTES = 16 * 1024 * 1024;
/** Rows that are read at a time. */
const BATCH = 512;
/** Bytes of rendered pages that are held in memory. */
const HELD = 32 * 1024 * 1024;

export function createReferrersPages(metadata: Metadata): ReferrersPages {
  const held = new LRUCache<string, Rendered>({
    maxSize: HELD,
    // A key holds the client's filters, which may be longer than the page.
    sizeCalculation: ({body}, key) => body.length + key.length + 512,
  });

  /**
   * The descriptors behind a position that have room in so many bytes, and one of them in any case where there is to be
   * one.
   */
  async function thatFit(
    repository: RepositoryKey,
    subject: Digest,
    {types, after}: ReferrersQuery,
    {bytes, orOne}: Room,
  ): Promise<{pieces: Buffer[]; last: number | undefined; more: boolean}> {
    const pieces: Buffer[] = [];
    let [left, last, limit, most] = [bytes, after, BATCH, BATCH];
    for (;;) {
      const batch = await metadata.referrerText(repository, subject, {
        limit,
        ...(types ? {types} : {}),
        ...(last === undefined ? {} : {after: last}),
      });
      const {count, text} = batch;
      if (batch.last === undefined) return {pieces, last, more: false};
      const isNeeded = orOne && pieces.length === 0 && count === 1;
      if (text && (text.length < left || isNeeded)) {
        pieces.push(text);
        [left, last] = [left - text.length - 1, batch.last];
        if (count < limit) return {pieces, last, more: false};
        limit = Math.min(limit * 2, most);
        continue;
      }
      if (text && count === 1) return {pieces, last, more: true};
      limit = Math.ceil(count / 2);
      // What has no room now has none later; what is only too large to be read with others is soon behind us.
      if (text) most = limit;
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
    const isEmpty = page.body.length === EMPTY_INDEX.length;
    // A page holds at least one descriptor, however large.
    const room = {bytes: PAGE_BYTES - page.body.length, orOne: isEmpty};
    const {pieces, last, more} = await thatFit(repository, subject, {types, after: page.last}, room);
    return {body: extendIndex(page.body, pieces), last: last ?? page.last, full: more, version};
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
      const pieces: Buffer[] = [];
      let room = PAGE_BYTES - EMPTY_INDEX.length;
      for (const descriptor of descriptors) {
        if (types && !types.includes(descriptor.artifactType ?? '')) continue;
        const piece = Buffer.from(JSON.stringify(descriptor));
        room -= piece.length + 1;
        if (room < 0) return undefined;
        pieces.push(piece);
      }
      return {body: extendIndex(EMPTY_INDEX, pieces), next: undefined};
    },

    async whole(repository, subject) {
      const room = {bytes: WHOLE_BYTES - EMPTY_INDEX.length, orOne: false};
      const {pieces, more} = await thatFit(repository, subject, {types: undefined, after: undefined}, room);
      return more ? undefined : extendIndex(EMPTY_INDEX, pieces);
    },
  };
}

/** Of a list of which nothing is known. */
const UNKNOWN = {version: 0, amended: 0};

const emptyPage = (after = 0): Rendered => ({body: EMPTY_INDEX, last: after, full: false, version: 0});
