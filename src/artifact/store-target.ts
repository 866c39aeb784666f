import type {Clock} from '../clock.ts';
import type {BlobSource} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import {algorithmOf, createDigester, digestOf} from '../oci/digest.ts';
import {readManifest} from '../oci/manifest.ts';
import {isDigestReference} from '../oci/name.ts';
import {edgeOf} from '../oci/referrers.ts';
import type {BlobStore} from '../storage/blob-store.ts';
import type {Metadata, ReferenceRecord, RepositoryKey} from '../storage/metadata.ts';
import type {Spools} from '../storage/spool.ts';
import {ArtifactError, type ArtifactTarget, type TargetManifest} from './target.ts';

export interface StoreDeps {
  metadata: Metadata;
  blobs: BlobStore;
  spools: Spools;
  clock: Clock;
  /** Ends what was opened for the target. */
  close(): Promise<void>;
}

/** Rows that are read at once. */
const PAGE = 200;

/** A repository of a store of backref's own. What is put here is local: it is never evicted. */
export function createStoreTarget(repository: RepositoryKey, deps: StoreDeps): ArtifactTarget {
  const {metadata, blobs, spools, clock, close} = deps;
  const name = `${repository.registry}/${repository.name}`;

  const upload = async (blob: BlobSource): Promise<void> => {
    const spool = await spools.open(blob.digest);
    try {
      // What an earlier process left there is not known to be of the same bytes.
      await spool.truncate();
      const digester = createDigester(algorithmOf(blob.digest));
      for await (const chunk of blob.open()) {
        digester.update(chunk);
        await spool.append(chunk);
      }
      const actual = digester.digest();
      if (actual !== blob.digest) {
        throw new ArtifactError(`A blob said to be ${blob.digest} has bytes whose digest is ${actual}.`);
      }
      await spool.flush();
      await blobs.publish(blob.digest, spool);
    } catch (error) {
      await spool.discard();
      throw error;
    }
    await metadata.commit([{type: 'blob.put', digest: blob.digest, size: blob.size, at: clock.now()}]);
  };

  return {
    name: `the store's repository ${name}`,
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
      if (!(await blobs.stat(blob.digest))) await upload(blob);
      const {digest, size} = blob;
      await metadata.commit([
        {type: 'blob.link', repository, digest, size, origin: 'local', at: clock.now()},
      ]);
    },
    async putManifest(reference, {mediaType, bytes}) {
      const isDigest = isDigestReference(reference);
      const digest = digestOf(bytes, isDigest ? algorithmOf(reference) : undefined);
      if (isDigest && digest !== reference) {
        throw new ArtifactError(`The manifest ${reference} has bytes whose digest is ${digest}.`);
      }
      const at = clock.now();
      const put = {
        type: 'manifest.put',
        repository,
        digest,
        mediaType,
        bytes,
        edge: edgeOf({digest, mediaType, bytes}),
        references: referencesOf(bytes),
        origin: 'local',
        at,
      } as const;
      if (isDigest) await metadata.commit([put]);
      else
        await metadata.commit([
          put,
          {type: 'tag.put', repository, name: reference, digest, origin: 'local', at},
        ]);
    },
    close,
  };
}

function referencesOf(bytes: Buffer): ReferenceRecord[] {
  const {blobs, manifests} = readManifest(bytes);
  return [
    ...blobs.map(({digest, size}) => ({digest, size, kind: 'blob'}) as const),
    ...manifests.map(({digest, size}) => ({digest, size, kind: 'manifest'}) as const),
  ];
}

/**
 * Every manifest of a store, once for each repository that is linked to it.
 * @param within only those of this repository.
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
