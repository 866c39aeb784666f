import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import type {ExecutionContext} from 'ava';
import {encodedOf} from '../../src/oci/digest.ts';
import type {ManifestContent} from './content.ts';
import {createFolder} from './folder.ts';

/** An image layout with these manifests in its blobs, and the tagged ones in its index.json. */
export async function createLayout(
  t: ExecutionContext,
  tagged: Readonly<Record<string, ManifestContent>>,
  others: readonly ManifestContent[] = [],
): Promise<string> {
  const folder = await createFolder(t);
  await mkdir(join(folder, 'blobs/sha256'), {recursive: true});
  for (const {digest, bytes} of [...Object.values(tagged), ...others]) {
    await writeFile(join(folder, 'blobs/sha256', encodedOf(digest)), bytes);
  }
  const manifests = Object.entries(tagged).map(([tag, {mediaType, digest, bytes}]) => ({
    mediaType,
    digest,
    size: bytes.length,
    annotations: {'org.opencontainers.image.ref.name': tag},
  }));
  await writeFile(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(folder, 'index.json'), JSON.stringify({schemaVersion: 2, manifests, 'x-kept': 1}));
  return folder;
}
