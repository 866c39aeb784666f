import {createHash} from 'node:crypto';
import {OCI_INDEX, OCI_MANIFEST} from '../src/oci/media-type.ts';

export interface SoakContent {
  mediaType: string;
  digest: string;
  bytes: Buffer;
}

/** An image that follows from its number: an index, its manifest with blobs, and one referrer. */
export interface SoakImage {
  repository: string;
  index: SoakContent;
  manifest: SoakContent;
  referrer: SoakContent;
  /** The config first. */
  blobs: readonly SoakContent[];
}

/** Bytes of the layers. Most layers are small, some are larger than what is held in memory. */
const LAYER_SIZES = [2_000, 60_000, 700_000] as const;

/** Content that begins with what makes it different from all others. */
function filled(mediaType: string, name: string, size: number): SoakContent {
  const bytes = Buffer.alloc(size, createHash('sha256').update(name).digest());
  return contentOf(mediaType, bytes);
}

const contentOf = (mediaType: string, bytes: Buffer): SoakContent => ({
  mediaType,
  digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}`,
  bytes,
});

const jsonOf = (mediaType: string, value: object): SoakContent =>
  contentOf(mediaType, Buffer.from(JSON.stringify({schemaVersion: 2, mediaType, ...value})));

export const descriptorOf = ({mediaType, digest, bytes}: SoakContent) => ({
  mediaType,
  digest,
  size: bytes.length,
});

const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';
export const ARTIFACT_TYPE = 'application/vnd.example.sbom';

/** @param name makes its content differ from that of all others; also the path of its repository */
export function imageOf(name: string): SoakImage {
  const config = filled(CONFIG_TYPE, `config ${name}`, 900);
  const layers = LAYER_SIZES.map((size, layer) => filled(LAYER_TYPE, `layer ${layer} of ${name}`, size));
  const manifest = jsonOf(OCI_MANIFEST, {config: descriptorOf(config), layers: layers.map(descriptorOf)});
  const index = jsonOf(OCI_INDEX, {
    manifests: [{...descriptorOf(manifest), platform: {os: 'linux', architecture: 'amd64'}}],
  });
  const referrer = jsonOf(OCI_MANIFEST, {
    artifactType: ARTIFACT_TYPE,
    config: descriptorOf(config),
    layers: [],
    subject: descriptorOf(index),
  });
  return {repository: name, index, manifest, referrer, blobs: [config, ...layers]};
}
