import type {Digest} from '../oci/digest.ts';
import type {Metadata, ReferenceRecord, RepositoryKey} from '../storage/metadata.ts';

/** Indexes within indexes are followed so far. */
const DEEPEST = 4;

/**
 * Is everything here that a pull of this manifest needs? A manifest promises its blobs: Podman and CRI-O go to the
 * origin while a mirror refuses the manifest, and never again once it has served one. Of an index, one platform that
 * is here whole is enough, since that is what was pulled.
 */
export async function isComplete(
  metadata: Metadata,
  repository: RepositoryKey,
  manifest: Digest,
  depth = DEEPEST,
): Promise<boolean> {
  const references = await metadata.references(manifest);
  const blobs = references.filter(({kind}) => kind === 'blob');
  const children = references.filter(({kind}) => kind === 'manifest');
  if (!(await everyBlobHere(metadata, blobs))) return false;
  if (children.length === 0) return true;
  if (depth === 0) return false;
  for (const {digest} of children) {
    const here = await metadata.manifest(repository, digest);
    if (here && (await isComplete(metadata, repository, digest, depth - 1))) return true;
  }
  return false;
}

async function everyBlobHere(metadata: Metadata, blobs: readonly ReferenceRecord[]): Promise<boolean> {
  const records = await Promise.all(blobs.map(({digest}) => metadata.blob(digest)));
  return records.every((record) => record?.state === 'ready');
}
