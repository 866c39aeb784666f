import {LRUCache} from 'lru-cache';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import {type Digest, isDigest} from '../../oci/digest.ts';
import {distinctReferrers, type SkippedReferrer} from '../../oci/referrers.ts';
import type {Metadata, Precondition} from '../../storage/metadata.ts';
import {isLater} from '../freshness.ts';
import type {Route} from '../namespace.ts';
import {storeIfSpace} from '../store-if-space.ts';
import type {Discovered} from './discovery.ts';

/** An upstream's answer, with the time of the question. */
export interface Learned extends Discovered {
  readonly at: number;
}

/** What is remembered of each subject's list, in the metadata or for a while in memory. */
export interface ListRecords {
  /** The descriptors of an answer that may be listed: each digest once, and none that was deleted through us meanwhile. */
  listable(route: Route, answer: Discovered): Descriptor[];
  /** Writes an answer down, unless the answer to a later question is known. One with skipped entries leaves the list as old as it was, and unknown after a restart. @throws DiskFull */
  keep(route: Route, subject: Digest, learned: Learned): Promise<void>;
  /** When the upstream last gave the whole list; undefined while it has given none. */
  checkedAt(route: Route, subject: Digest): Promise<number | undefined>;
  /** What the last answer named and could not be listed; nothing where that was the whole list. */
  skipped(route: Route, subject: Digest): readonly SkippedReferrer[];
  /** A list that was found to have entries is not looked at again before its next answer, or a deletion through us. */
  isEmpty(route: Route, subject: Digest, checkedAt: number): Promise<boolean>;
  /** A referrer was deleted through us. */
  deleted(route: Route, referrer: Digest): void;
  /** It was pushed through us. */
  pushed(route: Route, referrer: Digest): void;
}

export interface ListRecordsParts {
  metadata: Metadata;
  clock: Clock;
  events: Events;
}

const MAX_REMEMBERED = 10_000;
/** For so long, in milliseconds, upstreams are known to answer what was true before. */
export const STALENESS_MS = 60_000;

/** An answer that was not the whole list. Times in milliseconds since the epoch. */
interface Part {
  readonly skipped: readonly SkippedReferrer[];
  /** When it was asked for. */
  readonly at: number;
  /** When the upstream last gave the whole list. */
  readonly wholeAt: number | undefined;
}

/**
 * Older than any list may be. That an answer was not the whole list is known in memory alone. After a restart, what it
 * left of the whole list from before would pass for a whole one, and by some artifact type for an empty one.
 */
const NEVER = 0;

const keyOf = ({repository}: Route, digest: Digest): string =>
  `${repository.registry}/${repository.name}@${digest}`;

