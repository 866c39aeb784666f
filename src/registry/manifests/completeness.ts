import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Digest} from '../../oci/digest.ts';
import type {Metadata, ReferenceRecord, RepositoryKey} from '../../storage/metadata.ts';

/**
 * How many descriptors of all manifests together are checked for one answer: the author of an index must not decide how
 * long that takes. An image that names more is not served while its upstream fails.
 */
const MAX_DESCRIPTORS = 10_000;
/** How many reads of the metadata happen in a row. They run on this thread, so waiting requests come in between. */
const READS_PER_TURN = 16;

/**
 * Is everything here that a pull of this manifest needs, and may this repository serve it? A manifest promises its
 * blobs: Podman and CRI-O go to the origin while a mirror refuses the manifest, and never again once it has served one.
 * An index is complete when one of its platforms is: that is the one that was pulled.
 */
export function isComplete(
  metadata: Pick<Metadata, 'references' | 'manifest' | 'blob' | 'blobLink'>,
  repository: RepositoryKey,
  manifest: Digest,
): Promise<boolean> {
  const visited = new Set<Digest>();
  let descriptors = 0;
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
  async function anyChild(children: ReadonlySet<Digest>): Promise<boolean> {
    for (const child of children) {
      if (visited.has(child)) continue;
      visited.add(child);
      await pause();
      const isHere = (await metadata.manifest(repository, child)) !== undefined;
      if (isHere && (await isWhole(child))) return true;
      if (descriptors > MAX_DESCRIPTORS) return false;
    }
    return false;
  }

  async function isWhole(digest: Digest): Promise<boolean> {
    const references = await metadata.references(digest);
    descriptors += references.length;
    if (descriptors > MAX_DESCRIPTORS) return false;
    const children = digestsOf(references, 'manifest');
    if (!(await everyBlob(digestsOf(references, 'blob')))) return false;
    return children.size === 0 || anyChild(children);
  }

  visited.add(manifest);
  return isWhole(manifest);
}

const digestsOf = (references: readonly ReferenceRecord[], kind: ReferenceRecord['kind']): Set<Digest> =>
  new Set(references.filter((reference) => reference.kind === kind).map(({digest}) => digest));
