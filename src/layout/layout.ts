import {readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {scanFor} from '../artifact/list.ts';
import {ArtifactError, type ArtifactTarget, type TargetManifest} from '../artifact/target.ts';
import type {Clock} from '../clock.ts';
import {blobOf} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import {algorithmOf, type Digest, digestOf} from '../oci/digest.ts';
import {readManifest} from '../oci/manifest.ts';
import {isDigestReference} from '../oci/name.ts';
import {edgeOf} from '../oci/referrers.ts';
import {createBlobFiles} from './blob-files.ts';
import {createIndexFile} from './index-file.ts';

/** An OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/` (image-spec, "Image Layout"). */
export interface Layout extends ArtifactTarget {
  /** Every manifest that index.json leads to and that is here, each once; those of index.json first, in its order. */
  manifests(): AsyncGenerator<TargetManifest>;
}

/**
 * Opens a layout that is there.
 * @param folder its path.
 * @throws ArtifactError when it is none.
 */
export async function openLayout(folder: string, clock: Clock): Promise<Layout> {
  await checkVersion(folder);
  const blobs = createBlobFiles(folder);
  const index = createIndexFile(folder, clock);

  /** A layout may lack what an index names: a platform that was not copied. */
  const load = async (descriptor: Descriptor): Promise<TargetManifest | undefined> => {
    const {digest} = descriptor;
    const bytes = await blobs.read(digest);
    return bytes && {digest, bytes, mediaType: descriptor.mediaType || (readManifest(bytes).mediaType ?? '')};
  };

  async function* manifests(): AsyncGenerator<TargetManifest> {
    const queue = await index.entries();
    const seen = new Set<Digest>();
    // Grows while it is walked.
    for (const descriptor of queue) {
      if (seen.has(descriptor.digest)) continue;
      seen.add(descriptor.digest);
      const manifest = await load(descriptor);
      if (!manifest) continue;
      yield manifest;
      for (const child of readManifest(manifest.bytes).manifests)
        if (!seen.has(child.digest)) queue.push(child);
    }
  }

  const find = async (digest: Digest): Promise<TargetManifest | undefined> => {
    for await (const manifest of manifests()) if (manifest.digest === digest) return manifest;
    return undefined;
  };

  return {
    name: `oci:${folder}`,
    manifests,
    async manifest(reference) {
      if (isDigestReference(reference)) return find(reference);
      const entry = await index.tagged(reference);
      return entry && load(entry);
    },
    referrers: (subject) => scanFor(subject, manifests()),
    pushBlob: blobs.write,
    async putManifest(reference, {mediaType, bytes}) {
      const isDigest = isDigestReference(reference);
      const digest = digestOf(bytes, isDigest ? algorithmOf(reference) : undefined);
      await blobs.write({...blobOf(bytes), digest});
      const artifactType = edgeOf({digest, mediaType, bytes})?.descriptor.artifactType;
      const descriptor = {mediaType, digest, size: bytes.length, ...(artifactType ? {artifactType} : {})};
      await index.add(descriptor, isDigest ? undefined : reference);
    },
    async close() {},
  };
}

async function checkVersion(folder: string): Promise<void> {
  const text = await readFile(join(folder, 'oci-layout'), 'utf8').catch(() => undefined);
  if (text === undefined) {
    throw new ArtifactError(`${folder} is no OCI image layout: it has no readable file "oci-layout".`);
  }
  // A file that says nothing readable says another version than 1.
  const version = /"imageLayoutVersion"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? '';
  if (!version.startsWith('1.')) {
    throw new ArtifactError(
      `${folder} is an OCI image layout of version "${version}"; version 1 is supported.`,
    );
  }
}
