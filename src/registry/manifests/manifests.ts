import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {isAttachedTag} from '../../oci/referrers.ts';
import type {ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {type ManifestHead, UpstreamFailure} from '../../upstream/port.ts';
import type {Access} from '../access.ts';
import {manifestUnknown, toOciErrors} from '../failure.ts';
import {ageOf, type CacheReport, HIT, MISS, outcomeOf} from '../freshness.ts';
import type {Generations} from '../generations.ts';
import type {Route} from '../namespace.ts';
import {manifestAbsence, type NegativeCache} from '../negative-cache.ts';
import {grantIn} from '../place-access.ts';
import type {ManifestPull, ManifestPullParts, Pulled} from '../pull/manifest.ts';
import {tagPolicy} from '../quota.ts';
import {type Repeat, repeatOf} from '../repeat.ts';
import {reportUnkept} from '../store-if-space.ts';
import {claimedType} from '../stored-manifest.ts';
import type {Resolution, TagOptions, Tags} from '../tags/tags.ts';
import type {Uses} from '../uses.ts';
import {isComplete} from './completeness.ts';

export interface ManifestFound {
  readonly digest: Digest;
  readonly mediaType: string;
  /** Bytes. */
  readonly size: number;
  readonly report: CacheReport;
  /** Undefined where each request has to be looked at. */
  readonly repeat?: Repeat | undefined;
}

export interface ManifestAnswer extends ManifestFound {
  readonly bytes: Buffer;
}

/** dist-spec, Pulling Manifests, and Checking if Content Exists. */
export interface Manifests {
  /**
   * The manifest's exact bytes.
   * @throws OciError MANIFEST_UNKNOWN where the upstream says so; DENIED, UNAVAILABLE or TOOMANYREQUESTS where it
   * could not be asked and nothing here may be served
   */
  get(route: Route, reference: Reference, caller: Caller, options: TagOptions): Promise<ManifestAnswer>;
  /** The same without the bytes: a manifest that is not here is only fetched where a HEAD does not say enough. */
  head(route: Route, reference: Reference, caller: Caller, options: TagOptions): Promise<ManifestFound>;
}

export interface ManifestsParts {
  metadata: Metadata;
  access: Access;
  pull: ManifestPull;
  tags: Tags;
  negativeCache: NegativeCache;
  uses: Uses;
  generations: Pick<Generations, 'ofRepository' | 'ofQuota'>;
  events: Events;
  /** Called with each manifest that a repository gets without a download; must not throw. */
  arrived: ManifestPullParts['arrived'];
}

export const createManifests = (parts: ManifestsParts): Manifests => new PulledManifests(parts);

class PulledManifests implements Manifests {
  readonly #metadata: Metadata;
  readonly #access: Access;
  readonly #pull: ManifestPull;
  readonly #tags: Tags;
  readonly #negativeCache: NegativeCache;
  readonly #uses: Uses;
  readonly #generations: ManifestsParts['generations'];
  readonly #events: Events;
  readonly #arrived: ManifestsParts['arrived'];

  constructor(parts: ManifestsParts) {
    this.#metadata = parts.metadata;
    this.#access = parts.access;
    this.#pull = parts.pull;
    this.#tags = parts.tags;
    this.#negativeCache = parts.negativeCache;
    this.#uses = parts.uses;
    this.#generations = parts.generations;
    this.#events = parts.events;
    this.#arrived = parts.arrived;
  }

  get(route: Route, reference: Reference, caller: Caller, options: TagOptions): Promise<ManifestAnswer> {
    return this.#serve(route, options, () =>
      isDigestReference(reference)
        ? this.#byDigest(route, reference, caller)
        : this.#byTag(route, reference, caller, options),
    );
  }

  head(route: Route, reference: Reference, caller: Caller, options: TagOptions): Promise<ManifestFound> {
    return this.#serve(route, options, () =>
      isDigestReference(reference)
        ? this.#headByDigest(route, reference, caller)
        : this.#headByTag(route, reference, caller, options),
    );
  }

  #serve<Found extends ManifestFound>(
    route: Route,
    {isUse = true}: TagOptions,
    find: () => Promise<Found>,
  ): Promise<Found> {
    return toOciErrors(route, async () => {
      const generations = this.#generations;
      const {host} = route.registry.upstream;
      const taken = {
        content: [generations.ofRepository(route.repository)],
        quota: generations.ofQuota(host),
      };
      const found = await find();
      const {digest, report} = found;
      const {registry, name: repository} = route.repository;
      const outcome = outcomeOf(report);
      if (isUse) this.#uses.record(route.repository, digest);
      this.#events.emit('manifest.served', {registry, repository, outcome});
      const served = {kind: 'manifest', registry, repository, digest, isUse} as const;
      return {...found, repeat: repeatOf(report, taken, served)};
    });
  }

  async #byDigest(route: Route, digest: Digest, caller: Caller): Promise<ManifestAnswer> {
    const record = await this.#hereOrComing(route, digest, caller);
    if (record) return answerOf(record, HIT);
    this.#refuseAbsent(route, digest, caller);
    const confirmed = await this.#confirmed(route, digest, caller);
    if (confirmed) {
      await this.#tags.arrived(route, digest);
      return answerOf(confirmed, {...MISS, detail: 'confirmed'});
    }
    return this.#fetched(route, digest, caller);
  }

  async #headByDigest(route: Route, digest: Digest, caller: Caller): Promise<ManifestFound> {
    const record = await this.#hereOrComing(route, digest, caller);
    if (record) return answerOf(record, HIT);
    this.#refuseAbsent(route, digest, caller);
    const confirmed = await this.#confirmed(route, digest, caller);
    if (confirmed) return answerOf(confirmed, {...MISS, detail: 'confirmed'});
    const {upstream} = route.registry;
    const head = await upstream.headManifest(route.repository.name, digest, caller);
    if (!head) throw this.#absent(route, digest, caller);
    if (head.digest && algorithmOf(head.digest) === algorithmOf(digest) && head.digest !== digest) {
      const reason = `answered for ${digest} with the digest ${head.digest}`;
      throw new UpstreamFailure('protocol', upstream.host, reason);
    }
    return foundByHead(digest, head, MISS) ?? this.#fetched(route, digest, caller);
  }

  /** The manifest, if this repository has it here. */
  async #here(route: Route, digest: Digest): Promise<ManifestRecord | undefined> {
    return grantIn(await this.#access.recallManifest(route, digest))?.record;
  }

  async #hereOrComing(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    return (await this.#here(route, digest)) ?? this.#pull.coming(route, digest, caller);
  }

  /** A manifest that another repository brought, once the upstream has confirmed that this one has it too. */
  async #confirmed(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    if (!(await this.#metadata.storedManifest(digest))) return undefined;
    // A pull may have brought it to this repository since the caller looked.
    const brought = await this.#here(route, digest);
    if (brought) return brought;
    const grant = grantIn(await this.#access.confirmManifest(route, digest, caller));
    if (!grant) throw this.#absent(route, digest, caller);
    const record = await this.#here(route, digest);
    if (record) this.#arrived({route, record, tag: undefined, caller});
    return record;
  }

  async #fetched(route: Route, digest: Digest, caller: Caller): Promise<ManifestAnswer> {
    const pulled = await this.#pull.byDigest(route, digest, caller);
    const {value, collapsed} = pulled;
    if (!value) throw this.#absent(route, digest, caller);
    if (pulled.unkept) return this.#uncached(value, pulled);
    await this.#tags.arrived(route, digest);
    await this.#remember(route, digest);
    return answerOf(value, {...MISS, stored: true, collapsed});
  }

  /** Puts a manifest that has just come in memory. It is read once more: it may have been deleted since. */
  async #remember(route: Route, digest: Digest): Promise<void> {
    await this.#here(route, digest);
  }

  /** A manifest that is served without being kept. */
  #uncached(record: ManifestRecord, {unkept, collapsed}: Pulled): ManifestAnswer {
    if (unkept && !collapsed) reportUnkept(this.#events, 'a manifest', unkept);
    return answerOf(record, {...MISS, collapsed, detail: 'uncached'});
  }

  #absent(route: Route, digest: Digest, caller: Caller): OciError {
    this.#negativeCache.remember(manifestAbsence(route.repository, digest), caller);
    return manifestUnknown(route, digest);
  }

  #refuseAbsent(route: Route, digest: Digest, caller: Caller): void {
    const {absentTtl} = route.registry.tags;
    const isAbsent = this.#negativeCache.has(manifestAbsence(route.repository, digest), caller, absentTtl);
    if (isAbsent) throw manifestUnknown(route, digest);
  }

  async #byTag(route: Route, tag: Tag, caller: Caller, options: TagOptions): Promise<ManifestAnswer> {
    const isKnown = await this.#tags.known(route, tag, caller);
    return isKnown
      ? this.#knownByTag(route, tag, caller, options)
      : this.#firstByTag(route, tag, caller, options);
  }

  async #firstByTag(route: Route, tag: Tag, caller: Caller, options: TagOptions): Promise<ManifestAnswer> {
    const pulled = await this.#pull.byTag(route, tag, caller);
    const {value, collapsed} = pulled;
    // The tag was not known when it was asked for. It is known now if a later question, or another request, found it.
    if (!value && (await this.#tags.known(route, tag, caller)))
      return this.#knownByTag(route, tag, caller, options);
    if (!value) throw this.#tags.absent(route, tag, caller);
    if (pulled.unkept) return this.#uncached(value, pulled);
    await this.#remember(route, value.digest);
    return answerOf(value, {...MISS, stored: true, collapsed, ...ageOf(0, tagPolicy(route, tag).ttl)});
  }

  async #knownByTag(route: Route, tag: Tag, caller: Caller, options: TagOptions): Promise<ManifestAnswer> {
    return this.#resolved(route, tag, await this.#tags.resolve(route, tag, caller, options), caller);
  }

  async #resolved(route: Route, tag: Tag, resolution: Resolution, caller: Caller): Promise<ManifestAnswer> {
    if (resolution.failure) return this.#staleByTag(route, tag, resolution, resolution.failure, caller);
    try {
      return tagged(resolution, await this.#byDigest(route, resolution.digest, caller));
    } catch (error) {
      const failure = failureBehind(route, tag, resolution, error);
      const stale = await this.#tags.fallback(route, tag, failure);
      return this.#staleByTag(route, tag, stale, failure, caller);
    }
  }

  /**
   * Serves the manifest that the tag last pointed at, if the whole image can be pulled from here: otherwise the client
   * is better refused while it can still go to the origin. Of a signature, clients read only what was read before. The
   * upstream has just failed, so it is not asked again for what is not here.
   */
  async #staleByTag(
    route: Route,
    tag: Tag,
    stale: Resolution,
    failure: UpstreamFailure,
    caller: Caller,
  ): Promise<ManifestAnswer> {
    const record = await this.#hereOrComing(route, stale.digest, caller);
    if (!record) throw failure;
    const isServable = isAttachedTag(tag) || (await isComplete(this.#metadata, route.repository, record));
    if (!isServable) throw failure;
    return tagged(stale, answerOf(record, HIT));
  }

  /** While the upstream fails, the same as by GET: a client that asks by HEAD first then pulls what the HEAD promised. */
  async #headByTag(route: Route, tag: Tag, caller: Caller, options: TagOptions): Promise<ManifestFound> {
    const resolution = await this.#tags.resolve(route, tag, caller, options);
    const {digest, head, report} = resolution;
    const found = head && foundByHead(digest, head, report);
    return found ?? this.#resolved(route, tag, resolution, caller);
  }
}

