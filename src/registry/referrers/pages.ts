import {LRUCache} from 'lru-cache';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {EMPTY_INDEX, extendIndex} from '../../oci/referrers.ts';
import type {Metadata, RepositoryKey} from '../../storage/metadata.ts';

export interface ReferrersQuery {
  /** Only referrers of any of these artifact types; the empty string stands for a missing type. undefined: all. */
  types: readonly string[] | undefined;
  /** Only what follows this position: `next` of the previous page. */
  after: number | undefined;
}

export interface ReferrersPage {
  /** An image index of the page's descriptors, oldest first. */
  readonly body: Buffer;
  /** The position that the next page follows, if there is one. It stays valid while the list grows. */
  readonly next: number | undefined;
}

/** Renders lists of referrers as image indexes. */
export interface ReferrersPages {
  page(repository: RepositoryKey, subject: Digest, query: ReferrersQuery): Promise<ReferrersPage>;
  /**
   * The first page of a list that is not in the metadata yet.
   * @returns undefined where the list does not fit on one page: positions come from the metadata
   */
  unwritten(descriptors: readonly Descriptor[], query: ReferrersQuery): ReferrersPage | undefined;
  /** The whole list as one index; undefined where that would be larger than a manifest may be. */
  whole(repository: RepositoryKey, subject: Digest): Promise<Buffer | undefined>;
}

/** A page as it was when its list had this version. */
interface Rendered {
  readonly body: Buffer;
  /** The position of its last referrer; of an empty page, the position that it follows. */
  readonly last: number;
  /** The next referrer does not fit on it. */
  readonly isFull: boolean;
  readonly version: number;
}

/** How much fits on a page. */
interface Room {
  readonly bytes: number;
  /** Takes one descriptor even if it is larger. */
  readonly orOne: boolean;
}

/** Descriptors that fit on a page, as JSON. */
interface Fitting {
  readonly pieces: Buffer[];
  readonly last: number | undefined;
  /** Another one follows that does not fit. */
  readonly more: boolean;
}

/** The largest body of a page: registries should accept manifests of this size (dist-spec), so clients can read it. */
const PAGE_BYTES = 4 * 1024 * 1024;
/** The largest body of a whole list: the largest manifest that is accepted from an upstream. */
const WHOLE_BYTES = 16 * 1024 * 1024;
/** Rows that are read at a time. */
const BATCH = 512;
/** Rendered pages that are kept in memory. */
const MAX_HELD_BYTES = 32 * 1024 * 1024;

export const createReferrersPages = (metadata: Metadata): ReferrersPages => new RenderedPages(metadata);

class RenderedPages implements ReferrersPages {
  readonly #metadata: Metadata;
  readonly #held = new LRUCache<string, Rendered>({
    maxSize: MAX_HELD_BYTES,
    // A key contains the client's filters, which may be longer than the page.
    sizeCalculation: ({body}, key) => body.length + key.length + 512,
  });

  constructor(metadata: Metadata) {
    this.#metadata = metadata;
  }

  async page(repository: RepositoryKey, subject: Digest, query: ReferrersQuery): Promise<ReferrersPage> {
    const {body, last, isFull} = await this.#render(repository, subject, query);
    return {body, next: isFull ? last : undefined};
  }

  unwritten(descriptors: readonly Descriptor[], {types, after}: ReferrersQuery): ReferrersPage | undefined {
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
  }

  async whole(repository: RepositoryKey, subject: Digest): Promise<Buffer | undefined> {
    const room = {bytes: WHOLE_BYTES - EMPTY_INDEX.length, orOne: false};
    const query = {types: undefined, after: undefined};
    const {pieces, more} = await this.#read(repository, subject, query, room);
    return more ? undefined : extendIndex(EMPTY_INDEX, pieces);
  }

  async #render(repository: RepositoryKey, subject: Digest, query: ReferrersQuery): Promise<Rendered> {
    const {registry, name} = repository;
    const key = JSON.stringify([registry, name, subject, query.types, query.after]);
    // The version is read first: rows that come meanwhile are on the page, and are found again by its last position.
    const {version, amended} = (await this.#metadata.referrerList(repository, subject)) ?? UNKNOWN;
    const known = this.#held.get(key);
    if (known?.version === version) return known;
    const isPrefix = known && amended <= known.version && known.version < version;
    const fresh =
      isPrefix && known.isFull
        ? {...known, version}
        : await this.#extend(
            repository,
            subject,
            query.types,
            isPrefix ? known : emptyPage(query.after),
            version,
          );
    this.#held.set(key, fresh);
    return fresh;
  }

  /** The page with the referrers that were added after its last one, as far as they fit. */
  async #extend(
    repository: RepositoryKey,
    subject: Digest,
    types: ReferrersQuery['types'],
    page: Rendered,
    version: number,
  ): Promise<Rendered> {
    // A page has at least one descriptor, however large that is.
    const orOne = page.body.length === EMPTY_INDEX.length;
    const room = {bytes: PAGE_BYTES - page.body.length, orOne};
    const {pieces, last, more} = await this.#read(repository, subject, {types, after: page.last}, room);
    return {body: extendIndex(page.body, pieces), last: last ?? page.last, isFull: more, version};
  }

  /** The descriptors after a position, as many as fit into the room. */
  async #read(
    repository: RepositoryKey,
    subject: Digest,
    {types, after}: ReferrersQuery,
    {bytes, orOne}: Room,
  ): Promise<Fitting> {
    const pieces: Buffer[] = [];
    let [left, last, limit, maxLimit] = [bytes, after, BATCH, BATCH];
    for (;;) {
      const batch = await this.#metadata.referrerText(repository, subject, {
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
        limit = Math.min(limit * 2, maxLimit);
        continue;
      }
      if (text && count === 1) return {pieces, last, more: true};
      limit = Math.ceil(count / 2);
      // What does not fit now will not fit later either. A row that is too large to be read with others is soon passed.
      if (text) maxLimit = limit;
    }
  }
}

/** The versions of a list that is not in the metadata. */
const UNKNOWN = {version: 0, amended: 0};

const emptyPage = (after = 0): Rendered => ({body: EMPTY_INDEX, last: after, isFull: false, version: 0});
