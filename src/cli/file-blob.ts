import {createReadStream} from 'node:fs';
import {stat} from 'node:fs/promises';
import {ArtifactError} from '../artifact/target.ts';
import type {BlobSource} from '../oci/blob.ts';
import {createDigester} from '../oci/digest.ts';

/** A file of the disk as a blob: read once for its digest, and again when it is sent. @throws ArtifactError */
export async function fileBlob(path: string): Promise<BlobSource> {
  const found = await stat(path).catch((error: NodeJS.ErrnoException) => {
    throw new ArtifactError(`The file ${path} cannot be read (${error.code}).`);
  });
  if (!found.isFile()) throw new ArtifactError(`${path} is no file: name files to attach.`);
  const open = () => createReadStream(path);
  const digester = createDigester('sha256');
  let size = 0;
  for await (const chunk of open()) {
    digester.update(chunk);
    size += chunk.length;
  }
  return {digest: digester.digest(), size, open};
}
