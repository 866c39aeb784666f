import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import type {Change, Metadata, TagRecord} from '../../storage/metadata.ts';
import {type ManifestHead, UpstreamFailure} from '../../upstream/port.ts';
import {type CacheReport, freshness, HIT, isLater, NO_CACHE_FLOOR} from '../freshness.ts';
import {createSingleFlight} from '../keyed.ts';
import type {Place, Route} from '../namespace.ts';
import {manifestAbsence, type NegativeCache, repositoryAbsence} from '../negative-cache.ts';
import type {ManifestPull} from '../pull/manifest.ts';
import {storeIfSpace} from '../store-if-space.ts';
import type {WriteFence} from '../write-fence.ts';

export interface TagOptions {
  /** The client wants the upstream asked, whatever the age; at most once a second per tag. */
  noCache: boolean;
}

/** What a tag points at. */
export interface Resolution {
  readonly digest: Digest;
  readonly report: CacheReport;
  /** What the upstream said of a manifest that is not here yet. */
  readonly head: ManifestHead | undefined;
  /** Why the upstream could not be asked, when this is a stale answer because of it. */
  readonly failure?: UpstreamFailure;
}

export interface Tags {
  /** True when the tag, or its absence, is known here; then `resolve` is the way to it. */
  known(route: Route, tag: Tag): Promise<boolean>;
  /**
   * The tag's digest: as it is known while fresh, else by one HEAD that all waiting requests share.
   * @throws OciError MANIFEST_UNKNOWN when the upstream says that the tag is absent
   * @throws UpstreamFailure when it cannot be asked and nothing here may be served
   */
  resolve(route: Route, tag: Tag, caller: Caller, options: TagOptions): Promise<Resolution>;
  /**
   * The digest that may still be served when the upstream failed after the tag was resolved.
   * @throws the failure when there is none
   */
  fallback(route: Route, tag: Tag, failure: UpstreamFailure): Promise<Resolution>;
  /** Remembers that the upstream has no such tag, for seconds, and gives the error that says so. */
  absent(route: Route, tag: Tag): OciError;
  /** A manifest has arrived: the tags that were seen pointing at it may now do so here. */
  settle(route: Route, digest: Digest): Promise<void>;
  /**
   * Runs the commit that puts or deletes these tags and manifests. What was known of them is forgotten, and the answer
   * to a question from before does not bring it back.
   */
  write(place: Place, references: readonly Reference[], commit: () => Promise<void>): Promise<void>;
}

/** A tag that a HEAD saw moving to a manifest that is not here; it moves here when the manifest arrives. */
interface Sighting {
  readonly head: ManifestHead & {digest: Digest};
  readonly checkedAt: number;
  readonly tag: Tag;
  /** Names the manifest's place, which is waited for. */
  readonly arrival: string;
}

type Answer = {digest: Digest; head: ManifestHead | undefined} | undefined;

const MAX_SIGHTINGS = 10_000;

export interface TagsParts {
  metadata: Metadata;
  pull: ManifestPull;
  negativeCache: NegativeCache;
  writes: WriteFence;
  clock: Clock;
  events: Events;
}

