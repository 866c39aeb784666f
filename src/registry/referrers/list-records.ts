import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import {type Digest, isDigest} from '../../oci/digest.ts';
import {distinctReferrers, type SkippedReferrer} from '../../oci/referrers.ts';
import {fullReference, type Metadata, type Precondition, type RepositoryKey} from '../../storage/metadata.ts';
import {isLater} from '../freshness.ts';
import type {Generations} from '../generations.ts';
import type {Route} from '../namespace.ts';
import {storeIfSpace} from '../store-if-space.ts';
import type {Discovered} from './discovery.ts';

/** An upstream's answer, with the time of the question. */
export interface Learned extends Discovered {
  readonly at: number;
}

/** What is remembered of each subject's list, in the metadata or for a while in memory. */
export interface ListRecords {
  /** The descriptors of an answer that may be listed: each digest once, and none that was deleted through us lately. */
  listable(route: Route, answer: Discovered): Descriptor[];
  /**
   * Stores an answer, unless the answer to a later question is known. An answer with skipped entries does not renew the
   * list's age, and after a restart the list counts as unknown. @throws DiskFull
   */
  keep(route: Route, subject: Digest, learned: Learned): Promise<void>;
  /** When the upstream last gave the complete list; undefined if it never has. */
  checkedAt(route: Route, subject: Digest): Promise<number | undefined>;
  /** The entries that the last answer named but that could not be listed; empty where it was the complete list. */
  skipped(route: Route, subject: Digest): readonly SkippedReferrer[];
  /** Whether an empty list is remembered in memory alone. */
  isUnstored(route: Route, subject: Digest): boolean;
  /** Remembers that a list has entries until its next answer, or the next deletion through us. */
  isEmpty(route: Route, subject: Digest, checkedAt: number): Promise<boolean>;
  /** A referrer was deleted through us. */
  deleted(route: Route, referrer: Digest): void;
  /** A manifest was evicted, or one that refers to it, and with it what the metadata knew of its list. */
  evicted(repository: RepositoryKey, subject: Digest): void;
  /** A referrer was pushed through us. */
  pushed(route: Route, referrer: Digest): void;
}

export interface ListRecordsParts {
  metadata: Metadata;
  /** Learn of what changes outside of the metadata. */
  generations: Pick<Generations, 'endRepository'>;
  clock: Clock;
  events: Events;
}

const MAX_REMEMBERED = 10_000;
/** How long upstreams may go on answering what was true before a change. */
export const STALENESS_MS = 60_000;

/** An incomplete answer. Times in milliseconds since the epoch. */
interface PartialAnswer {
  readonly skipped: readonly SkippedReferrer[];
  /** When it was asked for. */
  readonly at: number;
  /** When the upstream last gave the complete list. */
  readonly wholeAt: number | undefined;
}

/**
 * Older than any list may be. That an answer was incomplete is remembered in memory only. Without this time, what the
 * answer left of the last complete list would count as complete after a restart, and as empty for some artifact types.
 */
const NEVER = 0;

const keyOf = ({repository}: Route, digest: Digest): string => fullReference(repository, digest);

export const createListRecords = (parts: ListRecordsParts): ListRecords => new StoredListRecords(parts);

class StoredListRecords implements ListRecords {
  readonly #parts: ListRecordsParts;
  /** Empty lists that are not in the metadata, with the time of the question. */
  readonly #unstored = createLru<string, {source: Discovered['source']; at: number}>(MAX_REMEMBERED);
  /** Lists whose last answer was incomplete. */
  readonly #partial = createLru<string, PartialAnswer>(MAX_REMEMBERED);
  /** Referrers that were deleted through us, with the time on the monotonic clock. */
  readonly #deleted = createLru<string, number>(MAX_REMEMBERED);
  /** Lists that have entries, with the time of the question. */
  readonly #occupied = createLru<string, number>(MAX_REMEMBERED);

  constructor(parts: ListRecordsParts) {
    this.#parts = parts;
  }

