import type {Clock} from '../clock.ts';
import type {Digest} from '../oci/digest.ts';
import {OCI_INDEX} from '../oci/media-type.ts';
import type {Tag} from '../oci/name.ts';
import {type Edge, fallbackTag} from '../oci/referrers.ts';
import {ArtifactError, type ArtifactTarget} from './target.ts';

/** Rounds of reading, writing and checking. */
const ROUNDS = 5;
/** Milliseconds before the second round; doubled for each further one. */
const FIRST_DELAY = 200;

/** What stands under the tag: the index's own properties, and its entries as they are written there, by digest. */
interface FallbackIndex {
  properties: Record<string, unknown>;
  entries: Map<string, unknown>;
}

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

function parseIndex(bytes: Buffer): FallbackIndex | undefined {
  let body: unknown;
  try {
    body = JSON.parse(bytes.toString('utf8'));
  } catch {
    return undefined;
  }
  if (!isRecord(body) || !Array.isArray(body['manifests'])) return undefined;
  const {manifests, ...properties} = body;
  const entries = new Map<string, unknown>();
  for (const entry of body['manifests']) {
    if (!isRecord(entry) || typeof entry['digest'] !== 'string') return undefined;
    if (!entries.has(entry['digest'])) entries.set(entry['digest'], entry);
  }
  return {properties, entries};
}

/** @throws ArtifactError when something else than a list of referrers stands under the tag. */
async function readTag(target: ArtifactTarget, tag: Tag, subject: Digest): Promise<FallbackIndex> {
  const manifest = await target.manifest(tag);
  if (!manifest) return {properties: {schemaVersion: 2, mediaType: OCI_INDEX}, entries: new Map()};
  const index =
    manifest.digest !== subject && manifest.mediaType === OCI_INDEX ? parseIndex(manifest.bytes) : undefined;
  if (index) return index;
  const what =
    manifest.digest === subject ? 'the subject itself' : `a manifest of type ${manifest.mediaType}`;
  throw new ArtifactError(
    `The artifact is pushed but cannot be found from its subject: ${target.name} lists no referrers, and the tag ${tag}, which would list them, means ${what} and no index. It is left as it is. Push through a registry with the Referrers API, or remove that tag if nobody needs it.`,
  );
}

const serialize = ({properties, entries}: FallbackIndex): Buffer =>
  Buffer.from(JSON.stringify({...properties, manifests: [...entries.values()]}));

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
  const wanted = new Map<string, unknown>();
  for (let round = 1; round <= ROUNDS; round++) {
    if (round > 1) await clock.sleep(FIRST_DELAY * 2 ** (round - 2));
    const {properties, entries} = await readTag(target, tag, subject);
    for (const [digest, entry] of entries) wanted.set(digest, entry);
    if (!wanted.has(descriptor.digest)) wanted.set(descriptor.digest, descriptor);
    if (holdsAll(entries, wanted)) return;
    await target.putManifest(tag, {mediaType: OCI_INDEX, bytes: serialize({properties, entries: wanted})});
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
