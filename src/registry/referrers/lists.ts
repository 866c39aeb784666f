import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {type Metadata, NoRoom} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type CacheReport, HIT} from '../answer.ts';
import {freshness} from '../freshness.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import {keepIfRoom} from '../room.ts';
import type {TagOptions} from '../tags.ts';
import type {Discovered, Discovery} from './discovery.ts';
import {createDoubts} from './doubts.ts';

/** Keeps each subject's list as fresh as it should be, and tells how fresh it is. */
export interface ReferrerLists {
  /**
   * Resolves when a list may be served: the one in the metadata, or one of which the metadata had nothing, as soon as it
   * is learned.
   * @throws UpstreamFailure when no list is known, or none that is young enough, and the upstream could not be asked:
   * edges that only pulls or pushes brought are not a known list
   * @throws NoRoom when the upstream's list cannot be kept, without which it cannot be paged, and no other may be served
   */
  answer(route: Route, subject: Digest, caller: Caller, options?: TagOptions): Promise<ListAnswer>;
  /** The same for the list in the metadata alone. Throws as `answer` does. */
  ready(route: Route, subject: Digest, caller: Caller): Promise<CacheReport>;
  /** A referrer was deleted through us: an answer from before, or a stale one, does not bring it back. */
  deleted(route: Route, referrer: Digest): void;
  /** It was pushed through us, be it again: it is not doubted for a while. */
  pushed(route: Route, referrer: Digest): void;
  /** Resolves when what was learned so far is written down, or could not be. */
  settled(): Promise<void>;
}

export interface ListAnswer {
  readonly report: CacheReport;
  /** undefined: the list is in the metadata. */
  readonly unwritten?: UnwrittenList;
}

/** A whole list, of which the metadata has nothing yet. */
export interface UnwrittenList {
  readonly descriptors: readonly Descriptor[];
  /** Waits until it is in the metadata. @throws NoRoom; UpstreamFailure `timeout` as the list itself would */
  written(): Promise<void>;
}

export interface ReferrerListsParts {
  metadata: Metadata;
  discovery: Discovery;
  memory: Memory;
  clock: Clock;
  events: Events;
}

/** With a list known, its refreshing is waited for so long; the answer comes within a second. */
const PATIENCE_KNOWN = 800;
/** With none known: three attempts must fit into the ten seconds of an admission webhook. */
const PATIENCE_UNKNOWN = 2300;
/** Sign, then deploy: an empty list lives seconds. */
const EMPTY_TTL = 5000;
const MOST_REMEMBERED = 10_000;
/** For so long upstreams are known to answer what was true before. */
const STALENESS = 60_000;

/** The upstream's whole answer, with the time when it was here. */
interface Learned extends Discovered {
  readonly at: number;
}

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

const keyOf = ({repository}: Route, digest: Digest): string =>
  `${repository.registry}/${repository.name}@${digest}`;

