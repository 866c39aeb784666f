import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import type {OciError} from '../../oci/errors.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {fullReference, type Metadata, type TagRecord} from '../../storage/metadata.ts';
import {type ManifestHead, UpstreamFailure} from '../../upstream/port.ts';
import {manifestUnknown} from '../failure.ts';
import {
  absentTtl,
  ageOf,
  type CacheReport,
  freshness,
  HIT,
  servableDespite,
  staleReport,
  type TagPolicy,
} from '../freshness.ts';
import {createSingleFlight, type SingleFlight} from '../keyed.ts';
import type {Route} from '../namespace.ts';
import {manifestAbsence, type NegativeCache, repositoryAbsence} from '../negative-cache.ts';
import {hitReport, tagPolicy} from '../quota.ts';
import type {WriteFence} from '../write-fence.ts';
import {
  type AskedTag,
  createUpstreamTags,
  type TagAnswer,
  type UpstreamTags,
  type UpstreamTagsParts,
} from './upstream-tags.ts';

export interface TagOptions {
  /** The client wants the upstream asked, whatever the age; at most once a second per tag. */
  noCache: boolean;
  /** False where no client asks: then it does not count as a use. Default true. */
  isUse?: boolean;
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
  /** True when the tag, or its absence for this caller, is known here; then `resolve` finds it. */
  known(route: Route, tag: Tag, caller: Caller): Promise<boolean>;
  /**
   * The tag's digest: as it is known while fresh, else by one HEAD that all waiting requests of this caller share.
   * @throws OciError MANIFEST_UNKNOWN when the upstream says that the tag is absent
   * @throws UpstreamFailure when it cannot be asked and nothing here may be served
   */
  resolve(route: Route, tag: Tag, caller: Caller, options: TagOptions): Promise<Resolution>;
  /**
   * The digest that may still be served when the upstream failed after the tag was resolved.
   * @throws the failure when there is none
   */
  fallback(route: Route, tag: Tag, failure: UpstreamFailure): Promise<Resolution>;
  /** Remembers for seconds that the upstream has no such tag for this caller. @returns the error that says so */
  absent(route: Route, tag: Tag, caller: Caller): OciError;
  /** A manifest has arrived: moves the pending tags that point at it. */
  arrived(route: Route, digest: Digest): Promise<void>;
  /**
   * Runs the commit that puts or deletes these tags and manifests. What was known of them is forgotten, and the answer
   * to a question from before does not bring it back.
   */
  write(
    within: Pick<Route, 'repository'>,
    references: readonly Reference[],
    commit: () => Promise<void>,
  ): Promise<void>;
}

export interface TagsParts extends UpstreamTagsParts {
  negativeCache: NegativeCache;
}

export const createTags = (parts: TagsParts): Tags => new MirroredTags(parts);

class MirroredTags implements Tags {
  readonly #metadata: Metadata;
  readonly #negativeCache: NegativeCache;
  readonly #generations: TagsParts['generations'];
  readonly #writeFence: WriteFence;
  readonly #clock: Clock;
  readonly #upstream: UpstreamTags;
  readonly #asking: SingleFlight<TagAnswer> = createSingleFlight();

  constructor(parts: TagsParts) {
    this.#metadata = parts.metadata;
    this.#negativeCache = parts.negativeCache;
    this.#generations = parts.generations;
    this.#writeFence = parts.writeFence;
    this.#clock = parts.clock;
    this.#upstream = createUpstreamTags(parts);
  }

  async known(route: Route, tag: Tag, caller: Caller): Promise<boolean> {
    const {repository} = route;
    const {absentTtl: remembered} = tagPolicy(route, tag);
    return (
      this.#negativeCache.has(manifestAbsence(repository, tag), caller, remembered) ||
      this.#upstream.pending.has(repository, tag) ||
      (await this.#metadata.tag(repository, tag)) !== undefined
    );
  }

  async resolve(route: Route, tag: Tag, caller: Caller, {noCache}: TagOptions): Promise<Resolution> {
    const {repository} = route;
    const asked = {route, tag, caller};
    const record = await this.#metadata.tag(repository, tag);
    if (record?.origin === 'local') return pushedHere(route, record);
    const policy = tagPolicy(route, tag);
    const now = this.#clock.now();
    const isAbsent = this.#negativeCache.has(
      manifestAbsence(repository, tag),
      caller,
      absentTtl(policy, noCache),
    );
    if (isAbsent) throw manifestUnknown(route, tag);
    const pending = this.#upstream.pending.find(repository, tag, record, now);
    if (pending && freshness({now, known: pending, policy, upstream: 'unasked', noCache}) === 'fresh') {
      const {head, checkedAt} = pending;
      const {steady: _, ...report} = hitReport({checkedAt, now}, policy);
      return {digest: head.digest, head, report};
    }
    if (!record) return this.#revalidate(asked, undefined, 'uri-miss');
    switch (freshness({now, known: record, policy, upstream: 'unasked', noCache})) {
      case 'fresh':
        return pointsAt(record, hitReport({checkedAt: record.checkedAt, now}, policy));
      case 'stale':
        return pointsAt(record, deleted(route, record, policy, now));
      case 'gone':
        throw manifestUnknown(route, tag);
      case 'revalidate':
        return this.#revalidate(asked, record, noCache ? 'request' : 'stale');
    }
  }

