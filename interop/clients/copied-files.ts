import {readdir, readFile} from 'node:fs/promises';
import {join} from 'node:path';
import {blobsOf, type Image, sha256} from '../../rig/image.ts';

/** The digests of the bytes of all files below a folder, whatever the files' names. */
export async function hashFiles(folder: string): Promise<string[]> {
  const entries = await readdir(folder, {withFileTypes: true, recursive: true});
  const files = entries.filter((entry) => entry.isFile());
  return Promise.all(files.map(async ({parentPath, name}) => sha256(await readFile(join(parentPath, name)))));
}

/** Index, manifests, configurations and layers of all platforms. */
export const everyDigest = (image: Image): string[] =>
  [image.index, ...image.platforms.map(({manifest}) => manifest), ...blobsOf(image)].map(
    ({digest}) => digest,
  );