export function createReferrerLists({
  metadata,
  discovery,
  memory,
  clock,
  events,
}: ReferrerListsParts): ReferrerLists {
  const underWay = new Map<string, Refreshing>();
  /** What has been learned, and may have been told, until it is written down. */
  const writing = new Set<Promise<void>>();
  const doubts = createDoubts({metadata, memory, clock});
  /** Empty lists that were not written down, with the time of the answer. */
  const passing = new LRUCache<string, {source: Discovered['source']; at: number}>({max: MOST_REMEMBERED});
  /** Referrers that were deleted through us, with the time. */
  const removed = new LRUCache<string, number>({max: MOST_REMEMBERED});
  /** Lists that have entries, with the time of the answer. */
  const occupied = new LRUCache<string, number>({max: MOST_REMEMBERED});

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
    clock.monotonic() - (removed.get(keyOf(route, digest)) ?? Number.NEGATIVE_INFINITY) < STALENESS;

  /** Each once, where an upstream names one twice. */
  function withoutDeleted(route: Route, {descriptors}: Discovered): Descriptor[] {
    const named = new Map(descriptors.map((descriptor) => [descriptor.digest, descriptor]));
    return [...named.values()].filter(({digest}) => !isDeleted(route, digest));
  }

  async function keep(route: Route, subject: Digest, learned: Learned): Promise<void> {
    const {source, at} = learned;
    const {repository} = route;
    const descriptors = withoutDeleted(route, learned);
    if (!(await isWorthKeeping(route, subject, learned))) {
      passing.set(keyOf(route, subject), {source, at});
      return;
    }
    await metadata.commit([{type: 'referrer-list.put', repository, subject, source, descriptors, at}]);
  }

  async function listedAt(route: Route, subject: Digest): Promise<number | undefined> {
    const {repository} = route;
    const known = await metadata.referrerList(repository, subject);
    if (known?.checkedAt !== undefined) return known.checkedAt;
    const empty = passing.get(keyOf(route, subject));
    // Asked about first and pulled then, as admission webhooks make it: a later outage, and a restart, finds it known.
    if (empty && (await isHere(route, subject))) {
      await keepIfRoom(events, 'an empty list of referrers', () =>
        metadata.commit([{type: 'referrer-list.put', repository, subject, ...empty, descriptors: []}]),
      );
    }
    return empty?.at;
  }

  /**
   * Joins who asks already, and takes what is being written down where it was learned after `since`; else asks.
   * @param since on the monotonic clock
   */
  function refresh(route: Route, subject: Digest, caller: Caller, since: number): Joined {
    const key = `${keyOf(route, subject)} ${caller.key}`;
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
      const discovered = await discovery.ask(route, subject, caller);
      refreshing.learnedAt = clock.monotonic();
      return {...discovered, at: clock.now()};
    };
    const write = async (list: Learned): Promise<void> => {
      await list.kept;
      await keep(route, subject, list);
    };
    const settle = () => doubts.settle(route, subject, caller);
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

  /** Of a list of which nothing was known: its writing down is not waited for, unless edges of ours join it. */
  async function first(route: Route, subject: Digest, caller: Caller): Promise<ListAnswer> {
    const began = clock.monotonic();
    const inTime = <T>(work: Promise<T>): Promise<T> => within(PATIENCE_UNKNOWN, route, work, began);
    // While nothing is known, what is being written down is the newest that there is.
    const {learned, written, settled, collapsed} = refresh(route, subject, caller, Number.NEGATIVE_INFINITY);
    const ttl = Math.ceil(route.registry.referrers.ttl / 1000);
    const report: CacheReport = {how: 'uri-miss', collapsed, ttl, age: 0};
    const answer = async (): Promise<ListAnswer> => {
      const descriptors = withoutDeleted(route, await learned);
      const ours = await metadata.referrers(route.repository, subject, {limit: 1});
      if (ours.length === 0) return {report, unwritten: {descriptors, written: () => inTime(written)}};
      await settled;
      return {report: {...report, stored: true}};
    };
    return inTime(answer());
  }

  /** A list that was found to have entries is not looked at again for that until its next answer. */
  async function isEmpty(route: Route, subject: Digest, checkedAt: number): Promise<boolean> {
    const key = keyOf(route, subject);
    if (occupied.get(key) === checkedAt) return false;
    const empty = (await metadata.referrers(route.repository, subject, {limit: 1})).length === 0;
    if (!empty) occupied.set(key, checkedAt);
    return empty;
  }

  async function answer(
    route: Route,
    subject: Digest,
    caller: Caller,
    {noCache}: TagOptions = {noCache: false},
  ): Promise<ListAnswer> {
    const {referrers, hosted} = route.registry;
    // Nobody else knows of any: what is here is all there is.
    if (hosted) return {report: HIT};
    const checkedAt = await listedAt(route, subject);
    if (checkedAt === undefined) return first(route, subject, caller);
    const ttl = (await isEmpty(route, subject, checkedAt))
      ? Math.min(EMPTY_TTL, referrers.ttl)
      : referrers.ttl;
    const policy = {ttl, maxStale: referrers.maxStale, keepDeleted: 0, absentTtl: 0};
    const judge = (upstream: 'unasked' | 'failed') =>
      freshness({now: clock.now(), known: {checkedAt}, policy, upstream, noCache});
    const age = Math.max(0, clock.now() - checkedAt);
    const aged = {ttl: Math.ceil((ttl - age) / 1000), age: Math.floor(age / 1000)};
    if (judge('unasked') === 'fresh') return {report: {how: 'hit', ...aged}};
    const usable = judge('failed') === 'stale';
    const how = noCache ? 'request' : 'stale';
    try {
      const since = noCache ? clock.monotonic() : clock.monotonic() - ttl;
      const {settled, collapsed} = refresh(route, subject, caller, since);
      await within(usable ? PATIENCE_KNOWN : PATIENCE_UNKNOWN, route, settled);
      return {report: {how, stored: true, collapsed, ttl: Math.ceil(ttl / 1000), age: 0}};
    } catch (error) {
      const obstacle = obstacleIn(error);
      if (!obstacle || !usable) throw error;
      const warning = `${obstacle.reason}; serving the referrers listed at ${new Date(checkedAt).toISOString()}`;
      return {report: {how: 'stale', ...aged, detail: obstacle.kind, warning}};
    }
  }

  return {
    answer,

    async ready(route, subject, caller) {
      const {report, unwritten} = await answer(route, subject, caller);
      await unwritten?.written();
      return report;
    },

    deleted: (route, referrer) => void removed.set(keyOf(route, referrer), clock.monotonic()),
    pushed(route, referrer) {
      removed.delete(keyOf(route, referrer));
      doubts.confirm(route, referrer, STALENESS);
    },
    settled: async () => {
      await Promise.allSettled(writing);
    },
  };
}

/** Why there is no newer list than the one that is here, where that is a reason to serve it. */
function obstacleIn(error: unknown): {kind: string; reason: string} | undefined {
  if (error instanceof NoRoom) return {kind: 'no-room', reason: 'there is no room to keep a newer list'};
  if (!(error instanceof UpstreamFailure) || error.kind === 'denied') return undefined;
  return {kind: error.kind, reason: error.message};
}