export function createTags({metadata, pull, negativeCache, writes, clock, events}: TagsParts): Tags {
  /** The tags of the sightings by what they wait for: as many in all as there are sightings. */
  const awaiting = new Map<string, Set<Tag>>();
  const sightings = new LRUCache<string, Sighting>({max: MAX_SIGHTINGS, dispose: stopAwaiting});
  const asking = createSingleFlight<Answer>();
  const placeOf = ({repository}: Place) => `${repository.registry}/${repository.name}`;
  const keyOf = ({repository}: Place, tag: Tag) => manifestAbsence(repository, tag);

  function stopAwaiting({arrival, tag}: Sighting): void {
    const tags = awaiting.get(arrival);
    tags?.delete(tag);
    if (tags?.size === 0) awaiting.delete(arrival);
  }

  function sight(route: Route, tag: Tag, head: ManifestHead & {digest: Digest}, checkedAt: number): void {
    const arrival = `${placeOf(route)}@${head.digest}`;
    sightings.set(keyOf(route, tag), {head, checkedAt, tag, arrival});
    awaiting.set(arrival, (awaiting.get(arrival) ?? new Set()).add(tag));
  }

  /** The tag's sighting, unless the record comes from a later answer: an index run keeps one without asking here. */
  function sightingSince(
    route: Route,
    tag: Tag,
    record: TagRecord | undefined,
    now: number,
  ): Sighting | undefined {
    const sighting = sightings.get(keyOf(route, tag));
    return sighting && record && isLater(record, sighting.checkedAt, now) ? undefined : sighting;
  }

  /** Commits what the upstream answered about a tag, unless the answer to a later question is known. */
  async function commit(
    {repository}: Route,
    tag: Tag,
    askedAt: number,
    what: string,
    change: Change,
  ): Promise<void> {
    const latest = {type: 'tag.latest' as const, repository, name: tag, askedAt, now: clock.now()};
    await storeIfSpace(events, what, () => metadata.commit([change], [latest]));
  }

  async function point(route: Route, tag: Tag, digest: Digest, askedAt: number): Promise<void> {
    const {repository} = route;
    sightings.delete(keyOf(route, tag));
    await commit(route, tag, askedAt, 'where a tag points', {
      type: 'tag.put',
      repository,
      name: tag,
      digest,
      origin: 'upstream',
      at: askedAt,
    });
  }

  /** What the upstream answered to a later question, where that came first. */
  async function laterAnswer(route: Route, tag: Tag, askedAt: number): Promise<{answer: Answer} | undefined> {
    const now = clock.now();
    const record = await metadata.tag(route.repository, tag);
    const sighting = sightingSince(route, tag, record, now);
    if (sighting && isLater(sighting, askedAt, now))
      return {answer: {digest: sighting.head.digest, head: sighting.head}};
    if (!record || !isLater(record, askedAt, now)) return undefined;
    return {answer: record.goneAt === undefined ? {digest: record.digest, head: undefined} : undefined};
  }

  /** What was written through us while the upstream's answer was on its way. */
  async function written(route: Route, tag: Tag): Promise<Answer> {
    await writes.settled(route, tag);
    const record = await metadata.tag(route.repository, tag);
    return record && {digest: record.digest, head: undefined};
  }

  function forgetSightings(place: Place, reference: Reference): void {
    const tags = isDigestReference(reference) ? awaiting.get(`${placeOf(place)}@${reference}`) : [reference];
    for (const tag of [...(tags ?? [])]) sightings.delete(keyOf(place, tag));
  }

  /** One HEAD; where it names no digest that compares with ours, one GET, hashed. */
  async function ask(route: Route, tag: Tag, caller: Caller, record: TagRecord | undefined): Promise<Answer> {
    const {repository} = route;
    const asked = writes.moment();
    const askedAt = clock.now();
    const head = await route.registry.upstream.headManifest(repository.name, tag, caller);
    if (writes.isStale(route, tag, asked)) return written(route, tag);
    const later = await laterAnswer(route, tag, askedAt);
    if (later) return later.answer;
    if (!head) {
      sightings.delete(keyOf(route, tag));
      const gone = {type: 'tag.gone' as const, repository, name: tag, at: askedAt};
      if (record) await commit(route, tag, askedAt, 'that a tag is gone', gone);
      return undefined;
    }
    const {digest} = head;
    if (!digest || (record && algorithmOf(digest) !== algorithmOf(record.digest))) {
      const algorithm = record ? algorithmOf(record.digest) : undefined;
      const {value} = await pull.byTag(route, tag, caller, algorithm);
      return value && {digest: value.digest, head: undefined};
    }
    const isHere = digest === record?.digest || (await metadata.manifest(repository, digest));
    if (writes.isStale(route, tag, asked)) return written(route, tag);
    if (isHere) {
      await point(route, tag, digest, askedAt);
      return {digest, head: undefined};
    }
    sight(route, tag, {...head, digest}, askedAt);
    return {digest, head};
  }

  function fromRecord(
    route: Route,
    record: TagRecord,
    how: CacheReport['how'],
    note?: Partial<CacheReport>,
  ): Resolution {
    const age = Math.max(0, clock.now() - record.checkedAt);
    const ttl = Math.ceil((route.registry.tags.ttl - age) / 1000);
    return {
      digest: record.digest,
      head: undefined,
      report: {how, ttl, age: Math.floor(age / 1000), ...note},
    };
  }

  /** What was pushed here does not age. Over an upstream's content it shadows a tag, which is marked. */
  const pushedHere = ({registry}: Route, {digest}: TagRecord): Resolution => ({
    digest,
    head: undefined,
    report: registry.hosted ? HIT : {...HIT, detail: 'local'},
  });

  const deleted = ({registry}: Route, record: TagRecord, now: number): Partial<CacheReport> => ({
    detail: 'deleted-upstream',
    warning: `tag ${record.name} was deleted at ${registry.upstream.host}; this copy is served until ${new Date((record.goneAt ?? now) + registry.tags.keepDeleted).toISOString()}`,
  });

  const failed = (record: TagRecord, failure: UpstreamFailure): Partial<CacheReport> => ({
    detail: failure.kind,
    warning: `${failure.message}; serving the copy last checked at ${new Date(record.checkedAt).toISOString()}`,
  });

  function absent(route: Route, tag: Tag): OciError {
    negativeCache.remember(keyOf(route, tag));
    return unknown(route, tag);
  }

  async function withoutUpstream(
    route: Route,
    record: TagRecord | undefined,
    failure: UpstreamFailure,
  ): Promise<Resolution> {
    // A denial is an answer: what the upstream refuses to its own callers is not handed out as stale.
    if (!record || failure.kind === 'denied') throw failure;
    const verdict = freshness({
      now: clock.now(),
      known: record,
      policy: route.registry.tags,
      upstream: 'failed',
    });
    if (verdict === 'gone') throw failure;
    return {...fromRecord(route, record, 'stale', failed(record, failure)), failure};
  }

  function withoutTag(route: Route, tag: Tag, record: TagRecord | undefined): Resolution {
    const now = clock.now();
    const {tags: policy} = route.registry;
    if (!record || freshness({now, known: record, policy, upstream: 'absent'}) === 'gone')
      throw absent(route, tag);
    return fromRecord(route, {...record, checkedAt: now}, 'stale', deleted(route, record, now));
  }

  async function revalidate(
    route: Route,
    tag: Tag,
    caller: Caller,
    record: TagRecord | undefined,
    how: CacheReport['how'],
  ) {
    let asked: {value: Answer; collapsed: boolean};
    try {
      asked = await asking.run(`${keyOf(route, tag)} ${caller.key}`, () => ask(route, tag, caller, record));
    } catch (error) {
      if (error instanceof UpstreamFailure) return withoutUpstream(route, record, error);
      throw error;
    }
    const {value: answer, collapsed} = asked;
    // Read again: the tag may have been deleted through us meanwhile, and is served no longer then.
    if (!answer) return withoutTag(route, tag, record && (await metadata.tag(route.repository, tag)));
    negativeCache.forget(keyOf(route, tag));
    const ttl = Math.ceil(route.registry.tags.ttl / 1000);
    const detail = record ? (record.digest === answer.digest ? 'unchanged' : 'changed') : undefined;
    return {...answer, report: {how, ttl, age: 0, collapsed, ...(detail ? {detail} : {})}};
  }

  return {
    absent,

    async known(route, tag) {
      const key = keyOf(route, tag);
      const {absentTtl} = route.registry.tags;
      return (
        negativeCache.has(key, absentTtl) ||
        sightings.has(key) ||
        (await metadata.tag(route.repository, tag)) !== undefined
      );
    },

    async resolve(route, tag, caller, {noCache}) {
      const record = await metadata.tag(route.repository, tag);
      if (record?.origin === 'local') return pushedHere(route, record);
      const key = keyOf(route, tag);
      const {tags: policy} = route.registry;
      const now = clock.now();
      const absentTtl = noCache ? Math.min(NO_CACHE_FLOOR, policy.absentTtl) : policy.absentTtl;
      if (negativeCache.has(key, absentTtl)) throw unknown(route, tag);
      const sighting = sightingSince(route, tag, record, now);
      if (sighting && freshness({now, known: sighting, policy, upstream: 'unasked', noCache}) === 'fresh') {
        const age = now - sighting.checkedAt;
        const report = {
          how: 'hit' as const,
          ttl: Math.ceil((policy.ttl - age) / 1000),
          age: Math.floor(age / 1000),
        };
        return {digest: sighting.head.digest, head: sighting.head, report};
      }
      if (!record) return revalidate(route, tag, caller, undefined, 'uri-miss');
      switch (freshness({now, known: record, policy, upstream: 'unasked', noCache})) {
        case 'fresh':
          return fromRecord(route, record, 'hit');
        case 'stale':
          return fromRecord(route, record, 'stale', deleted(route, record, now));
        case 'gone':
          throw unknown(route, tag);
        case 'revalidate':
          return revalidate(route, tag, caller, record, noCache ? 'request' : 'stale');
      }
    },

    async fallback(route, tag, failure) {
      return withoutUpstream(route, await metadata.tag(route.repository, tag), failure);
    },

    async settle(route, digest) {
      const arrival = `${placeOf(route)}@${digest}`;
      const tags = awaiting.get(arrival);
      if (!tags) return;
      awaiting.delete(arrival);
      for (const tag of tags) {
        const sighting = sightings.get(keyOf(route, tag));
        if (sighting?.head.digest === digest) await point(route, tag, digest, sighting.checkedAt);
      }
    },

    async write(place, references, commit) {
      await writes.run(place, references, commit);
      for (const reference of references) {
        forgetSightings(place, reference);
        negativeCache.forget(manifestAbsence(place.repository, reference));
      }
      negativeCache.forget(repositoryAbsence(place.repository));
    },
  };
}

export const unknown = ({registry, asked}: Route, reference: string): OciError =>
  new OciError('MANIFEST_UNKNOWN', {
    message: `${registry.upstream.host} has no manifest ${reference} in ${asked}`,
    detail: {name: asked, reference, upstream: registry.upstream.host},
  });
