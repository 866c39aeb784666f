import {type Clock, sleep} from '../clock.ts';
import type {BlobSource} from '../oci/blob.ts';
import {type Digest, digestOf} from '../oci/digest.ts';
import {type FallbackIndex, NO_ENTRIES, serializeFallbackIndex} from '../oci/fallback-index.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import type {Reference} from '../oci/name.ts';
import {type Edge, edgeOf, fallbackTag} from '../oci/referrers.ts';
import {
  type FallbackTag,
  readTagContent,
  type TagState,
  updateFallbackTag,
} from '../registry/fallback-tag/write-protocol.ts';
import {UpstreamFailure} from '../upstream/port.ts';
import {type Artifact, compose} from './artifact.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

export interface AttachDeps {
  clock: Clock;
  /** The contents of the artifact's blobs that are to be pushed with it. */
  blobs: readonly BlobSource[];
}

/** How often the fallback tag is updated until it keeps the entry. */
const MAX_UPDATES = 5;
/** The pause before the second update; doubled before each further one. */
const FIRST_PAUSE_MS = 200;

/**
 * Attaches an artifact: pushes its blobs and a manifest whose `subject` is the manifest that `reference` means now, and
 * adds it to the fallback tag unless the target lists it by itself (distribution-spec, "Pushing Manifests with
 * Subject").
 * @returns the digest of the artifact's manifest
 * @throws ArtifactError or UpstreamFailure. What was pushed before the failure stays; attaching again continues.
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
  if (!edge) throw new ArtifactError('The manifest of the artifact does not refer to a subject.');

  for (const blob of composed.blobs) await target.pushBlob(blob);
  await target.putManifest(digest, {mediaType, bytes});
  if (!(await isListed(target, subject.digest, digest))) await addToFallbackTag(target, edge, clock);
  return digest;
}

/**
 * Whether the target's own list names the referrer. A header that says so would not prove it. If the target cannot be
 * asked, the answer is no: an unneeded entry in the fallback tag is harmless, a missing one hides the artifact.
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

/**
 * Adds a referrer to the subject's fallback tag (distribution-spec, "Referrers Tag Schema"). Other entries stay as they
 * are written, and each digest is named once. Others may write the tag at the same time, and a registry may answer with
 * an old one: so the tag is written until it has the entry and everything else that was seen in it meanwhile.
 * @throws ArtifactError when the tag does not point to an index, or does not keep the entry
 */
export async function addToFallbackTag(
  target: ArtifactTarget,
  {subject, descriptor}: Edge,
  clock: Clock,
): Promise<void> {
  const wanted = new Map<string, string>();
  const merge = ({entries}: FallbackIndex): ReadonlyMap<string, string> => {
    for (const [digest, entry] of entries) wanted.set(digest, entry);
    if (!wanted.has(descriptor.digest)) wanted.set(descriptor.digest, JSON.stringify(descriptor));
    return wanted;
  };
  for (let count = 0; count < MAX_UPDATES; count++) {
    if (count > 0) await sleep(clock, FIRST_PAUSE_MS * 2 ** (count - 1));
    const update = await updateFallbackTag(fallbackTagIn(target, subject), merge);
    if (update.outcome === 'unchanged') return;
    if (update.outcome === 'written' && hasAll(update.after, merge(update.after))) return;
  }
  throw new ArtifactError(
    `The artifact is pushed as ${descriptor.digest}, but the tag ${fallbackTag(subject)} of ${target.name} does not keep its entry: others seem to write the tag at the same time. Attach it again.`,
  );
}

const hasAll = ({entries}: FallbackIndex, wanted: ReadonlyMap<string, unknown>): boolean =>
  wanted.keys().every((digest) => entries.has(digest));

function fallbackTagIn(target: ArtifactTarget, subject: Digest): FallbackTag<TagState> {
  const tag = fallbackTag(subject);
  return {
    async read() {
      const manifest = await target.manifest(tag);
      if (!manifest) return {index: NO_ENTRIES, isStale: false};
      const index = readTagContent(subject, manifest);
      if (typeof index !== 'string') return {index, isStale: false};
      throw new ArtifactError(
        `The artifact is pushed but cannot be found from its subject: ${target.name} does not list referrers, and the tag ${tag}, which would list them, points to ${index} and not to an index. It is left as it is. Push through a registry with the Referrers API, or remove that tag if nobody needs it.`,
      );
    },
    async write({index}, entries) {
      const bytes = serializeFallbackIndex(index, entries.values());
      await target.putManifest(tag, {mediaType: OCI_INDEX, bytes});
      return true;
    },
  };
}