  async fallback(route: Route, tag: Tag, failure: UpstreamFailure): Promise<Resolution> {
    return this.#withoutUpstream(route, tag, await this.#metadata.tag(route.repository, tag), failure);
  }

  absent(route: Route, tag: Tag, caller: Caller): OciError {
    this.#generations.endRepository(route.repository);
    this.#negativeCache.remember(manifestAbsence(route.repository, tag), caller);
    return manifestUnknown(route, tag);
  }

  async arrived(route: Route, digest: Digest): Promise<void> {
    const {repository} = route;
    for (const tag of this.#upstream.pending.waitingFor(repository, digest)) {
      // Looked up again: the tag may have moved on while another one was committed.
      const pending = this.#upstream.pending.find(repository, tag, undefined, this.#clock.now());
      if (pending?.head.digest === digest) await this.#upstream.point(route, tag, digest, pending.checkedAt);
    }
  }

  async write(
    within: Pick<Route, 'repository'>,
    references: readonly Reference[],
    commit: () => Promise<void>,
  ): Promise<void> {
    const {repository} = within;
    await this.#writeFence.run(within, references, commit);
    for (const reference of references) {
      const tags = isDigestReference(reference)
        ? this.#upstream.pending.waitingFor(repository, reference)
        : [reference];
      for (const tag of tags) this.#upstream.pending.delete(repository, tag);
      this.#negativeCache.forget(manifestAbsence(repository, reference));
    }
    this.#negativeCache.forget(repositoryAbsence(repository));
  }

  async #revalidate(
    asked: AskedTag,
    record: TagRecord | undefined,
    how: CacheReport['how'],
  ): Promise<Resolution> {
    const {route, tag, caller} = asked;
    const {repository} = route;
    let flight: {value: TagAnswer; collapsed: boolean};
    try {
      const key = `${fullReference(repository, tag)} ${caller.key}`;
      flight = await this.#asking.run(key, () => this.#upstream.ask(asked, record));
    } catch (error) {
      if (error instanceof UpstreamFailure) return this.#withoutUpstream(route, tag, record, error);
      throw error;
    }
    const {value: answer, collapsed} = flight;
    // Read again: the tag may have been deleted through us meanwhile, and is no longer served then.
    if (!answer) return this.#withoutTag(asked, record && (await this.#metadata.tag(repository, tag)));
    this.#negativeCache.forget(manifestAbsence(repository, tag));
    const detail = record && {detail: record.digest === answer.digest ? 'unchanged' : 'changed'};
    return {...answer, report: {how, ...ageOf(0, tagPolicy(route, tag).ttl), collapsed, ...detail}};
  }

  async #withoutUpstream(
    route: Route,
    tag: Tag,
    record: TagRecord | undefined,
    failure: UpstreamFailure,
  ): Promise<Resolution> {
    const policy = tagPolicy(route, tag);
    const now = this.#clock.now();
    const {digest, checkedAt} = servableDespite(failure, record, policy, now);
    const {kind, message: reason} = failure;
    const age = {checkedAt, ttl: policy.ttl, now};
    const report = staleReport({kind, reason}, 'the copy last checked at', age);
    return {digest, head: undefined, report, failure};
  }

  #withoutTag({route, tag, caller}: AskedTag, record: TagRecord | undefined): Resolution {
    const now = this.#clock.now();
    const policy = tagPolicy(route, tag);
    if (!record || freshness({now, known: record, policy, upstream: 'absent'}) === 'gone')
      throw this.absent(route, tag, caller);
    return pointsAt(record, deleted(route, {...record, checkedAt: now}, policy, now));
  }
}

const pointsAt = ({digest}: TagRecord, report: CacheReport): Resolution => ({
  digest,
  head: undefined,
  report,
});

/** What was pushed here does not age. Over an upstream's content it shadows a tag, which the report marks. */
const pushedHere = ({registry}: Route, record: TagRecord): Resolution =>
  pointsAt(record, registry.hosted ? HIT : {...HIT, detail: 'local'});

const deleted = (
  {registry}: Route,
  record: TagRecord,
  {ttl, keepDeleted}: TagPolicy,
  now: number,
): CacheReport => ({
  how: 'stale',
  ...ageOf(now - record.checkedAt, ttl),
  detail: 'deleted-upstream',
  warning: `tag ${record.name} was deleted at ${registry.upstream.host}; this copy is served until ${new Date((record.goneAt ?? now) + keepDeleted).toISOString()}`,
});
