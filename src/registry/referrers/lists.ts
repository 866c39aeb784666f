import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import type {SkippedReferrer} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type CacheReport, freshness, HIT, type TagPolicy} from '../freshness.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import type {TagOptions} from '../tags/tags.ts';
import type {WriteFence} from '../write-fence.ts';
import type {Discovery} from './discovery.ts';
import {createListRecords, type Learned, STALENESS_MS} from './list-records.ts';
import {agedBy, obstacleIn, staleReport, withSkipped} from './list-reports.ts';
import {createUnlistedReferrers} from './unlisted.ts';

/** Keeps each subject's list as fresh as it should be, and tells how fresh it is. */
export interface ReferrerLists {
  /**
   * Resolves when a list may be served: the one in the metadata, or one of which the metadata had nothing, as soon as it
   * is learned.
   * @throws UpstreamFailure when no list is known, or none that is young enough, and the upstream could not be asked:
   * edges that only pulls or pushes brought are not a known list
   * @throws DiskFull when the upstream's list cannot be kept, without which it cannot be paged, and no other may be served
   */
  answer(route: Route, subject: Digest, caller: Caller, options?: TagOptions): Promise<ListAnswer>;
  /** The same for the list in the metadata alone. Throws as `answer` does. */
  ready(route: Route, subject: Digest, caller: Caller): Promise<Omit<ListAnswer, 'unwritten'>>;
  /** A referrer was deleted through us: an answer from before, or a stale one, does not bring it back. */
  deleted(route: Route, referrer: Digest): void;
  /** It was pushed through us, be it again: it is not doubted for a while. */
  pushed(route: Route, referrer: Digest): void;
  /** Writes nothing more than what was learned so far. Resolves when that is done, or could not be. */
  close(): Promise<void>;
}

export interface ListAnswer {
  readonly report: CacheReport;
  /**
   * What the upstream names and is not on the list, which the report tells of: it refuses it for good, or it cannot be
   * verified. With any, an empty list would pass for the knowledge that there are none.
   */
  readonly skipped: readonly SkippedReferrer[];
  /** undefined: the list is in the metadata. */
  readonly unwritten?: UnwrittenList;
}

/** A list as it was learned, of which the metadata has nothing yet. */
export interface UnwrittenList {
  readonly descriptors: readonly Descriptor[];
  /** Waits until it is in the metadata. @throws DiskFull; UpstreamFailure `timeout` as the list itself would */
  written(): Promise<void>;
}

export interface ReferrerListsParts {
  metadata: Metadata;
  discovery: Discovery;
  memory: Memory;
  writes: WriteFence;
  clock: Clock;
  events: Events;
}

/** With a list known, its refreshing is waited for so long; the answer comes within a second. */
const PATIENCE_KNOWN = 800;
/** With none known: three attempts must fit into the ten seconds of an admission webhook. */
const PATIENCE_UNKNOWN = 2300;
/** Sign, then deploy: an empty list lives seconds. */
const EMPTY_TTL = 5000;
/** A list that is being asked for and then written down. */
interface Refreshing {
  /** When it was learned, on the monotonic clock; undefined until then. */
  learnedAt: number | undefined;
  readonly learned: Promise<Learned>;
  readonly written: Promise<void>;
  /** Resolves when what of ours it lacks has been asked about as well. */
  readonly settled: Promise<void>;
}

interface Joined extends Refreshing {
  readonly collapsed: boolean;
}

/** Of nothing that is left out. */
const NOTHING_SKIPPED: readonly SkippedReferrer[] = [];

