import {mkdir, writeFile} from 'node:fs/promises';
import {join} from 'node:path';
import {blobsOf, type Content, descriptor, type Image} from '../rig/image.ts';
import type {Scope} from '../rig/scope.ts';

const INDEX = 'application/vnd.oci.image.index.v1+json';

/** Writes an OCI image layout of one manifest or index, with the name that importers give it (image-spec, Image Layout). */
export async function writeLayout(
  scope: Scope,
  root: Content,
  others: readonly Content[],
  name?: string,
): Promise<string> {
  const folder = join(scope.folder, 'layout');
  await mkdir(join(folder, 'blobs', 'sha256'), {recursive: true});
  const annotations = name === undefined ? {} : {annotations: {'org.opencontainers.image.ref.name': name}};
  const index = {schemaVersion: 2, mediaType: INDEX, manifests: [{...descriptor(root), ...annotations}]};
  await writeFile(join(folder, 'oci-layout'), '{"imageLayoutVersion":"1.0.0"}');
  await writeFile(join(folder, 'index.json'), JSON.stringify(index));
  for (const {digest, bytes} of [root, ...others]) {
    await writeFile(join(folder, 'blobs', ...digest.split(':')), bytes);
  }
  return folder;
}

/** The same with a whole image, all platforms. */
export const writeImageLayout = (scope: Scope, image: Image, name?: string): Promise<string> =>
  writeLayout(
    scope,
    image.index,
    [...image.platforms.map(({manifest}) => manifest), ...blobsOf(image)],
    name,
  );
