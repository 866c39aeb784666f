import type {Digest} from '../../src/oci/digest.ts';
import {readManifest} from '../../src/oci/manifest.ts';
import {parseName, parseTag} from '../../src/oci/name.ts';
import {edgeOf} from '../../src/oci/referrers.ts';
import {manifestPut} from '../../src/registry/stored-manifest.ts';
import type {Change, Origin, RepositoryKey} from '../../src/storage/metadata.ts';
import type {Storage} from '../../src/storage/open.ts';
import type {Content, ManifestContent} from './content.ts';

/** A manifest in a repository, with what it names. */
export interface StoredImage {
  /** Of docker.io. */
  name: string;
  manifest: ManifestContent;
  tags?: readonly string[];
  /** Those whose bytes are stored. */
  blobs?: readonly Content[];
  origin?: Origin;
  /** When it arrived, in milliseconds since the epoch. */
  at?: number;
  /** How often it was used since, a minute apart. */
  uses?: number;
}

export const repositoryNamed = (name: string): RepositoryKey => ({
  registry: 'docker.io',
  name: parseName(name),
});

/** Stores a manifest as if it had just been pulled, without what it refers to. */
export const pulledManifest = (
  repository: RepositoryKey,
  manifest: ManifestContent,
  at: number,
): Extract<Change, {type: 'manifest.put'}> => ({
  type: 'manifest.put',
  repository,
  digest: manifest.digest,
  mediaType: manifest.mediaType,
  bytes: manifest.bytes,
  edge: edgeOf(manifest),
  references: [],
  origin: 'upstream',
  at,
});

/** Puts an image into a store as if it had been pulled, or pushed, earlier. */
export async function storeImage(
  {metadata, store, spools}: Storage,
  {name, manifest, tags = [], blobs = [], origin = 'upstream', at = 1_000, uses = 0}: StoredImage,
): Promise<void> {
  const repository = repositoryNamed(name);
  for (const {digest, bytes} of blobs) {
    const spool = await spools.open(digest);
    await spool.append(bytes);
    await spool.flush();
    await store.publish(digest, spool);
  }
  const {digest, bytes, mediaType} = manifest;
  await metadata.commit([
    ...blobs.flatMap(({digest, bytes: {length: size}}): Change[] => [
      {type: 'blob.put', digest, size, at},
      {type: 'blob.link', repository, digest, size, origin, at},
    ]),
    manifestPut({
      repository,
      digest,
      mediaType,
      bytes,
      facts: readManifest(bytes),
      edge: edgeOf(manifest),
      origin,
      at,
    }),
    ...tags.map((tag): Change => ({type: 'tag.put', repository, name: parseTag(tag), digest, origin, at})),
    ...Array.from({length: uses}, (_, index): Change => usedAt(repository, digest, at + 60_000 * index)),
  ]);
}

const usedAt = (repository: RepositoryKey, digest: Digest, at: number): Change => ({
  type: 'manifest.used',
  repository,
  digest,
  at,
  age: 0,
});
