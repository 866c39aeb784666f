import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {type Metadata, NoRoom} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type CacheReport, HIT} from '../answer.ts';
import {freshness} from '../freshness.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import {keepIfRoom} from '../room.ts';
import {createSingleFlight} from '../single-flight.ts';
import type {TagOptions} from '../tags.ts';
import type {Discovered, Discovery} from './discovery.ts';

/** Keeps each subject's list as fresh as it should be, and tells how fresh it is. */
export interface ReferrerLists {
  /**
   * Resolves when the list in the metadata may be served.
   * @throws UpstreamFailure when no list is known, or none that is young enough, and the upstream could not be asked:
   * edges that only pulls or pushes brought are not a known list
   * @throws NoRoom when the upstream's list cannot be kept, without which it cannot be paged, and no other may be served
   */
  ready(route: Route, subject: Digest, caller: Caller, options?: TagOptions): Promise<CacheReport>;
  /** A referrer was deleted through us: an answer from before, or a stale one, does not bring it back. */
  deleted(route: Route, referrer: Digest): void;
  /** It was pushed through us, be it again: it is not doubted for a while. */
  pushed(route: Route, referrer: Digest): void;
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
/** Edges of ours that the upstream's list lacks are asked about, so many in a round, each once in a while. */
const MOST_DOUBTS = 64;
const DOUBT_LIFE = 60 * 60_000;
const MOST_REMEMBERED = 10_000;
/** For so long upstreams are known to answer what was true before. */
const STALENESS = 60_000;

export function createReferrerLists({
  metadata,
  discovery,
  memory,
  clock,
  events,
}: ReferrerListsParts): ReferrerLists {
  const asking = createSingleFlight<void>();
  const confirmed = new LRUCache<string, number>({max: MOST_REMEMBERED});
  /** Empty lists that were not written down, with the time of the answer. */
  const passing = new LRUCache<string, {source: Discovered['source']; at: number}>({max: MOST_REMEMBERED});
  /** Referrers that were deleted through us, with the time. */
  const removed = new LRUCache<string, number>({max: MOST_REMEMBERED});
  /** Lists that have entries, with the time of the answer. */
  const occupied = new LRUCache<string, number>({max: MOST_REMEMBERED});
  const keyOf = ({repository}: Route, digest: Digest) =>
    `${repository.registry}/${repository.name}@${digest}`;

  /** What was pushed here is no doubt: the upstream need not know of it. */
  async function doubtsOf(route: Route, subject: Digest): Promise<{digest: Digest}[]> {
    const {repository} = route;
    const doubts: {digest: Digest}[] = [];
    for (const {listed, digest} of await metadata.referrers(repository, subject, {limit: 10_000})) {
      if (listed || (confirmed.get(keyOf(route, digest)) ?? 0) >= clock.now()) continue;
      if ((await metadata.manifest(repository, digest))?.origin === 'local') continue;
      doubts.push({digest});
      if (doubts.length === MOST_DOUBTS) break;
    }
    return doubts;
  }

  /** A referrer of ours that a complete answer lacks is dropped only when the upstream says that it is gone. */
  async function settleDoubts(route: Route, subject: Digest, caller: Caller): Promise<void> {
    const {registry, repository} = route;
    const doubts = await doubtsOf(route, subject);
    const gone = await Promise.all(
      doubts.map(async ({digest}) => {
        const head = await registry.upstream.headManifest(repository.name, digest, caller);
        if (head) confirmed.set(keyOf(route, digest), clock.now() + DOUBT_LIFE);
        return head ? undefined : digest;
      }),
    );
    const changes = gone
      .filter((digest) => digest !== undefined)
      .map((digest) => ({type: 'manifest.unlink' as const, repository, digest}));
    if (changes.length === 0) return;
    await metadata.commit(changes);
    for (const {digest} of changes) memory.forgetManifest(repository, digest);
  }

  /** The list is known all the same; what could not be asked about, or removed, stays on it until the next round. */
  function leaveDoubts(error: unknown): void {
    if (!(error instanceof UpstreamFailure || error instanceof NoRoom)) throw error;
  }

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
    clock.now() - (removed.get(keyOf(route, digest)) ?? Number.NEGATIVE_INFINITY) < STALENESS;

  async function keep(route: Route, subject: Digest, discovered: Discovered): Promise<void> {
    const {source} = discovered;
    const {repository} = route;
    const at = clock.now();
    const descriptors = discovered.descriptors.filter(({digest}) => !isDeleted(route, digest));
    if (!(await isWorthKeeping(route, subject, discovered))) {
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

  const refresh = (route: Route, subject: Digest, caller: Caller) =>
    asking.run(`${keyOf(route, subject)} ${caller.key}`, async () => {
      await keep(route, subject, await discovery.ask(route, subject, caller));
      await settleDoubts(route, subject, caller).catch(leaveDoubts);
    });

  /** The refreshing goes on when the patience ends; who asks next finds what it brought. */
  async function refreshWithin(
    patience: number,
    route: Route,
    subject: Digest,
    caller: Caller,
  ): Promise<{collapsed: boolean}> {
    const refreshing = refresh(route, subject, caller);
    const {promise: late, reject} = Promise.withResolvers<never>();
    const cancel = clock.after(patience, () => {
      const reason = `did not list the referrers within ${patience} ms`;
      reject(new UpstreamFailure('timeout', route.registry.upstream.host, reason));
    });
    refreshing.catch((error) => {
      if (!(error instanceof UpstreamFailure))
        events.emit('background.failed', {task: 'list referrers', error});
    });
    try {
      return await Promise.race([refreshing, late]);
    } finally {
      cancel();
    }
  }

  /** A list that was found to have entries is not looked at again for that until its next answer. */
  async function isEmpty(route: Route, subject: Digest, checkedAt: number): Promise<boolean> {
    const key = keyOf(route, subject);
    if (occupied.get(key) === checkedAt) return false;
    const empty = (await metadata.referrers(route.repository, subject, {limit: 1})).length === 0;
    if (!empty) occupied.set(key, checkedAt);
    return empty;
  }

  return {
    deleted: (route, referrer) => void removed.set(keyOf(route, referrer), clock.now()),
    pushed(route, referrer) {
      removed.delete(keyOf(route, referrer));
      confirmed.set(keyOf(route, referrer), clock.now() + STALENESS);
    },

    async ready(route, subject, caller, {noCache} = {noCache: false}) {
      const {referrers, hosted} = route.registry;
      // Nobody else knows of any: what is here is all there is.
      if (hosted) return HIT;
      const checkedAt = await listedAt(route, subject);
      if (checkedAt === undefined) {
        const {collapsed} = await refreshWithin(PATIENCE_UNKNOWN, route, subject, caller);
        return {how: 'uri-miss', stored: true, collapsed, ttl: Math.ceil(referrers.ttl / 1000), age: 0};
      }
      const ttl = (await isEmpty(route, subject, checkedAt))
        ? Math.min(EMPTY_TTL, referrers.ttl)
        : referrers.ttl;
      const policy = {ttl, maxStale: referrers.maxStale, keepDeleted: 0, absentTtl: 0};
      const judge = (upstream: 'unasked' | 'failed') =>
        freshness({now: clock.now(), known: {checkedAt}, policy, upstream, noCache});
      const age = Math.max(0, clock.now() - checkedAt);
      const aged = {ttl: Math.ceil((ttl - age) / 1000), age: Math.floor(age / 1000)};
      if (judge('unasked') === 'fresh') return {how: 'hit', ...aged};
      const usable = judge('failed') === 'stale';
      try {
        const patience = usable ? PATIENCE_KNOWN : PATIENCE_UNKNOWN;
        const {collapsed} = await refreshWithin(patience, route, subject, caller);
        return {
          how: noCache ? 'request' : 'stale',
          stored: true,
          collapsed,
          ttl: Math.ceil(ttl / 1000),
          age: 0,
        };
      } catch (error) {
        const obstacle = obstacleIn(error);
        if (!obstacle || !usable) throw error;
        const warning = `${obstacle.reason}; serving the referrers listed at ${new Date(checkedAt).toISOString()}`;
        return {how: 'stale', ...aged, detail: obstacle.kind, warning};
      }
    },
  };
}

/** Why there is no newer list than the one that is here, where that is a reason to serve it. */
function obstacleIn(error: unknown): {kind: string; reason: string} | undefined {
  if (error instanceof NoRoom) return {kind: 'no-room', reason: 'there is no room to keep a newer list'};
  if (!(error instanceof UpstreamFailure) || error.kind === 'denied') return undefined;
  return {kind: error.kind, reason: error.message};
}
