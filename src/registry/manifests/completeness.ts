import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Digest} from '../../oci/digest.ts';
import {readManifest} from '../../oci/manifest.ts';
import {isAttestation} from '../../oci/referrers.ts';
import type {ManifestRecord, Metadata, ReferenceRecord, RepositoryKey} from '../../storage/metadata.ts';

/**
 * How many descriptors of all manifests together are checked for one answer: the author of an index must not decide how
 * long that takes. An image that names more is not served while its upstream fails.
 */
const MAX_DESCRIPTORS = 10_000;
/** Bytes of indexes that are parsed for one answer, for the same reason. */
const MAX_INDEX_BYTES = 64 * 1024 * 1024;
/** How many reads of the metadata happen in a row. They run on this thread, so waiting requests come in between. */
const READS_PER_TURN = 16;

/**
 * Is everything here that a pull of this manifest needs, and may this repository serve it? A manifest promises its
 * blobs: Podman and CRI-O go to the origin while a mirror refuses the manifest, and never again once it has served one.
 * An index is complete when one of its platforms is: that is the one that was pulled. Attestations are not platforms.
 */
export function isComplete(
  metadata: Pick<Metadata, 'references' | 'manifest' | 'blob' | 'blobLink'>,
  repository: RepositoryKey,
  manifest: Pick<ManifestRecord, 'digest' | 'bytes'>,
): Promise<boolean> {
  const visited = new Set<Digest>();
  let descriptors = 0;
  let indexBytes = 0;
  let reads = 0;

  async function pause(): Promise<void> {
    reads += 1;
    if (reads % READS_PER_TURN === 0) await nextTurn();
  }

  /** Knowing a digest is not permission: bytes that only another repository is linked to do not count. */
  async function canServe(blob: Digest): Promise<boolean> {
    await pause();
    if (!(await metadata.blobLink(repository, blob))) return false;
    return (await metadata.blob(blob))?.state === 'ready';
  }

  async function everyBlob(blobs: ReadonlySet<Digest>): Promise<boolean> {
    for (const blob of blobs) if (!(await canServe(blob))) return false;
    return true;
  }

  /** One complete child ends the search, so children that were visited before are incomplete. */
  async function anyChild(children: readonly Digest[]): Promise<boolean> {
    for (const child of children) {
      if (visited.has(child)) continue;
      visited.add(child);
      await pause();
      const record = await metadata.manifest(repository, child);
      if (record && (await isWhole(record))) return true;
      if (isTooMuch()) return false;
    }
    return false;
  }

  const isTooMuch = () => descriptors > MAX_DESCRIPTORS || indexBytes > MAX_INDEX_BYTES;

  async function isWhole({digest, bytes}: Pick<ManifestRecord, 'digest' | 'bytes'>): Promise<boolean> {
    const references = await metadata.references(digest);
    descriptors += references.length;
    if (isTooMuch()) return false;
    const children = digestsOf(references, 'manifest');
    if (!(await everyBlob(digestsOf(references, 'blob')))) return false;
    if (children.size === 0) return true;
    indexBytes += bytes.length;
    if (isTooMuch()) return false;
    const attestations = attestationsIn(bytes);
    const platforms = [...children].filter((child) => !attestations.has(child));
    return platforms.length === 0 || anyChild(platforms);
  }

  visited.add(manifest.digest);
  return isWhole(manifest);
}

const digestsOf = (references: readonly ReferenceRecord[], kind: ReferenceRecord['kind']): Set<Digest> =>
  new Set(references.filter((reference) => reference.kind === kind).map(({digest}) => digest));

const attestationsIn = (index: Buffer): Set<Digest> =>
  new Set(
    readManifest(index)
      .manifests.filter(isAttestation)
      .map(({digest}) => digest),
  );