export function createListRecords({metadata, clock, events}: ListRecordsParts): ListRecords {
  /** Empty lists that were not written down, with the time of the answer. */
  const passing = new LRUCache<string, {source: Discovered['source']; at: number}>({max: MAX_REMEMBERED});
  /** Lists whose last answer was not the whole list. */
  const partial = new LRUCache<string, Part>({max: MAX_REMEMBERED});
  /** Referrers that were deleted through us, with the time on the monotonic clock. */
  const removed = new LRUCache<string, number>({max: MAX_REMEMBERED});
  /** Lists that have entries, with the time of the answer. */
  const occupied = new LRUCache<string, number>({max: MAX_REMEMBERED});

  /**
   * An empty answer names nothing that is sure to exist, and anybody can ask about any name: it is written down only
   * for what this repository has here or what was listed before, and otherwise remembered for a while.
   */
  async function isWorthKeeping(route: Route, subject: Digest, {descriptors}: Discovered): Promise<boolean> {
    if (descriptors.length > 0 || (await metadata.referrerList(route.repository, subject))) return true;
    return isHere(route, subject);
  }

  async function isHere({repository}: Route, subject: Digest): Promise<boolean> {
    return (await metadata.manifest(repository, subject)) !== undefined;
  }

  const isDeleted = (route: Route, digest: Digest): boolean =>
    clock.monotonic() - (removed.get(keyOf(route, digest)) ?? Number.NEGATIVE_INFINITY) < STALENESS_MS;

  const listable = (route: Route, {descriptors}: Discovered): Descriptor[] =>
    distinctReferrers(descriptors).filter(({digest}) => !isDeleted(route, digest));

  const latest = ({repository}: Route, subject: Digest, askedAt: number): Precondition => ({
    type: 'referrer-list.latest',
    repository,
    subject,
    askedAt,
    now: clock.now(),
  });

  /** Is the answer to a later question known, which was not the whole list? It leaves no time in the metadata. */
  function isOvertaken(route: Route, subject: Digest, {at}: Learned): boolean {
    const later = partial.get(keyOf(route, subject));
    return later !== undefined && isLater({checkedAt: later.at}, at, clock.now());
  }

  /** Remembers an empty list without writing it down. */
  function pass(route: Route, subject: Digest, list: {source: Discovered['source']; at: number}): void {
    const key = keyOf(route, subject);
    const known = passing.get(key);
    if (known && isLater({checkedAt: known.at}, list.at, clock.now())) return;
    partial.delete(key);
    passing.set(key, list);
  }

  async function keepWhole(route: Route, subject: Digest, learned: Learned): Promise<void> {
    const {source, at} = learned;
    const {repository} = route;
    if (!(await isWorthKeeping(route, subject, learned))) {
      pass(route, subject, {source, at});
      return;
    }
    const descriptors = listable(route, learned);
    const isLatest = await metadata.commit(
      [{type: 'referrer-list.put', repository, subject, source, descriptors, at}],
      [latest(route, subject, at)],
    );
    if (isLatest) partial.delete(keyOf(route, subject));
  }

  async function keepPart(route: Route, subject: Digest, learned: Learned): Promise<void> {
    const {source, skipped, at} = learned;
    const {repository} = route;
    const known = await metadata.referrerList(repository, subject);
    const key = keyOf(route, subject);
    const lastAt = known?.checkedAt ?? passing.get(key)?.at;
    if (lastAt !== undefined && isLater({checkedAt: lastAt}, at, clock.now())) return;
    passing.delete(key);
    partial.set(key, {skipped, at, wholeAt: partial.get(key)?.wholeAt ?? known?.checkedAt});
    const descriptors = listable(route, learned);
    if (descriptors.length === 0 && !known) return;
    const keptAt = known?.checkedAt === undefined ? undefined : NEVER;
    const except = skipped.map(({digest}) => digest).filter(isDigest);
    await metadata.commit(
      [{type: 'referrer-list.put', repository, subject, source, descriptors, at: keptAt, except}],
      [latest(route, subject, at)],
    );
  }

  return {
    listable,

    async keep(route, subject, learned) {
      if (isOvertaken(route, subject, learned)) return;
      if (learned.skipped.length === 0) await keepWhole(route, subject, learned);
      else await keepPart(route, subject, learned);
    },

    async checkedAt(route, subject) {
      const {repository} = route;
      const known = await metadata.referrerList(repository, subject);
      if (known?.checkedAt !== undefined)
        return partial.get(keyOf(route, subject))?.wholeAt ?? known.checkedAt;
      const empty = passing.get(keyOf(route, subject));
      // Asked about first and pulled then, as admission webhooks make it: a later outage, and a restart, finds it known.
      if (empty && (await isHere(route, subject))) {
        await storeIfSpace(events, 'an empty list of referrers', () =>
          metadata.commit(
            [{type: 'referrer-list.put', repository, subject, ...empty, descriptors: []}],
            [latest(route, subject, empty.at)],
          ),
        );
      }
      return empty?.at;
    },

    skipped: (route, subject) => partial.get(keyOf(route, subject))?.skipped ?? [],

    async isEmpty(route, subject, checkedAt) {
      const key = keyOf(route, subject);
      if (occupied.get(key) === checkedAt) return false;
      const empty = (await metadata.referrers(route.repository, subject, {limit: 1})).length === 0;
      if (!empty) occupied.set(key, checkedAt);
      return empty;
    },

    deleted(route, referrer) {
      removed.set(keyOf(route, referrer), clock.monotonic());
      // Its subject is not known here: it may have been the last one of any list.
      occupied.clear();
    },
    pushed: (route, referrer) => void removed.delete(keyOf(route, referrer)),
  };
}
