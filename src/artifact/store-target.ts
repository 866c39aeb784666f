import type {BlobSource} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import type {Digest} from '../oci/digest.ts';
import {isDigestReference, type Reference} from '../oci/name.ts';
import {createUploadId, type UploadId} from '../oci/upload.ts';
import {fullName, type Metadata, type RepositoryKey} from '../storage/metadata.ts';
import type {Spools} from '../storage/spool.ts';
import {ArtifactError, type ArtifactTarget, type TargetManifest, verifiedChunks} from './target.ts';

/** A blob whose bytes are in a spool. */
interface StagedBlob {
  digest: Digest;
  spool: UploadId;
}

export interface StoreDeps {
  metadata: Metadata;
  /** The spools of the store itself. */
  spools: Spools;
  /** Has the process that works on the store put a manifest with these blobs into the repository. */
  ingest(content: {
    repository: RepositoryKey;
    reference: Reference;
    mediaType: string;
    bytes: Buffer;
    blobs: readonly StagedBlob[];
  }): Promise<void>;
  /** Closes what was opened for the target. */
  close(): Promise<void>;
}

/** Rows that are read at a time. */
const PAGE = 200;

/**
 * A repository in a data folder of backref. It is read directly, also while a server works on it, and changed by that
 * server. Blobs are put into spools of their own until the manifest comes that names them.
 */
export function createStoreTarget(repository: RepositoryKey, deps: StoreDeps): ArtifactTarget {
  const {metadata, spools, ingest, close} = deps;
  const staged: StagedBlob[] = [];

  async function stage(blob: BlobSource, id: UploadId): Promise<void> {
    const spool = await spools.open(id);
    try {
      for await (const chunk of verifiedChunks(blob)) await spool.append(chunk);
      await spool.flush();
    } finally {
      await spool.close();
    }
  }

  return {
    name: `the store's repository ${fullName(repository)}`,
    async manifest(reference) {
      const digest = isDigestReference(reference)
        ? reference
        : (await metadata.tag(repository, reference))?.digest;
      const record = digest && (await metadata.manifest(repository, digest));
      return record && {digest: record.digest, mediaType: record.mediaType, bytes: record.bytes};
    },
    async referrers(subject) {
      const descriptors: Descriptor[] = [];
      for (let after = 0; ; ) {
        const rows = await metadata.referrers(repository, subject, {after, limit: PAGE});
        for (const row of rows) descriptors.push(JSON.parse(row.descriptor));
        const last = rows.at(-1);
        if (!last || rows.length < PAGE) return descriptors;
        after = last.seq;
      }
    },
    async pushBlob(blob) {
      const spool = createUploadId();
      staged.push({digest: blob.digest, spool});
      await stage(blob, spool);
    },
    putManifest: (reference, {mediaType, bytes}) =>
      ingest({repository, reference, mediaType, bytes, blobs: staged}),
    async close() {
      try {
        // The ingest has consumed those that it needed.
        for (const {spool} of staged) await spools.remove(spool);
      } finally {
        await close();
      }
    },
  };
}

/**
 * Guards against misspelt names: an unknown registry must not look like one without referrers.
 * @throws ArtifactError when the store has nothing of the registry
 */
export async function requireRegistry(
  metadata: Pick<Metadata, 'repositories'>,
  registry: string,
): Promise<void> {
  if ((await metadata.repositories(registry, {limit: 1})).length > 0) return;
  throw new ArtifactError(
    `The store has nothing of a registry "${registry}": write its name as the configuration has it, such as docker.io.`,
  );
}

/** @throws ArtifactError when the store has nothing of the repository, or of its registry */
export async function requireRepository(
  metadata: Pick<Metadata, 'hasRepository' | 'repositories'>,
  repository: RepositoryKey,
): Promise<void> {
  if (await metadata.hasRepository(repository)) return;
  const {registry, name} = repository;
  await requireRegistry(metadata, registry);
  throw new ArtifactError(`The store has no repository "${name}" of the registry ${registry}.`);
}

/**
 * Every manifest of a store, once for each repository that is linked to it.
 * @param within only those of this repository
 */
export async function* storedManifests(
  metadata: Metadata,
  within: RepositoryKey | undefined,
): AsyncGenerator<TargetManifest> {
  for (let page = await metadata.manifests(undefined, PAGE); ; ) {
    for (const manifest of page) if (isWithin(manifest.repository, within)) yield manifest;
    const last = page.at(-1);
    if (!last) return;
    page = await metadata.manifests(last.cursor, PAGE);
  }
}

const isWithin = ({registry, name}: RepositoryKey, within: RepositoryKey | undefined): boolean =>
  within === undefined || (within.registry === registry && within.name === name);
