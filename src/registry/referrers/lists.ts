import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import type {SkippedReferrer} from '../../oci/referrers.ts';
import type {Metadata, RepositoryKey} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {
  ageOf,
  type CacheReport,
  freshness,
  HIT,
  servableUntil,
  staleReport,
  type TagPolicy,
} from '../freshness.ts';
import type {Generations} from '../generations.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import {hitReport, type Lifetime, lifetimeOf} from '../quota.ts';
import type {TagOptions} from '../tags/tags.ts';
import type {WriteFence} from '../write-fence.ts';
import type {Discovery} from './discovery.ts';
import {createListRecords, type Learned, type ListRecords} from './list-records.ts';
import {createListRefreshes, type ListRefreshes} from './list-refreshes.ts';
import {obstacleIn} from './obstacle.ts';
import {withSkipped} from './skipped.ts';
import {createUnlistedReferrers} from './unlisted.ts';

/** Keeps each subject's list as fresh as it should be, and reports how fresh it is. */
export interface ReferrerLists {
  /**
   * Resolves when a list may be served: the one in the metadata, or, the first time, what the upstream answered before
   * it is stored.
   * @throws UpstreamFailure when the upstream could not be asked and no known list is young enough: edges that only
   * pulls and pushes brought are not a known list
   * @throws DiskFull when the upstream's list cannot be stored, which paging needs, and no other may be served
   */
  answer(route: Route, subject: Digest, caller: Caller, options?: TagOptions): Promise<ListAnswer>;
  /** The same, but the list is always in the metadata. Throws as `answer` does. */
  ready(route: Route, subject: Digest, caller: Caller): Promise<Omit<ListAnswer, 'unwritten'>>;
  /** Whether it is known when the upstream listed the referrers. Asks nobody. */
  isKnown(route: Route, subject: Digest): Promise<boolean>;
  /** Until when the list may be served while the upstream fails, in ms since the epoch; undefined: not at all. Asks nobody. */
  servableUntil(route: Route, subject: Digest): Promise<number | undefined>;
  /** A referrer was deleted through us: an earlier answer, or a stale one, does not bring it back. */
  deleted(route: Route, referrer: Digest): void;
  /** These manifests, or ones that refer to them, were evicted: what is remembered of their lists is forgotten as well. */
  evicted(repository: RepositoryKey, digests: readonly Digest[]): void;
  /** A referrer was pushed through us: for a while, its absence from the upstream's list is not questioned. */
  pushed(route: Route, referrer: Digest): void;
  /** Stores what was learned so far, and nothing after that. Resolves when that has ended, even if it failed. */
  close(): Promise<void>;
}

export interface ListAnswer {
  readonly report: CacheReport;
  /**
   * What the upstream names but is not on the list, as the report says: the upstream refuses it for good, or it cannot
   * be verified. If there is any, an empty list must not be served, because it would mean that there are no referrers.
   */
  readonly skipped: readonly SkippedReferrer[];
  /** Whether the metadata say when the upstream listed it; they forget that when its subject is evicted. */
  readonly isDated: boolean;
  /** undefined: the list is in the metadata. */
  readonly unwritten?: UnwrittenList;
}

/** A list that the upstream has just given, and that is not in the metadata yet. */
export interface UnwrittenList {
  readonly descriptors: readonly Descriptor[];
  /** Waits until it is in the metadata. @throws DiskFull; UpstreamFailure `timeout` as the list itself would */
  written(): Promise<void>;
}

export interface ReferrerListsParts {
  metadata: Metadata;
  discovery: Discovery;
  memory: Memory;
  generations: Pick<Generations, 'endRepository'>;
  writeFence: WriteFence;
  clock: Clock;
  events: Events;
}

/** How long to wait for a newer list when one is known, so that the answer comes within a second. */
const KNOWN_TIMEOUT_MS = 800;
/** The same when none is known: three attempts must fit into the ten seconds of an admission webhook. */
const UNKNOWN_TIMEOUT_MS = 2300;
/** Images are signed, then deployed at once: so an empty list is used for seconds only. */
const EMPTY_TTL_MS = 5000;

const NOTHING_SKIPPED: readonly SkippedReferrer[] = [];

export const createReferrerLists = (parts: ReferrerListsParts): ReferrerLists =>
  new CachedReferrerLists(parts);

class CachedReferrerLists implements ReferrerLists {
  readonly #parts: ReferrerListsParts;
  readonly #records: ListRecords;
  readonly #refreshes: ListRefreshes;

