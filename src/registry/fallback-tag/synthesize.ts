import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import {type Digest, digestOf, isDigest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {isDigestReference, type Reference} from '../../oci/name.ts';
import {subjectPrefix} from '../../oci/referrers.ts';
import {fullReference, type Metadata} from '../../storage/metadata.ts';
import {PARTIAL} from '../freshness.ts';
import type {ManifestAnswer, ManifestFound, Manifests} from '../manifests/manifests.ts';
import type {Route} from '../namespace.ts';
import type {Referrers} from '../referrers/referrers.ts';
import {storeIfSpace} from '../store-if-space.ts';
import type {TagOptions} from '../tags/tags.ts';

export interface SynthesisParts {
  manifests: Manifests;
  referrers: Referrers;
  metadata: Metadata;
  clock: Clock;
  events: Events;
}

/** How long a synthesized index can be read by its digest after it was last read by the tag. */
const LIFE_MS = 7 * 24 * 60 * 60_000;
/** How often its life is renewed at most. */
const RENEW_AFTER_MS = 24 * 60 * 60_000;
const MAX_RENEWED = 10_000;
/** The errors of the tag itself that a synthesized index takes the place of. */
const REPLACED_ERRORS = new Set<string>(['MANIFEST_UNKNOWN', 'UNAVAILABLE', 'TOOMANYREQUESTS']);

/**
 * Manifests for clients that know referrers only by the fallback tag, as BuildKit does behind a mirror. Where the
 * upstream has no such tag, it is synthesized from the index of referrers, and is 404 only if it is known that nothing
 * refers to the subject. Over an upstream (`push: local`) it is always synthesized, because the tag that was pushed here
 * and the upstream's must not hide each other's entries.
 */
export const createSynthesis = (parts: SynthesisParts): Manifests => new SynthesizingManifests(parts);

class SynthesizingManifests implements Manifests {
  readonly #parts: SynthesisParts;
  /** When the life of an index was last renewed, on the monotonic clock. */
  readonly #renewed = createLru<string, number>(MAX_RENEWED);

  constructor(parts: SynthesisParts) {
    this.#parts = parts;
  }

  get(route: Route, reference: Reference, caller: Caller, options: TagOptions): Promise<ManifestAnswer> {
    const {manifests} = this.#parts;
    return this.#orSynthesized(route, reference, caller, () =>
      manifests.get(route, reference, caller, options),
    );
  }

  head(route: Route, reference: Reference, caller: Caller, options: TagOptions): Promise<ManifestFound> {
    const {manifests} = this.#parts;
    return this.#orSynthesized(route, reference, caller, () =>
      manifests.head(route, reference, caller, options),
    );
  }

  async #orSynthesized<T extends ManifestFound>(
    route: Route,
    reference: Reference,
    caller: Caller,
    read: () => Promise<T>,
  ): Promise<T | ManifestAnswer> {
    const prefix = isDigestReference(reference) ? undefined : subjectPrefix(reference);
    if (prefix === undefined || route.registry.referrers.mode === 'off') return read();
    const {hosted, push} = route.registry;
    const isOverlay = !hosted && push.mode === 'local';
    const overlaid = isOverlay ? await this.#synthesize(route, prefix, caller) : undefined;
    if (overlaid) return overlaid;
    try {
      const found = await read();
      // Whether the tag is synthesized depends on a list that ages by itself.
      return isOverlay ? {...found, repeat: undefined} : found;
    } catch (error) {
      const isReplaced = error instanceof OciError && REPLACED_ERRORS.has(error.code);
      const index = isReplaced && !isOverlay ? await this.#synthesize(route, prefix, caller) : undefined;
      if (index) return index;
      throw error;
    }
  }

  /** @param prefix how the subject's digest begins. @returns undefined when nothing refers to it */
  async #synthesize(route: Route, prefix: string, caller: Caller): Promise<ManifestAnswer | undefined> {
    const {referrers, metadata} = this.#parts;
    const subject = isDigest(prefix)
      ? prefix
      : (await metadata.referrerSubjects(route.repository, prefix))[0];
    const whole = subject && (await referrers.whole(route, subject, caller));
    if (!whole) return undefined;
    const {body: bytes, report} = whole;
    const digest = digestOf(bytes);
    await this.#store(route, digest, bytes);
    return {
      digest,
      mediaType: OCI_INDEX,
      size: bytes.length,
      bytes,
      report: report.detail === PARTIAL ? report : {...report, detail: 'synthesized'},
    };
  }

  /** Makes the index readable by its digest, as the manifest of a tag has to be. */
  async #store({repository}: Route, digest: Digest, bytes: Buffer): Promise<void> {
    const {metadata, clock, events} = this.#parts;
    const key = fullReference(repository, digest);
    const renewedAt = this.#renewed.get(key) ?? Number.NEGATIVE_INFINITY;
    const isRecent = clock.monotonic() - renewedAt < RENEW_AFTER_MS;
    if (isRecent && (await metadata.manifest(repository, digest))) return;
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
      expiresAt: clock.now() + LIFE_MS,
    };
    const isStored = await storeIfSpace(events, 'a synthesized index', () => metadata.commit([put]));
    if (isStored) this.#renewed.set(key, clock.monotonic());
  }
}
