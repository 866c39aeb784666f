import {type Clock, sleep} from '../clock.ts';
import {algorithmOf, type Digest, digestOf} from '../oci/digest.ts';
import {
  type FallbackIndex,
  NO_ENTRIES,
  parseFallbackIndex,
  serializeFallbackIndex,
} from '../oci/fallback-index.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import type {Tag} from '../oci/name.ts';
import {type Edge, fallbackTag} from '../oci/referrers.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

/** Rounds of reading, writing and checking. */
const ROUNDS = 5;
/** Milliseconds before the second round; doubled for each further one. */
const FIRST_DELAY = 200;

/** @throws ArtifactError when something else than a list of referrers stands under the tag. */
async function readTag(target: ArtifactTarget, tag: Tag, subject: Digest): Promise<FallbackIndex> {
  const manifest = await target.manifest(tag);
  if (!manifest) return NO_ENTRIES;
  const isSubject = digestOf(manifest.bytes, algorithmOf(subject)) === subject;
  const index =
    !isSubject && manifest.mediaType === OCI_INDEX ? parseFallbackIndex(manifest.bytes) : undefined;
  if (index) return index;
  const what = isSubject ? 'the subject itself' : `a manifest of type ${manifest.mediaType}`;
  throw new ArtifactError(
    `The artifact is pushed but cannot be found from its subject: ${target.name} lists no referrers, and the tag ${tag}, which would list them, means ${what} and no index. It is left as it is. Push through a registry with the Referrers API, or remove that tag if nobody needs it.`,
  );
}

/**
 * Names a referrer under the subject's fallback tag (distribution-spec, "Referrers Tag Schema"). Other entries stay as
 * they are written; one digest stands there once. Nobody locks the tag, and a registry may answer a stale one: what was
 * written is read again, and written again where it is gone, together with everything that was seen there meanwhile.
 * @throws ArtifactError when the tag is no index, or does not keep the entry.
 */
export async function addToFallbackTag(
  target: ArtifactTarget,
  {subject, descriptor}: Edge,
  clock: Clock,
): Promise<void> {
  const tag = fallbackTag(subject);
  const wanted = new Map<string, string>();
  for (let round = 1; round <= ROUNDS; round++) {
    if (round > 1) await sleep(clock, FIRST_DELAY * 2 ** (round - 2));
    const index = await readTag(target, tag, subject);
    for (const [digest, entry] of index.entries) wanted.set(digest, entry);
    if (!wanted.has(descriptor.digest)) wanted.set(descriptor.digest, JSON.stringify(descriptor));
    if (holdsAll(index.entries, wanted)) return;
    await target.putManifest(tag, {
      mediaType: OCI_INDEX,
      bytes: serializeFallbackIndex(index, wanted.values()),
    });
    const written = await readTag(target, tag, subject);
    if (holdsAll(written.entries, wanted)) return;
    for (const [digest, entry] of written.entries) wanted.set(digest, entry);
  }
  throw new ArtifactError(
    `The artifact is pushed as ${descriptor.digest}, but the tag ${tag} of ${target.name} does not keep its entry: others seem to write it at the same time. Attach it again.`,
  );
}

const holdsAll = (entries: ReadonlyMap<string, unknown>, wanted: ReadonlyMap<string, unknown>): boolean =>
  wanted.keys().every((digest) => entries.has(digest));