  constructor(parts: ReferrerListsParts) {
    this.#parts = parts;
    const {metadata, discovery, memory, generations, writeFence, clock, events} = parts;
    this.#records = createListRecords({metadata, generations, clock, events});
    const unlisted = createUnlistedReferrers({metadata, memory, writeFence, clock});
    this.#refreshes = createListRefreshes({discovery, records: this.#records, unlisted, clock, events});
  }

  async answer(
    route: Route,
    subject: Digest,
    caller: Caller,
    {noCache}: TagOptions = {noCache: false},
  ): Promise<ListAnswer> {
    // A hosted registry has no upstream that could list more.
    if (route.registry.hosted) return {report: HIT, skipped: NOTHING_SKIPPED, isDated: false};
    const checkedAt = await this.#records.checkedAt(route, subject);
    if (checkedAt === undefined) return this.#first(route, subject, caller);
    const lifetime = await this.#lifetimeOf(route, subject, checkedAt);
    const {ttl} = lifetime;
    const {clock} = this.#parts;
    const judge = (upstream: 'unasked' | 'failed') =>
      freshness({now: clock.now(), known: {checkedAt}, policy: policyOf(route, ttl), upstream, noCache});
    const now = clock.now();
    const skipped = this.#records.skipped(route, subject);
    // After an incomplete answer, the complete list is asked for until there is one.
    const isWhole = skipped.length === 0;
    if (isWhole && judge('unasked') === 'fresh') {
      const {steady, ...report} = hitReport({checkedAt, now}, lifetime);
      // What is remembered in memory alone may be forgotten at any time.
      const isLasting = steady && !this.#records.isUnstored(route, subject);
      return {report: isLasting ? {...report, steady} : report, skipped: NOTHING_SKIPPED, isDated: true};
    }
    const isUsable = judge('failed') === 'stale';
    const since = noCache || !isWhole ? clock.monotonic() : clock.monotonic() - ttl;
    const timeout = isUsable ? KNOWN_TIMEOUT_MS : UNKNOWN_TIMEOUT_MS;
    try {
      const renewed = await this.#renew(route, subject, caller, {since, timeout});
      const how = noCache ? 'request' : 'stale';
      const {collapsed} = renewed;
      const report = {how, stored: true, collapsed, ...ageOf(0, ttl)} as const;
      return {report: withSkipped(report, route, renewed.skipped), skipped: renewed.skipped, isDated: true};
    } catch (error) {
      const obstacle = obstacleIn(error);
      if (!obstacle || !isUsable) throw error;
      // Its subject may have been evicted during the wait: what is left of the list is not the list.
      if ((await this.#records.checkedAt(route, subject)) === undefined) throw error;
      return {report: staleReport(obstacle, LISTED, {checkedAt, ttl, now}), skipped, isDated: true};
    }
  }

  async ready(route: Route, subject: Digest, caller: Caller): Promise<Omit<ListAnswer, 'unwritten'>> {
    const {unwritten, ...list} = await this.answer(route, subject, caller);
    await unwritten?.written();
    return list;
  }

  async isKnown(route: Route, subject: Digest): Promise<boolean> {
    return (await this.#records.checkedAt(route, subject)) !== undefined;
  }

  async servableUntil(route: Route, subject: Digest): Promise<number | undefined> {
    if (route.registry.hosted) return Number.POSITIVE_INFINITY;
    if (this.#records.skipped(route, subject).length > 0) return undefined;
    const {discovery} = this.#parts;
    const known = await this.#records.checkedAt(route, subject);
    const checkedAt = known ?? (await discovery.pulledAt(route, subject));
    return checkedAt === undefined ? undefined : servableUntil({checkedAt}, policyOf(route, 0));
  }

  deleted(route: Route, referrer: Digest): void {
    this.#records.deleted(route, referrer);
  }

  evicted(repository: RepositoryKey, digests: readonly Digest[]): void {
    for (const digest of digests) this.#records.evicted(repository, digest);
  }

  pushed(route: Route, referrer: Digest): void {
    this.#records.pushed(route, referrer);
    this.#refreshes.pushed(route, referrer);
  }

  close(): Promise<void> {
    return this.#refreshes.close();
  }

  async #lifetimeOf(route: Route, subject: Digest, checkedAt: number): Promise<Lifetime> {
    const {registry} = route;
    const {referrers} = registry;
    const isEmpty = await this.#records.isEmpty(route, subject, checkedAt);
    if (!isEmpty) return lifetimeOf(registry, referrers);
    // An empty list is not used for longer while the rate limit is running out: it would hide a new signature.
    return {...lifetimeOf(registry, referrers), ttl: Math.min(EMPTY_TTL_MS, referrers.ttl)};
  }

  async #first(route: Route, subject: Digest, caller: Caller): Promise<ListAnswer> {
    try {
      return await this.#learnFirst(route, subject, caller);
    } catch (error) {
      const pulled = await this.#byPulledTag(route, subject, error);
      if (pulled) return pulled;
      throw error;
    }
  }

  /** Answers a first-time list before it is stored, unless referrers of ours join it. */
  async #learnFirst(route: Route, subject: Digest, caller: Caller): Promise<ListAnswer> {
    const began = this.#parts.clock.monotonic();
    const inTime = <T>(work: Promise<T>): Promise<T> => this.#within(UNKNOWN_TIMEOUT_MS, route, work, began);
    // While no list is known, one that is being stored is the newest.
    const refresh = this.#refreshes.join(route, subject, caller, Number.NEGATIVE_INFINITY);
    const {learned, written, verified, collapsed} = refresh;
    const report: CacheReport = {how: 'uri-miss', collapsed, ...ageOf(0, route.registry.referrers.ttl)};
    const answer = async (): Promise<ListAnswer> => {
      const list = await learned;
      const {skipped} = list;
      const descriptors = this.#records.listable(route, list);
      const ours = await this.#parts.metadata.referrers(route.repository, subject, {limit: 1});
      if (ours.length === 0) {
        const unwritten = {descriptors, written: () => inTime(written)};
        return {report: withSkipped(report, route, skipped), skipped, isDated: false, unwritten};
      }
      await verified;
      const stored = this.#skippedIn(route, subject, list);
      return {
        report: withSkipped({...report, stored: true}, route, stored),
        skipped: stored,
        isDated: stored.length === 0,
      };
    };
    return inTime(answer());
  }

  /**
   * A client that pulls the fallback tag gets the list by it, also while the upstream fails. Who asks the Referrers API
   * then must get as much.
   */
  async #byPulledTag(route: Route, subject: Digest, error: unknown): Promise<ListAnswer | undefined> {
    const {discovery, clock} = this.#parts;
    const obstacle = obstacleIn(error);
    const checkedAt = obstacle && (await discovery.pulledAt(route, subject));
    if (!obstacle || checkedAt === undefined) return undefined;
    const policy = policyOf(route, route.registry.referrers.ttl);
    const now = clock.now();
    if (freshness({now, known: {checkedAt}, policy, upstream: 'failed'}) !== 'stale') return undefined;
    const report = staleReport(obstacle, LISTED, {checkedAt, ttl: policy.ttl, now});
    return {report, skipped: this.#records.skipped(route, subject), isDated: false};
  }

  /** Waits until the metadata has a list that was learned after `since`. Throws as `#within` does. */
  async #renew(
    route: Route,
    subject: Digest,
    caller: Caller,
    {since, timeout}: {since: number; timeout: number},
  ): Promise<Pick<ListAnswer, 'skipped'> & {collapsed: boolean}> {
    const {learned, verified, collapsed} = this.#refreshes.join(route, subject, caller, since);
    await this.#within(timeout, route, verified);
    return {skipped: this.#skippedIn(route, subject, await learned), collapsed};
  }

  /** What the list in the metadata lacks after this answer was stored: the answer to a later question may be there. */
  #skippedIn(route: Route, subject: Digest, {skipped}: Learned): readonly SkippedReferrer[] {
    return skipped.length > 0 ? skipped : this.#records.skipped(route, subject);
  }

  /**
   * @param began when the waiting began, if this is a later part of it
   * @throws UpstreamFailure `timeout`, and what the work throws
   */
  async #within<T>(
    timeout: number,
    {registry}: Route,
    work: Promise<T>,
    began = this.#parts.clock.monotonic(),
  ): Promise<T> {
    const {clock} = this.#parts;
    const {promise: late, reject} = Promise.withResolvers<never>();
    const cancel = clock.after(Math.max(0, began + timeout - clock.monotonic()), () => {
      const reason = `did not list the referrers within ${timeout} ms`;
      reject(new UpstreamFailure('timeout', registry.upstream.host, reason));
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      cancel();
    }
  }
}

const policyOf = ({registry}: Route, ttl: number): TagPolicy => ({
  ttl,
  maxStale: registry.referrers.maxStale,
  keepDeleted: 0,
  absentTtl: 0,
});

/** What a stale report says before the date of its list. */
const LISTED = 'the referrers listed at';
