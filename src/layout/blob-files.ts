import {randomUUID} from 'node:crypto';
import {mkdir, open, readFile, rename, rm, stat} from 'node:fs/promises';
import {dirname, join} from 'node:path';
import {ArtifactError} from '../artifact/target.ts';
import {errorCode} from '../error-code.ts';
import type {BlobSource} from '../oci/blob.ts';
import {algorithmOf, createDigester, type Digest, digestOf, encodedOf} from '../oci/digest.ts';

export interface BlobFiles {
  /**
   * The bytes of a manifest.
   * @returns undefined when there is no such file, or one that is too large for a manifest.
   * @throws ArtifactError when the file's bytes are not those of its name.
   */
  read(digest: Digest): Promise<Buffer | undefined>;
  /** Writes the blob unless it is there; it appears whole and verified. @throws ArtifactError on other bytes. */
  write(blob: BlobSource): Promise<void>;
}

/** Bytes; as for the manifests of a registry. */
const LARGEST_MANIFEST = 16 * 1024 * 1024;

const ignoreMissing = (error: unknown): undefined => {
  if (errorCode(error) === 'ENOENT') return undefined;
  throw error;
};

/** The folder `blobs/` of an image layout (image-spec, "Image Layout"). */
export function createBlobFiles(folder: string): BlobFiles {
  const pathOf = (digest: Digest): string => join(folder, 'blobs', algorithmOf(digest), encodedOf(digest));

  return {
    async read(digest) {
      const path = pathOf(digest);
      const found = await stat(path).catch(ignoreMissing);
      if (!found?.isFile() || found.size > LARGEST_MANIFEST) return undefined;
      const bytes = await readFile(path).catch(ignoreMissing);
      if (bytes && digestOf(bytes, algorithmOf(digest)) !== digest) {
        throw new ArtifactError(`${path} is damaged: its bytes have another digest than its name says.`);
      }
      return bytes;
    },
    async write(blob) {
      const path = pathOf(blob.digest);
      if (await stat(path).catch(ignoreMissing)) return;
      await mkdir(dirname(path), {recursive: true});
      const temporary = join(dirname(path), `.${randomUUID()}`);
      try {
        await fill(temporary, blob);
        await rename(temporary, path);
      } catch (error) {
        await rm(temporary, {force: true});
        throw error;
      }
    },
  };
}

async function fill(path: string, {digest, open: read}: BlobSource): Promise<void> {
  const digester = createDigester(algorithmOf(digest));
  const handle = await open(path, 'wx');
  try {
    for await (const chunk of read()) {
      digester.update(chunk);
      await handle.writeFile(chunk);
    }
    await handle.sync();
  } finally {
    await handle.close();
  }
  const actual = digester.digest();
  if (actual !== digest)
    throw new ArtifactError(`A blob said to be ${digest} has bytes whose digest is ${actual}.`);
}
