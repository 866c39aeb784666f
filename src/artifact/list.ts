import {mapConcurrently} from '../concurrency.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import {algorithmOf, type Digest, digestOf} from '../oci/digest.ts';
import {referrersNamedBy} from '../oci/fallback-index.ts';
import {bareMediaType, OCI_INDEX} from '../oci/media-type.ts';
import {distinctReferrers, edgeOf, fallbackTag} from '../oci/referrers.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

/** An image index of what refers to one subject (distribution-spec, "Listing Referrers"). */
export interface ReferrersIndex {
  schemaVersion: 2;
  mediaType: typeof OCI_INDEX;
  manifests: Descriptor[];
}

/** Manifests that are fetched at once. */
const CONCURRENCY = 8;

/**
 * The referrers of a subject, each once: as the target lists them, else as the fallback tag leads to them, where each
 * entry is fetched and kept only if it refers to this very subject, with a descriptor from its own bytes.
 * @param artifactTypes only those of one of these types; the empty string stands for a missing one. Without it, all.
 * @throws ArtifactError or UpstreamFailure when that cannot be told; never an empty list instead.
 */
export async function listOf(
  target: ArtifactTarget,
  subject: Digest,
  artifactTypes?: readonly string[],
): Promise<ReferrersIndex> {
  const listed = (await target.referrers(subject)) ?? (await fromFallbackTag(target, subject));
  const manifests = distinctReferrers(listed).filter(
    ({artifactType}) => artifactTypes === undefined || artifactTypes.includes(artifactType ?? ''),
  );
  return {schemaVersion: 2, mediaType: OCI_INDEX, manifests};
}

async function fromFallbackTag(target: ArtifactTarget, subject: Digest): Promise<Descriptor[]> {
  const tag = fallbackTag(subject);
  const index = await target.manifest(tag);
  // GitLab resolves the tag to the subject itself: there it says nothing.
  if (!index || digestOf(index.bytes, algorithmOf(subject)) === subject) return [];
  const named = referrersNamedBy(index.bytes, bareMediaType(index.mediaType));
  if (!named) {
    throw new ArtifactError(
      `${target.name} lists no referrers, and its tag ${tag}, which would list them, is not a readable index: its type is "${index.mediaType}".`,
    );
  }
  const [skipped] = named.skipped;
  if (skipped) {
    throw new ArtifactError(
      `The tag ${tag} of ${target.name} names a referrer that cannot be read: ${skipped.digest} ${skipped.reason}.`,
    );
  }
  const edges = await mapConcurrently(named.digests, CONCURRENCY, async (digest) => {
    const manifest = await target.manifest(digest);
    return manifest && edgeOf(manifest);
  });
  return edges.flatMap((edge) => (edge?.subject === subject ? [edge.descriptor] : []));
}