export function createReferrerLists({
  metadata,
  discovery,
  memory,
  writes,
  clock,
  events,
}: ReferrerListsParts): ReferrerLists {
  const underWay = new Map<string, Refreshing>();
  /** What has been learned, and may have been told, until it is written down. */
  const writing = new Set<Promise<void>>();
  const unlisted = createUnlistedReferrers({metadata, memory, writes, clock});
  const records = createListRecords({metadata, clock, events});
  let closed = false;

  /**
   * Joins who asks already, and takes what is being written down where it was learned after `since`; else asks.
   * @param since on the monotonic clock
   */
  function refresh(route: Route, subject: Digest, caller: Caller, since: number): Joined {
    const {registry, name} = route.repository;
    const key = `${registry}/${name}@${subject} ${caller.key}`;
    const running = underWay.get(key);
    if (running && (running.learnedAt === undefined || running.learnedAt > since))
      return {...running, collapsed: true};
    const started = ask(route, subject, caller);
    underWay.set(key, started);
    const {learned, written} = started;
    const end = (): void => {
      writing.delete(written);
      if (underWay.get(key) === started) underWay.delete(key);
    };
    learned.then(
      () => writing.add(written),
      () => undefined,
    );
    written.then(end, end);
    // It goes on when nobody waits any more; who asks next finds what it brought.
    started.settled.catch((error) => {
      if (!(error instanceof UpstreamFailure))
        events.emit('background.failed', {task: 'list referrers', error});
    });
    return {...started, collapsed: false};
  }

  function ask(route: Route, subject: Digest, caller: Caller): Refreshing {
    const learn = async (): Promise<Learned> => {
      const at = clock.now();
      const discovered = await discovery.ask(route, subject, caller);
      // An incomplete one is nobody's but those who wait for it already.
      const isWhole = discovered.skipped.length === 0;
      refreshing.learnedAt = isWhole ? clock.monotonic() : Number.NEGATIVE_INFINITY;
      return {...discovered, at};
    };
    const write = async (list: Learned): Promise<void> => {
      // What is learned later finds the metadata closed.
      if (closed) return;
      await list.kept;
      await records.keep(route, subject, list);
    };
    const settle = () => unlisted.settle(route, subject, caller);
    const learned = learn();
    const written = learned.then(write);
    const refreshing: Refreshing = {learnedAt: undefined, learned, written, settled: written.then(settle)};
    return refreshing;
  }

  /** @param began when the waiting began, of which this may be a later part */
  async function within<T>(
    patience: number,
    {registry}: Route,
    work: Promise<T>,
    began = clock.monotonic(),
  ): Promise<T> {
    const {promise: late, reject} = Promise.withResolvers<never>();
    const cancel = clock.after(Math.max(0, began + patience - clock.monotonic()), () => {
      const reason = `did not list the referrers within ${patience} ms`;
      reject(new UpstreamFailure('timeout', registry.upstream.host, reason));
    });
    try {
      return await Promise.race([work, late]);
    } finally {
      cancel();
    }
  }

  /** What is not on the list in the metadata, where an answer was written down: that of a later question may be there. */
  const lackingIn = (route: Route, subject: Digest, {skipped}: Learned): readonly SkippedReferrer[] =>
    skipped.length > 0 ? skipped : records.skipped(route, subject);

  /** Answers a first-time list before it is persisted, unless edges of ours join it. */
  async function learnFirst(route: Route, subject: Digest, caller: Caller): Promise<ListAnswer> {
    const began = clock.monotonic();
    const inTime = <T>(work: Promise<T>): Promise<T> => within(PATIENCE_UNKNOWN, route, work, began);
    // While nothing is known, what is being written down is the newest that there is.
    const {learned, written, settled, collapsed} = refresh(route, subject, caller, Number.NEGATIVE_INFINITY);
    const ttl = Math.ceil(route.registry.referrers.ttl / 1000);
    const report: CacheReport = {how: 'uri-miss', collapsed, ttl, age: 0};
    const answer = async (): Promise<ListAnswer> => {
      const list = await learned;
      const {skipped} = list;
      const descriptors = records.listable(route, list);
      const ours = await metadata.referrers(route.repository, subject, {limit: 1});
      if (ours.length === 0) {
        const unwritten = {descriptors, written: () => inTime(written)};
        return {report: withSkipped(report, route, skipped), skipped, unwritten};
      }
      await settled;
      const lacking = lackingIn(route, subject, list);
      return {report: withSkipped({...report, stored: true}, route, lacking), skipped: lacking};
    };
    return inTime(answer());
  }

  async function first(route: Route, subject: Digest, caller: Caller): Promise<ListAnswer> {
    try {
      return await learnFirst(route, subject, caller);
    } catch (error) {
      const pulled = await byPulledTag(route, subject, error);
      if (pulled) return pulled;
      throw error;
    }
  }

  /**
   * A client that pulls the fallback tag learns the list by it, and gets it again while the upstream fails. Whoever asks
   * the API then is to know as much.
   */
  async function byPulledTag(route: Route, subject: Digest, error: unknown): Promise<ListAnswer | undefined> {
    const obstacle = obstacleIn(error);
    const checkedAt = obstacle && (await discovery.pulledAt(route, subject));
    if (!obstacle || checkedAt === undefined) return undefined;
    const policy = policyOf(route, route.registry.referrers.ttl);
    const now = clock.now();
    if (freshness({now, known: {checkedAt}, policy, upstream: 'failed'}) !== 'stale') return undefined;
    const report = staleReport(agedBy(clock.now() - checkedAt, policy.ttl), obstacle, checkedAt);
    return {report, skipped: records.skipped(route, subject)};
  }

  async function answer(
    route: Route,
    subject: Digest,
    caller: Caller,
    {noCache}: TagOptions = {noCache: false},
  ): Promise<ListAnswer> {
    const {referrers, hosted} = route.registry;
    // Nobody else knows of any: what is here is all there is.
    if (hosted) return {report: HIT, skipped: NOTHING_SKIPPED};
    const checkedAt = await records.checkedAt(route, subject);
    if (checkedAt === undefined) return first(route, subject, caller);
    const ttl = (await records.isEmpty(route, subject, checkedAt))
      ? Math.min(EMPTY_TTL, referrers.ttl)
      : referrers.ttl;
    const policy = policyOf(route, ttl);
    const judge = (upstream: 'unasked' | 'failed') =>
      freshness({now: clock.now(), known: {checkedAt}, policy, upstream, noCache});
    const aged = agedBy(clock.now() - checkedAt, ttl);
    const lacking = records.skipped(route, subject);
    // A later answer was not the whole list: the whole one is asked for until there is one.
    const isWhole = lacking.length === 0;
    if (isWhole && judge('unasked') === 'fresh')
      return {report: {how: 'hit', ...aged}, skipped: NOTHING_SKIPPED};
    const usable = judge('failed') === 'stale';
    const how = noCache ? 'request' : 'stale';
    try {
      const since = noCache || !isWhole ? clock.monotonic() : clock.monotonic() - ttl;
      const {learned, settled, collapsed} = refresh(route, subject, caller, since);
      await within(usable ? PATIENCE_KNOWN : PATIENCE_UNKNOWN, route, settled);
      const skipped = lackingIn(route, subject, await learned);
      const report: CacheReport = {how, stored: true, collapsed, ttl: Math.ceil(ttl / 1000), age: 0};
      return {report: withSkipped(report, route, skipped), skipped};
    } catch (error) {
      const obstacle = obstacleIn(error);
      if (!obstacle || !usable) throw error;
      return {report: staleReport(aged, obstacle, checkedAt), skipped: lacking};
    }
  }

  return {
    answer,

    async ready(route, subject, caller) {
      const {unwritten, ...list} = await answer(route, subject, caller);
      await unwritten?.written();
      return list;
    },

    deleted: records.deleted,
    pushed(route, referrer) {
      records.pushed(route, referrer);
      unlisted.confirm(route, referrer, STALENESS_MS);
    },
    async close() {
      closed = true;
      await Promise.allSettled([...writing, unlisted.close()]);
    },
  };
}

const policyOf = ({registry}: Route, ttl: number): TagPolicy => ({
  ttl,
  maxStale: registry.referrers.maxStale,
  keepDeleted: 0,
  absentTtl: 0,
});
