import type {Descriptor} from '../oci/descriptor.ts';
import type {Digest} from '../oci/digest.ts';
import {readManifest} from '../oci/manifest.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import {edgeOf, fallbackTag} from '../oci/referrers.ts';
import {sideBySide} from './side-by-side.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

/** An image index of what refers to one subject (distribution-spec, "Listing Referrers"). */
export interface ReferrersIndex {
  schemaVersion: 2;
  mediaType: typeof OCI_INDEX;
  manifests: Descriptor[];
}

/** Manifests that are fetched at once. */
const AT_ONCE = 8;

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
  const byDigest = new Map<Digest, Descriptor>();
  for (const descriptor of listed) {
    if (!byDigest.has(descriptor.digest)) byDigest.set(descriptor.digest, descriptor);
  }
  const manifests = [...byDigest.values()].filter(
    ({artifactType}) => artifactTypes === undefined || artifactTypes.includes(artifactType ?? ''),
  );
  return {schemaVersion: 2, mediaType: OCI_INDEX, manifests};
}

async function fromFallbackTag(target: ArtifactTarget, subject: Digest): Promise<Descriptor[]> {
  const tag = fallbackTag(subject);
  const index = await target.manifest(tag);
  // GitLab resolves the tag to the subject itself: there it says nothing.
  if (!index || index.digest === subject) return [];
  if (index.mediaType !== OCI_INDEX) {
    throw new ArtifactError(
      `${target.name} lists no referrers, and its tag ${tag}, which would list them, is no index but ${index.mediaType}.`,
    );
  }
  const digests = new Set(readManifest(index.bytes).manifests.map(({digest}) => digest));
  const edges = await sideBySide([...digests], AT_ONCE, async (digest) => {
    const manifest = await target.manifest(digest);
    return manifest && edgeOf(manifest);
  });
  return edges.flatMap((edge) => (edge?.subject === subject ? [edge.descriptor] : []));
}
