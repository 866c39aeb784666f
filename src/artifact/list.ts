import {mapConcurrently} from '../concurrency.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import type {Digest} from '../oci/digest.ts';
import {bareMediaType, OCI_INDEX} from '../oci/media-type.ts';
import {isDigestReference, type Reference} from '../oci/name.ts';
import {distinctReferrers, edgeOf, fallbackTag} from '../oci/referrers.ts';
import {verifyEntries} from '../registry/referrers/fallback-tag.ts';
import {ArtifactError, type ArtifactTarget, type TargetManifest} from './target.ts';

/** An image index of the referrers of one subject (distribution-spec, "Listing Referrers"). */
export interface ReferrersIndex {
  schemaVersion: 2;
  mediaType: typeof OCI_INDEX;
  manifests: Descriptor[];
}

/** Manifests that are fetched at a time. */
const CONCURRENCY = 8;

/**
 * The referrers of a subject, each once: as the target lists them, otherwise the entries of the fallback tag that are
 * found to refer to this very subject, with descriptors made from their own bytes.
 * @param artifactTypes only referrers of these types, where the empty string means a missing type; without it, all
 * @throws ArtifactError or UpstreamFailure when the list could not be read; never returns an empty list instead
 */
export async function listOf(
  target: ArtifactTarget,
  subject: Digest,
  artifactTypes?: readonly string[],
): Promise<ReferrersIndex> {
  const listed = (await target.referrers(subject)) ?? (await listByTag(target, subject));
  const manifests = distinctReferrers(listed).filter(
    ({artifactType}) => artifactTypes === undefined || artifactTypes.includes(artifactType ?? ''),
  );
  return {schemaVersion: 2, mediaType: OCI_INDEX, manifests};
}

async function listByTag(target: ArtifactTarget, subject: Digest): Promise<readonly Descriptor[]> {
  const tag = fallbackTag(subject);
  const index = await target.manifest(tag);
  if (!index) return [];
  const content = {bytes: index.bytes, mediaType: bareMediaType(index.mediaType)};
  const {descriptors, skipped} = await verifyEntries(subject, content, {
    async fetch(digests) {
      const manifests = await mapConcurrently(digests, CONCURRENCY, (digest) => target.manifest(digest));
      return {
        manifests: manifests.filter((manifest) => manifest !== undefined),
        refused: [],
        kept: Promise.resolve(),
      };
    },
    unreadable: (reason) => new ArtifactError(`${target.name} does not list referrers, and ${reason}.`),
  });
  const [first] = skipped;
  if (!first) return descriptors;
  throw new ArtifactError(
    `The tag ${tag} of ${target.name} names a referrer that cannot be read: ${first.digest} ${first.reason}.`,
  );
}

/** The digest that a reference means now. A digest means itself, also where the target has no such manifest. */
export async function resolveSubject(target: ArtifactTarget, reference: Reference): Promise<Digest> {
  if (isDigestReference(reference)) return reference;
  const manifest = await target.manifest(reference);
  if (manifest) return manifest.digest;
  throw new ArtifactError(`${target.name} has no manifest ${reference}.`);
}

/** Finds the referrers of a subject among manifests, in their order and each once, without looking at any list. */
export async function scanFor(
  subject: Digest,
  manifests: AsyncIterable<TargetManifest>,
): Promise<Descriptor[]> {
  const found: Descriptor[] = [];
  for await (const manifest of manifests) {
    const edge = edgeOf(manifest);
    if (edge?.subject === subject) found.push(edge.descriptor);
  }
  return distinctReferrers(found);
}
