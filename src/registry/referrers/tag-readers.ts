import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {type Digest, digestOf, isDigest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {isDigestReference, type Reference} from '../../oci/name.ts';
import {subjectPrefix} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import type {ManifestAnswer, Manifests} from '../manifests.ts';
import type {Route} from '../namespace.ts';
import type {Referrers} from './referrers.ts';

export interface TagReadersParts {
  manifests: Manifests;
  referrers: Referrers;
  metadata: Metadata;
  clock: Clock;
}

/**
 * Manifests for clients that know referrers only by the fallback tag, as BuildKit behind a mirror does: where the
 * upstream has no such tag, it is the synthesized index. 404 only where the absence of referrers is known.
 */
export function createTagReaders({manifests, referrers, metadata, clock}: TagReadersParts): Manifests {
  /** Readable by digest from now on, as a tag's manifest has to be. */
  async function keep({repository}: Route, digest: Digest, bytes: Buffer): Promise<void> {
    if (await metadata.manifest(repository, digest)) return;
    await metadata.commit([
      {
        type: 'manifest.put',
        repository,
        digest,
        mediaType: OCI_INDEX,
        bytes,
        edge: undefined,
        references: [],
        origin: 'upstream',
        at: clock.now(),
      },
    ]);
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
      report: {...report, detail: 'synthesized'},
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
    try {
      return await read();
    } catch (error) {
      const open =
        error instanceof OciError &&
        ['MANIFEST_UNKNOWN', 'UNAVAILABLE', 'TOOMANYREQUESTS'].includes(error.code);
      const index = open ? await synthesized(route, prefix, caller) : undefined;
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
