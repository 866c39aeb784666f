import type {Clock} from '../clock.ts';
import type {BlobSource} from '../oci/blob.ts';
import {type Digest, digestOf} from '../oci/digest.ts';
import type {Reference} from '../oci/name.ts';
import {edgeOf} from '../oci/referrers.ts';
import {UpstreamFailure} from '../upstream/port.ts';
import {type Artifact, compose} from './artifact.ts';
import {addToFallbackTag} from './fallback-tag.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

export interface AttachDeps {
  clock: Clock;
  /** The content of the artifact's blobs that is to be pushed with it. */
  blobs: readonly BlobSource[];
}

/**
 * Attaches an artifact: pushes its blobs and a manifest whose `subject` is the manifest that `reference` means now, and
 * sees to it that the target lists it: by itself, else under the fallback tag (distribution-spec, "Pushing Manifests
 * with Subject").
 * @returns the digest of the artifact's manifest.
 * @throws ArtifactError or UpstreamFailure. Everything up to the failure is in place; attaching again goes on.
 */
export async function attachTo(
  target: ArtifactTarget,
  reference: Reference,
  artifact: Artifact,
  {clock, blobs}: AttachDeps,
): Promise<Digest> {
  const subject = await target.manifest(reference);
  if (!subject) throw new ArtifactError(`${target.name} has no manifest ${reference} to attach to.`);
  const composed = compose(artifact, {...subject, size: subject.bytes.length}, blobs);
  const {mediaType, bytes} = composed;
  const digest = digestOf(bytes);
  const edge = edgeOf({digest, mediaType, bytes});
  if (!edge) throw new ArtifactError('The artifact makes a manifest that refers to nothing.');

  for (const blob of composed.blobs) await target.pushBlob(blob);
  await target.putManifest(digest, {mediaType, bytes});
  if (!(await isListed(target, subject.digest, digest))) await addToFallbackTag(target, edge, clock);
  return digest;
}

/**
 * Whether the target's own list names the referrer; a header that says so would prove nothing. Where that cannot be
 * told the answer is no: an entry under the fallback tag too many does no harm, one too few hides the artifact.
 */
async function isListed(target: ArtifactTarget, subject: Digest, referrer: Digest): Promise<boolean> {
  try {
    const listed = await target.referrers(subject);
    return listed?.some(({digest}) => digest === referrer) ?? false;
  } catch (error) {
    if (error instanceof UpstreamFailure) return false;
    throw error;
  }
}
