import {OciError} from '../../oci/errors.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import type {Tag} from '../../oci/name.ts';
import {isAttachedTag, subjectPrefix} from '../../oci/referrers.ts';
import type {Route} from '../namespace.ts';
import type {CheckedManifest} from './validate.ts';

/** Is it the list of referrers that clients keep where they know of no Referrers API? */
export const isFallbackIndex = (
  {mediaType}: Pick<CheckedManifest, 'mediaType'>,
  tags: readonly Tag[],
): boolean => mediaType === OCI_INDEX && tags.some((tag) => subjectPrefix(tag) !== undefined);

/**
 * Refuses what would take the place of an upstream's image: over an upstream, unless the registry allows more, only
 * what refers to an image is kept here. That is a manifest with a subject, the fallback tag that lists such, and what
 * cosign attaches by a tag of its own (`sha256-<hex>.sig`), which nobody runs.
 * @throws OciError DENIED
 */
export function refuseShadowing(
  {registry, repository}: Route,
  manifest: CheckedManifest,
  tags: readonly Tag[],
): void {
  if (registry.hosted || registry.push.mode !== 'local' || registry.push.tags === 'allow') return;
  const isHarmless = (tag: Tag) => isAttachedTag(tag) || isFallbackIndex(manifest, [tag]);
  const shadowing = tags.find((tag) => !isHarmless(tag));
  const setting = `registries.${registry.name}.overlay.tags`;
  if (shadowing !== undefined) {
    throw new OciError('DENIED', {
      message: `${repository.name}:${shadowing} belongs to ${registry.upstream.host}, over which ${registry.name} is laid: push what refers to an image by its digest, without a tag, or have ${setting} set to "allow"`,
    });
  }
  if (manifest.facts.subject === undefined && tags.length === 0) {
    throw new OciError('DENIED', {
      message: `over ${registry.upstream.host} only manifests with a subject are kept here, and ${manifest.digest} has none: push it to ${registry.upstream.host} itself, or have ${setting} set to "allow"`,
    });
  }
}
