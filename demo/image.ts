import {createHash, randomBytes} from 'node:crypto';
import {gzipSync} from 'node:zlib';

export interface Blob {
  digest: string;
  bytes: Buffer;
}

export interface Manifest extends Blob {
  mediaType: string;
}

/** A multi-arch image with all of its parts. */
export interface Image {
  index: Manifest;
  platforms: {name: string; manifest: Manifest; blobs: Blob[]}[];
}

const OCI = 'application/vnd.oci.image';

const blobOf = (bytes: Buffer): Blob => ({
  bytes,
  digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
});

const manifestOf = (mediaType: string, body: object): Manifest => ({
  mediaType,
  ...blobOf(Buffer.from(JSON.stringify({schemaVersion: 2, mediaType, ...body}))),
});

const descriptor = ({digest, bytes}: Blob, mediaType: string) => ({mediaType, digest, size: bytes.length});

/** Two platforms, each with its own config and layer. */
export function makeImage(): Image {
  const platforms = ['amd64', 'arm64'].map((architecture) => {
    const layer = blobOf(gzipSync(randomBytes(256 * 1024)));
    const config = blobOf(
      Buffer.from(JSON.stringify({architecture, os: 'linux', rootfs: {type: 'layers', diff_ids: []}})),
    );
    const manifest = manifestOf(`${OCI}.manifest.v1+json`, {
      config: descriptor(config, `${OCI}.config.v1+json`),
      layers: [descriptor(layer, `${OCI}.layer.v1.tar+gzip`)],
    });
    return {name: `linux/${architecture}`, architecture, manifest, blobs: [config, layer]};
  });
  const index = manifestOf(`${OCI}.index.v1+json`, {
    manifests: platforms.map(({architecture, manifest}) => ({
      ...descriptor(manifest, manifest.mediaType),
      platform: {architecture, os: 'linux'},
    })),
  });
  return {index, platforms};
}
