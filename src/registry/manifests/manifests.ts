import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {isAttachedTag} from '../../oci/referrers.ts';
import type {ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {type ManifestHead, UpstreamFailure} from '../../upstream/port.ts';
import {type Access, grantIn} from '../access.ts';
import {answering} from '../failure.ts';
import {type CacheReport, HIT, MISS, outcomeOf} from '../freshness.ts';
import type {Route} from '../namespace.ts';
import {manifestAbsence, type NegativeCache} from '../negative-cache.ts';
import type {ManifestPull, Pulled} from '../pull/manifest.ts';
import {unkept} from '../store-if-space.ts';
import {claimedType} from '../stored-manifest.ts';
import {type Resolution, type TagOptions, type Tags, unknown} from '../tags/tags.ts';
import {isComplete} from './completeness.ts';

export interface ManifestFound {
  readonly digest: Digest;
  readonly mediaType: string;
  /** Bytes. */
  readonly size: number;
  readonly report: CacheReport;
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
  /** The same without the bytes: a manifest that is not here is not fetched for it where a HEAD tells enough. */
  head(route: Route, reference: Reference, caller: Caller, options: TagOptions): Promise<ManifestFound>;
}

export interface ManifestsParts {
  metadata: Metadata;
  access: Access;
  pull: ManifestPull;
  tags: Tags;
  negativeCache: NegativeCache;
  events: Events;
}

export function createManifests({
  metadata,
  access,
  pull,
  tags,
  negativeCache,
  events,
}: ManifestsParts): Manifests {
  /** The manifest, if this repository has it here. */
  async function here(route: Route, digest: Digest): Promise<ManifestRecord | undefined> {
    return grantIn(await access.recallManifest(route, digest))?.record;
  }

  /** What has just come is read once more: it may have been deleted since, and memory would go on having it. */
  async function remember(route: Route, digest: Digest): Promise<void> {
    await here(route, digest);
  }

  /** Bytes that another repository brought, once the upstream has confirmed that this one has them too. */
  async function confirmed(
    route: Route,
    digest: Digest,
    caller: Caller,
  ): Promise<ManifestRecord | undefined> {
    if (!(await metadata.storedManifest(digest))) return undefined;
    // A pull may have brought it to this repository since the caller looked.
    const brought = await here(route, digest);
    if (brought) return brought;
    if (!grantIn(await access.confirmManifest(route, digest, caller))) throw absent(route, digest);
    return here(route, digest);
  }

  function absent(route: Route, digest: Digest) {
    negativeCache.remember(manifestAbsence(route.repository, digest));
    return unknown(route, digest);
  }

  function refuseAbsent(route: Route, digest: Digest): void {
    const {absentTtl} = route.registry.tags;
    if (negativeCache.has(manifestAbsence(route.repository, digest), absentTtl)) throw unknown(route, digest);
  }

  /** Past the cache, as a blob that cannot be kept. */
  function uncached(record: ManifestRecord, {unkept: reason, collapsed}: Pulled): ManifestAnswer {
    if (reason && !collapsed) unkept(events, 'a manifest', reason);
    return answer(record, {...MISS, collapsed, detail: 'uncached'});
  }

  async function fetched(route: Route, digest: Digest, caller: Caller): Promise<ManifestAnswer> {
    const pulled = await pull.byDigest(route, digest, caller);
    const {value, collapsed} = pulled;
    if (!value) throw absent(route, digest);
    if (pulled.unkept) return uncached(value, pulled);
    await tags.settle(route, digest);
    await remember(route, digest);
    return answer(value, {...MISS, stored: true, collapsed});
  }

  async function byDigest(route: Route, digest: Digest, caller: Caller): Promise<ManifestAnswer> {
    const record = (await here(route, digest)) ?? (await pull.coming(route, digest, caller));
    if (record) return answer(record, HIT);
    refuseAbsent(route, digest);
    const other = await confirmed(route, digest, caller);
    if (other) {
      await tags.settle(route, digest);
      return answer(other, {...MISS, detail: 'confirmed'});
    }
    return fetched(route, digest, caller);
  }

  async function firstByTag(
    route: Route,
    tag: Tag,
    caller: Caller,
    options: TagOptions,
  ): Promise<ManifestAnswer> {
    const pulled = await pull.byTag(route, tag, caller);
    const {value, collapsed} = pulled;
    // Nothing was known when it was asked: what is known now comes from a later question, or from another who waited.
    if (!value && (await tags.known(route, tag))) return knownByTag(route, tag, caller, options);
    if (!value) throw tags.absent(route, tag);
    if (pulled.unkept) return uncached(value, pulled);
    await remember(route, value.digest);
    const ttl = Math.ceil(route.registry.tags.ttl / 1000);
    return answer(value, {...MISS, stored: true, collapsed, ttl, age: 0});
  }

  async function byTag(route: Route, tag: Tag, caller: Caller, options: TagOptions): Promise<ManifestAnswer> {
    if (await tags.known(route, tag)) return knownByTag(route, tag, caller, options);
    return firstByTag(route, tag, caller, options);
  }

  async function knownByTag(
    route: Route,
    tag: Tag,
    caller: Caller,
    options: TagOptions,
  ): Promise<ManifestAnswer> {
    const resolution = await tags.resolve(route, tag, caller, options);
    if (resolution.failure) return staleByTag(route, tag, resolution, resolution.failure, caller);
    try {
      return tagged(resolution, await byDigest(route, resolution.digest, caller));
    } catch (error) {
      const failure = brokenPromise(route, tag, resolution, error);
      return staleByTag(route, tag, await tags.fallback(route, tag, failure), failure, caller);
    }
  }

  /**
   * A pull that could only get half of its image is better refused while the client can still go to the origin. Of a
   * signature the half that was read before is all that is read.
   */
  async function staleByTag(
    route: Route,
    tag: Tag,
    stale: Resolution,
    failure: UpstreamFailure,
    caller: Caller,
  ) {
    const servable = isAttachedTag(tag) || (await isComplete(metadata, route.repository, stale.digest));
    if (!servable) throw failure;
    return tagged(stale, await byDigest(route, stale.digest, caller));
  }

  async function headByDigest(route: Route, digest: Digest, caller: Caller): Promise<ManifestFound> {
    const record = (await here(route, digest)) ?? (await pull.coming(route, digest, caller));
    if (record) return answer(record, HIT);
    refuseAbsent(route, digest);
    const other = await confirmed(route, digest, caller);
    if (other) return answer(other, {...MISS, detail: 'confirmed'});
    const {upstream} = route.registry;
    const head = await upstream.headManifest(route.repository.name, digest, caller);
    if (!head) throw absent(route, digest);
    if (head.digest && algorithmOf(head.digest) === algorithmOf(digest) && head.digest !== digest) {
      throw new UpstreamFailure(
        'protocol',
        upstream.host,
        `answered for ${digest} with the digest ${head.digest}`,
      );
    }
    return told(digest, head, MISS) ?? fetched(route, digest, caller);
  }

  async function headByTag(
    route: Route,
    tag: Tag,
    caller: Caller,
    options: TagOptions,
  ): Promise<ManifestFound> {
    const resolution = await tags.resolve(route, tag, caller, options);
    const {digest, head, report} = resolution;
    const found = head && told(digest, head, report);
    return found ?? tagged(resolution, await byDigest(route, digest, caller));
  }

  function served(route: Route, found: ManifestFound): void {
    const {registry, name: repository} = route.repository;
    events.emit('manifest.served', {registry, repository, outcome: outcomeOf(found.report)});
  }

  return {
    get: (route, reference, caller, options) =>
      answering(route, async () => {
        const found = isDigestReference(reference)
          ? await byDigest(route, reference, caller)
          : await byTag(route, reference, caller, options);
        served(route, found);
        return found;
      }),
    head: (route, reference, caller, options) =>
      answering(route, async () => {
        const found = isDigestReference(reference)
          ? await headByDigest(route, reference, caller)
          : await headByTag(route, reference, caller, options);
        served(route, found);
        return found;
      }),
  };
}

const answer = ({digest, mediaType, bytes}: ManifestRecord, report: CacheReport): ManifestAnswer => ({
  digest,
  mediaType,
  size: bytes.length,
  bytes,
  report,
});

/**
 * The failure behind a tag that resolved to a manifest which then could not be had. An upstream that names a digest
 * and then does not have it has not said that the tag is absent.
 */
function brokenPromise(
  {registry}: Route,
  tag: Tag,
  {digest, head}: Resolution,
  error: unknown,
): UpstreamFailure {
  if (error instanceof UpstreamFailure) return error;
  if (!head || !(error instanceof OciError) || error.code !== 'MANIFEST_UNKNOWN') throw error;
  return new UpstreamFailure(
    'protocol',
    registry.upstream.host,
    `named ${digest} for the tag ${tag} but does not have it`,
  );
}

/**
 * A HEAD's answer out of the upstream's, where that says enough (dist-spec: digest and length are a MUST). Where its
 * header does not name the manifest's type, the bytes do, as for a GET.
 */
function told(digest: Digest, head: ManifestHead, report: CacheReport): ManifestFound | undefined {
  const {size} = head;
  const mediaType = claimedType(head.mediaType);
  return mediaType === undefined || size === undefined ? undefined : {digest, mediaType, size, report};
}

/** How a tag's answer came about: what was asked for the tag, and whether the manifest had to be fetched for it. */
function tagged({report}: Resolution, manifest: ManifestAnswer): ManifestAnswer {
  if (manifest.report.how === 'hit') return {...manifest, report};
  const how = report.how === 'hit' ? manifest.report.how : report.how;
  return {...manifest, report: {...manifest.report, ...report, how}};
}
