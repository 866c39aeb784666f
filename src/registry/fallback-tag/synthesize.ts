import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {type Digest, digestOf, isDigest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {isDigestReference, type Reference} from '../../oci/name.ts';
import {subjectPrefix} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {PARTIAL} from '../freshness.ts';
import type {ManifestAnswer, Manifests} from '../manifests/manifests.ts';
import type {Route} from '../namespace.ts';
import type {Referrers} from '../referrers/referrers.ts';
import {storeIfSpace} from '../store-if-space.ts';

export interface TagReadersParts {
  manifests: Manifests;
  referrers: Referrers;
  metadata: Metadata;
  clock: Clock;
  events: Events;
}

/** Milliseconds for which an index that was made here can be read by its digest after it was last read by the tag. */
const LIFE = 7 * 24 * 60 * 60_000;
/** It is given that time anew at most so often. */
const RENEWAL = 24 * 60 * 60_000;
const MAX_RENEWED = 10_000;

/**
 * Manifests for clients that know referrers only by the fallback tag, as BuildKit behind a mirror does: where the
 * upstream has no such tag, it is the synthesized index. 404 only where the absence of referrers is known. Over an
 * upstream it always is, since the tag that was pushed here and the upstream's must not hide each other's entries.
 */
export function createTagReaders({
  manifests,
  referrers,
  metadata,
  clock,
  events,
}: TagReadersParts): Manifests {
  const renewed = new LRUCache<string, number>({max: MAX_RENEWED});

  /** Readable by digest from now on, as a tag's manifest has to be. */
  async function keep({repository}: Route, digest: Digest, bytes: Buffer): Promise<void> {
    const key = `${repository.registry}/${repository.name}@${digest}`;
    const isNew = clock.monotonic() - (renewed.get(key) ?? Number.NEGATIVE_INFINITY) >= RENEWAL;
    if (!isNew && (await metadata.manifest(repository, digest))) return;
    const put = {
      type: 'manifest.put' as const,
      repository,
      digest,
      mediaType: OCI_INDEX,
      bytes,
      edge: undefined,
      references: [],
      origin: 'upstream' as const,
      at: clock.now(),
      expiresAt: clock.now() + LIFE,
    };
    const kept = await storeIfSpace(events, 'a synthesized index', () => metadata.commit([put]));
    if (kept) renewed.set(key, clock.monotonic());
  }

  async function synthesized(
    route: Route,
    prefix: string,
    caller: Caller,
  ): Promise<ManifestAnswer | undefined> {
    const subject = isDigest(prefix)
      ? prefix
      : (await metadata.referrerSubjects(route.repository, prefix))[0];
    const whole = subject && (await referrers.whole(route, subject, caller));
    if (!whole) return undefined;
    const {body: bytes, report} = whole;
    const digest = digestOf(bytes);
    await keep(route, digest, bytes);
    return {
      digest,
      mediaType: OCI_INDEX,
      size: bytes.length,
      bytes,
      report: report.detail === PARTIAL ? report : {...report, detail: 'synthesized'},
    };
  }

  async function orSynthesized<T>(
    route: Route,
    reference: Reference,
    caller: Caller,
    read: () => Promise<T>,
  ): Promise<T | ManifestAnswer> {
    const prefix = isDigestReference(reference) ? undefined : subjectPrefix(reference);
    if (prefix === undefined || route.registry.referrers.mode === 'off') return read();
    const {hosted, push} = route.registry;
    const isUnion = !hosted && push.mode === 'local';
    const union = isUnion ? await synthesized(route, prefix, caller) : undefined;
    if (union) return union;
    try {
      return await read();
    } catch (error) {
      const open =
        error instanceof OciError &&
        ['MANIFEST_UNKNOWN', 'UNAVAILABLE', 'TOOMANYREQUESTS'].includes(error.code);
      const index = open && !isUnion ? await synthesized(route, prefix, caller) : undefined;
      if (index) return index;
      throw error;
    }
  }

  return {
    get: (route, reference, caller, options) =>
      orSynthesized(route, reference, caller, () => manifests.get(route, reference, caller, options)),
    head: (route, reference, caller, options) =>
      orSynthesized(route, reference, caller, () => manifests.head(route, reference, caller, options)),
  };
}