  listable(route: Route, {descriptors}: Discovered): Descriptor[] {
    return distinctReferrers(descriptors).filter(({digest}) => !this.#isDeleted(route, digest));
  }

  async keep(route: Route, subject: Digest, learned: Learned): Promise<void> {
    if (this.#isOutdated(route, subject, learned)) return;
    if (learned.skipped.length === 0) await this.#keepWhole(route, subject, learned);
    else await this.#keepPartial(route, subject, learned);
  }

  async checkedAt(route: Route, subject: Digest): Promise<number | undefined> {
    const {metadata, events} = this.#parts;
    const {repository} = route;
    const known = await metadata.referrerList(repository, subject);
    if (known?.checkedAt !== undefined) {
      return this.#partial.get(keyOf(route, subject))?.wholeAt ?? known.checkedAt;
    }
    const empty = this.#unstored.get(keyOf(route, subject));
    // Admission webhooks ask about an image before it is pulled. Once it is here, its empty list is stored, so that it
    // is known in an outage and after a restart.
    if (empty && (await this.#isStored(route, subject))) {
      await storeIfSpace(events, 'an empty list of referrers', () =>
        metadata.commit(
          [{type: 'referrer-list.put', repository, subject, ...empty, descriptors: []}],
          [this.#isLatest(route, subject, empty.at)],
        ),
      );
    }
    return empty?.at;
  }

  skipped(route: Route, subject: Digest): readonly SkippedReferrer[] {
    return this.#partial.get(keyOf(route, subject))?.skipped ?? [];
  }

  isUnstored(route: Route, subject: Digest): boolean {
    return this.#unstored.has(keyOf(route, subject));
  }

  async isEmpty(route: Route, subject: Digest, checkedAt: number): Promise<boolean> {
    const key = keyOf(route, subject);
    if (this.#occupied.get(key) === checkedAt) return false;
    const rows = await this.#parts.metadata.referrers(route.repository, subject, {limit: 1});
    if (rows.length > 0) this.#occupied.set(key, checkedAt);
    return rows.length === 0;
  }

  deleted(route: Route, referrer: Digest): void {
    this.#deleted.set(keyOf(route, referrer), this.#parts.clock.monotonic());
    // Its subject is not known here, so it may have been the last one of any list.
    this.#occupied.clear();
    this.#parts.generations.endRepository(route.repository);
  }

  evicted(repository: RepositoryKey, subject: Digest): void {
    const key = fullReference(repository, subject);
    // An empty list from before would now hide the referrers that the stored one had.
    this.#unstored.delete(key);
    this.#partial.delete(key);
    this.#occupied.delete(key);
  }

  pushed(route: Route, referrer: Digest): void {
    this.#deleted.delete(keyOf(route, referrer));
  }

  async #keepWhole(route: Route, subject: Digest, learned: Learned): Promise<void> {
    const {source, at} = learned;
    const {repository} = route;
    if (!(await this.#isWorthStoring(route, subject, learned))) {
      this.#remember(route, subject, {source, at});
      return;
    }
    const descriptors = this.listable(route, learned);
    const isLatest = await this.#parts.metadata.commit(
      [{type: 'referrer-list.put', repository, subject, source, descriptors, at}],
      [this.#isLatest(route, subject, at)],
    );
    if (isLatest) this.#partial.delete(keyOf(route, subject));
  }

  async #keepPartial(route: Route, subject: Digest, learned: Learned): Promise<void> {
    const {metadata, generations, clock} = this.#parts;
    const {source, skipped, at} = learned;
    const {repository} = route;
    const known = await metadata.referrerList(repository, subject);
    const key = keyOf(route, subject);
    const lastAt = known?.checkedAt ?? this.#unstored.get(key)?.at;
    if (lastAt !== undefined && isLater({checkedAt: lastAt}, at, clock.now())) return;
    this.#unstored.delete(key);
    generations.endRepository(repository);
    this.#partial.set(key, {skipped, at, wholeAt: this.#partial.get(key)?.wholeAt ?? known?.checkedAt});
    const descriptors = this.listable(route, learned);
    if (descriptors.length === 0 && !known) return;
    const storedAt = known?.checkedAt === undefined ? undefined : NEVER;
    const except = skipped.map(({digest}) => digest).filter(isDigest);
    await metadata.commit(
      [{type: 'referrer-list.put', repository, subject, source, descriptors, at: storedAt, except}],
      [this.#isLatest(route, subject, at)],
    );
  }

  /**
   * An empty answer does not name anything that is sure to exist, and anybody can ask about any name. So it is stored
   * only if this repository has the subject, or a list of it. Otherwise it is remembered for a while.
   */
  async #isWorthStoring(route: Route, subject: Digest, {descriptors}: Discovered): Promise<boolean> {
    const {metadata} = this.#parts;
    if (descriptors.length > 0 || (await metadata.referrerList(route.repository, subject))) return true;
    return this.#isStored(route, subject);
  }

  async #isStored({repository}: Route, digest: Digest): Promise<boolean> {
    return (await this.#parts.metadata.manifest(repository, digest)) !== undefined;
  }

  #isDeleted(route: Route, digest: Digest): boolean {
    const deletedAt = this.#deleted.get(keyOf(route, digest)) ?? Number.NEGATIVE_INFINITY;
    return this.#parts.clock.monotonic() - deletedAt < STALENESS_MS;
  }

  /** Remembers an empty list in memory only. */
  #remember(route: Route, subject: Digest, list: {source: Discovered['source']; at: number}): void {
    const key = keyOf(route, subject);
    const known = this.#unstored.get(key);
    if (known && isLater({checkedAt: known.at}, list.at, this.#parts.clock.now())) return;
    this.#partial.delete(key);
    this.#unstored.set(key, list);
  }

  /** Whether an incomplete answer to a later question is known. Such an answer leaves no time in the metadata. */
  #isOutdated(route: Route, subject: Digest, {at}: Learned): boolean {
    const later = this.#partial.get(keyOf(route, subject));
    return later !== undefined && isLater({checkedAt: later.at}, at, this.#parts.clock.now());
  }

  #isLatest({repository}: Route, subject: Digest, askedAt: number): Precondition {
    return {type: 'referrer-list.latest', repository, subject, askedAt, now: this.#parts.clock.now()};
  }
}
