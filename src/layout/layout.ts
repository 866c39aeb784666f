import {randomUUID} from 'node:crypto';
import {mkdir, open, readFile, rename, rm, stat} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {scanFor} from '../artifact/list.ts';
import {ArtifactError, type ArtifactTarget, type TargetManifest, verifiedChunks} from '../artifact/target.ts';
import type {Clock} from '../clock.ts';
import {errorCode} from '../error-code.ts';
import {type BlobSource, blobOf} from '../oci/blob.ts';
import type {Descriptor} from '../oci/descriptor.ts';
import {algorithmOf, type Digest, digestOf, encodedOf} from '../oci/digest.ts';
import {readManifest} from '../oci/manifest.ts';
import {isDigestReference} from '../oci/name.ts';
import {edgeOf} from '../oci/referrers.ts';
import {createIndexFile} from './index-file.ts';

/** An OCI image layout: a folder with `oci-layout`, `index.json` and `blobs/` (image-spec, "Image Layout"). */
export interface Layout extends ArtifactTarget {
  /** Every manifest here that index.json leads to, each once; those in index.json first, in its order. */
  manifests(): AsyncGenerator<TargetManifest>;
}

/** The largest manifest that is read, in bytes; the same as of a registry. */
const MAX_MANIFEST_BYTES = 16 * 1024 * 1024;

/**
 * Opens an existing layout.
 * @param folder its path
 * @throws ArtifactError when the folder is not a layout
 */
export async function openLayout(folder: string, clock: Clock): Promise<Layout> {
  await checkVersion(folder);
  const index = createIndexFile(folder, clock);

  /** A layout may lack what an index names, such as a platform that was not copied. */
  const load = async (descriptor: Descriptor): Promise<TargetManifest | undefined> => {
    const {digest} = descriptor;
    const bytes = await readBlob(folder, digest);
    return bytes && {digest, bytes, mediaType: descriptor.mediaType || (readManifest(bytes).mediaType ?? '')};
  };

  async function* manifests(): AsyncGenerator<TargetManifest> {
    const queue = await index.entries();
    const seen = new Set<Digest>();
    // The queue grows during the loop.
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
    pushBlob: (blob) => writeBlob(folder, blob),
    async putManifest(reference, {mediaType, bytes}) {
      const isDigest = isDigestReference(reference);
      const digest = digestOf(bytes, isDigest ? algorithmOf(reference) : undefined);
      await writeBlob(folder, {...blobOf(bytes), digest});
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
    throw new ArtifactError(`${folder} is not an OCI image layout: it has no readable file "oci-layout".`);
  }
  // A file without a readable version has another version than 1.
  const version = /"imageLayoutVersion"\s*:\s*"([^"]*)"/.exec(text)?.[1] ?? '';
  if (!version.startsWith('1.')) {
    throw new ArtifactError(
      `${folder} is an OCI image layout of version "${version}"; version 1 is supported.`,
    );
  }
}

const pathOf = (folder: string, digest: Digest): string =>
  join(folder, 'blobs', algorithmOf(digest), encodedOf(digest));

function ignoreMissing(error: unknown): undefined {
  if (errorCode(error) !== 'ENOENT') throw error;
}

/**
 * The bytes of a manifest.
 * @returns undefined when there is no such file, or when it is too large for a manifest
 * @throws ArtifactError when the bytes do not have the digest that the file is named after
 */
async function readBlob(folder: string, digest: Digest): Promise<Buffer | undefined> {
  const path = pathOf(folder, digest);
  const found = await stat(path).catch(ignoreMissing);
  if (!found?.isFile() || found.size > MAX_MANIFEST_BYTES) return undefined;
  const bytes = await readFile(path).catch(ignoreMissing);
  if (bytes && digestOf(bytes, algorithmOf(digest)) !== digest) {
    throw new ArtifactError(`${path} is damaged: its bytes do not have the digest that it is named after.`);
  }
  return bytes;
}

/** Writes the blob unless it exists. It appears complete and verified. @throws ArtifactError for other bytes */
async function writeBlob(folder: string, blob: BlobSource): Promise<void> {
  const path = pathOf(folder, blob.digest);
  if (await stat(path).catch(ignoreMissing)) return;
  await mkdir(dirname(path), {recursive: true});
  const temporary = join(dirname(path), `.${randomUUID()}`);
  try {
    await writeVerified(temporary, blob);
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, {force: true});
    throw error;
  }
}

async function writeVerified(path: string, blob: BlobSource): Promise<void> {
  const handle = await open(path, 'wx');
  try {
    for await (const chunk of verifiedChunks(blob)) await handle.writeFile(chunk);
    await handle.sync();
  } finally {
    await handle.close();
  }
}