const answerOf = ({digest, mediaType, bytes}: ManifestRecord, report: CacheReport): ManifestAnswer => ({
  digest,
  mediaType,
  size: bytes.length,
  bytes,
  report,
});

/**
 * The failure behind a tag that resolved to a manifest which then could not be had. An upstream that names a digest
 * and then does not have it has not said that the tag is absent.
 * @throws the error, where it is not an upstream's failure
 */
function failureBehind(
  {registry}: Route,
  tag: Tag,
  {digest, head}: Resolution,
  error: unknown,
): UpstreamFailure {
  if (error instanceof UpstreamFailure) return error;
  if (!head || !(error instanceof OciError) || error.code !== 'MANIFEST_UNKNOWN') throw error;
  const reason = `named ${digest} for the tag ${tag} but does not have it`;
  return new UpstreamFailure('protocol', registry.upstream.host, reason);
}

/**
 * The answer to a HEAD, from the upstream's, where that says enough (dist-spec: digest and length are a MUST). Where its
 * header does not name the manifest's type, the bytes have to be read for it, as for a GET.
 */
function foundByHead(digest: Digest, head: ManifestHead, report: CacheReport): ManifestFound | undefined {
  const {size} = head;
  const mediaType = claimedType(head.mediaType);
  return mediaType === undefined || size === undefined ? undefined : {digest, mediaType, size, report};
}

/** The report of a tag's answer: what was asked for the tag, and whether the manifest had to be fetched for it. */
function tagged({report}: Resolution, manifest: ManifestAnswer): ManifestAnswer {
  if (manifest.report.how === 'hit') return {...manifest, report};
  const how = report.how === 'hit' ? manifest.report.how : report.how;
  return {...manifest, report: {...manifest.report, ...report, how}};
}
