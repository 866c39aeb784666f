import {createCipheriv, createHash} from 'node:crypto';
import {gzipSync} from 'node:zlib';

/** Bytes as a registry stores them. */
export interface Content {
  digest: string;
  mediaType: string;
  bytes: Buffer;
}

export interface Platform {
  architecture: string;
  manifest: Content;
  config: Content;
  layers: Content[];
  /** The digests of the uncompressed layers, as engines list them. */
  diffIds: string[];
}

/** A complete multi-arch image. */
export interface Image {
  /** `library/hello`. */
  repository: string;
  tag: string;
  index: Content;
  platforms: Platform[];
}

const MEDIA_TYPES = {
  oci: {
    index: 'application/vnd.oci.image.index.v1+json',
    manifest: 'application/vnd.oci.image.manifest.v1+json',
    config: 'application/vnd.oci.image.config.v1+json',
    layer: 'application/vnd.oci.image.layer.v1.tar+gzip',
  },
  docker: {
    index: 'application/vnd.docker.distribution.manifest.list.v2+json',
    manifest: 'application/vnd.docker.distribution.manifest.v2+json',
    config: 'application/vnd.docker.container.image.v1+json',
    layer: 'application/vnd.docker.image.rootfs.diff.tar.gzip',
  },
} as const;
export type Format = keyof typeof MEDIA_TYPES;

export const sha256 = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`;

/** Content under its own digest. */
export const content = (mediaType: string, bytes: Buffer): Content => ({
  digest: sha256(bytes),
  mediaType,
  bytes,
});

/** Bytes that do not compress, the same for the same seed. */
export function noise(seed: string, size: number): Buffer {
  const key = createHash('sha256').update(seed).digest();
  return createCipheriv('aes-256-ctr', key, Buffer.alloc(16)).update(Buffer.alloc(size));
}

/** An image of two layers for each of linux/amd64 and linux/arm64, the same bytes in each run. */
export function buildImage(repository: string, tag: string, format: Format): Image {
  const types = MEDIA_TYPES[format];
  const platforms = ['amd64', 'arm64'].map((architecture) =>
    buildPlatform(`${repository}:${tag}/${architecture}`, architecture, format),
  );
  const index = {
    schemaVersion: 2,
    mediaType: types.index,
    manifests: platforms.map(({architecture, manifest}) => ({
      ...descriptor(manifest),
      platform: {architecture, os: 'linux'},
    })),
  };
  return {repository, tag, platforms, index: json(types.index, index)};
}

function buildPlatform(seed: string, architecture: string, format: Format): Platform {
  const types = MEDIA_TYPES[format];
  const tars = [
    tar('etc/hello', Buffer.from(`hello from ${seed}\n`)),
    tar('usr/share/noise', noise(seed, 200_000)),
  ];
  const layers = tars.map((bytes) => content(types.layer, gzipSync(bytes)));
  const diffIds = tars.map(sha256);
  const config = json(types.config, {
    architecture,
    os: 'linux',
    created: '2026-01-01T00:00:00Z',
    config: {Cmd: ['/bin/true']},
    rootfs: {type: 'layers', diff_ids: diffIds},
    history: diffIds.map(() => ({created: '2026-01-01T00:00:00Z', created_by: 'tar'})),
  });
  const manifest = json(types.manifest, {
    schemaVersion: 2,
    mediaType: types.manifest,
    config: descriptor(config),
    layers: layers.map(descriptor),
  });
  return {architecture, manifest, config, layers, diffIds};
}

const json = (mediaType: string, value: unknown): Content =>
  content(mediaType, Buffer.from(JSON.stringify(value)));

/** The image-spec's descriptor of a content. */
export const descriptor = ({mediaType, digest, bytes}: Content) => ({mediaType, digest, size: bytes.length});

/** A tar archive (POSIX ustar) of one readable file. */
function tar(path: string, bytes: Buffer): Buffer {
  const header = Buffer.alloc(512);
  header.write(path, 0);
  header.write('0000644\0', 100); // mode
  header.write('0000000\0', 108); // user
  header.write('0000000\0', 116); // group
  header.write(`${bytes.length.toString(8).padStart(11, '0')}\0`, 124);
  header.write('00000000000\0', 136); // modified at the epoch
  header.write('        0', 148); // the checksum counts itself as spaces; then the type of a regular file
  header.write('ustar\x0000', 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148);
  const padding = Buffer.alloc((512 - (bytes.length % 512)) % 512);
  return Buffer.concat([header, bytes, padding, Buffer.alloc(1024)]);
}

/** Everything below the index: what a registry keeps under `/blobs/` for this image. */
export const blobsOf = (image: Image): Content[] =>
  image.platforms.flatMap(({config, layers}) => [config, ...layers]);

/**
 * Pushes an image to the registry at `url`.
 * @param headers of each request
 * @throws Error naming the request that was refused.
 */
export async function pushImage(
  url: string,
  image: Image,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  for (const blob of blobsOf(image)) await pushBlob(url, image.repository, blob, headers);
  for (const {manifest} of image.platforms)
    await pushManifest(url, image.repository, manifest.digest, manifest, headers);
  await pushManifest(url, image.repository, image.tag, image.index, headers);
}

/** Pushes one blob: POST, then a closing PUT (dist-spec, "Pushing a blob monolithically"). */
export async function pushBlob(
  url: string,
  repository: string,
  blob: Content,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  const opened = await fetch(`${url}/v2/${repository}/blobs/uploads/`, {method: 'POST', headers});
  const location = opened.headers.get('location');
  if (opened.status !== 202 || !location) throw new Error(`${url} opened no upload: ${await said(opened)}`);
  const target = new URL(location, url);
  target.searchParams.set('digest', blob.digest);
  const closed = await fetch(target, {
    method: 'PUT',
    headers: {...headers, 'content-type': 'application/octet-stream'},
    body: new Uint8Array(blob.bytes),
  });
  if (closed.status !== 201) throw new Error(`${url} refused a blob: ${await said(closed)}`);
}

/** Pushes one manifest under a tag or its digest. */
export async function pushManifest(
  url: string,
  repository: string,
  reference: string,
  manifest: Content,
  headers: Readonly<Record<string, string>> = {},
): Promise<void> {
  const response = await fetch(`${url}/v2/${repository}/manifests/${reference}`, {
    method: 'PUT',
    headers: {...headers, 'content-type': manifest.mediaType},
    body: new Uint8Array(manifest.bytes),
  });
  if (response.status !== 201) throw new Error(`${url} refused a manifest: ${await said(response)}`);
}

const said = async (response: Response): Promise<string> =>
  `${response.status} ${(await response.text()).slice(0, 500)}`;
