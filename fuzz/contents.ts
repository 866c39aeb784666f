import {type Digest, digestOf} from '../src/oci/digest.ts';
import {OCI_INDEX, OCI_MANIFEST} from '../src/oci/media-type.ts';
import {fallbackTag} from '../src/oci/referrers.ts';

/** One image of the fuzzed upstream, the same in each run, with everything that can be asked for. */
export interface FuzzImage {
  /** The name of its repository. */
  name: string;
  manifest: FuzzContent;
  index: FuzzContent;
  referrer: FuzzContent;
  blob: FuzzContent;
}

export interface FuzzContent {
  bytes: Buffer;
  digest: Digest;
  mediaType: string;
}

const contentOf = (mediaType: string, bytes: Buffer): FuzzContent => ({
  bytes,
  digest: digestOf(bytes),
  mediaType,
});

const json = (mediaType: string, value: object): FuzzContent =>
  contentOf(mediaType, Buffer.from(JSON.stringify({schemaVersion: 2, mediaType, ...value})));

const descriptorOf = ({mediaType, digest, bytes}: FuzzContent) => ({mediaType, digest, size: bytes.length});

const CONFIG_TYPE = 'application/vnd.oci.image.config.v1+json';
const LAYER_TYPE = 'application/vnd.oci.image.layer.v1.tar';

/** @param number of the image; equal numbers give equal images */
export function fuzzImage(number: number): FuzzImage {
  const blob = contentOf(LAYER_TYPE, Buffer.from(`layer ${number} `.repeat(1 + (number % 400))));
  const config = contentOf(CONFIG_TYPE, blob.bytes);
  const manifest = json(OCI_MANIFEST, {config: descriptorOf(config), layers: [descriptorOf(blob)]});
  const index = json(OCI_INDEX, {manifests: [descriptorOf(manifest)]});
  const referrer = json(OCI_MANIFEST, {
    artifactType: 'application/vnd.example.sbom',
    config: descriptorOf(config),
    layers: [],
    subject: descriptorOf(manifest),
  });
  return {name: `r${number}/app`, manifest, index, referrer, blob};
}

/** The list of the referrers of the image's manifest. */
const listOf = ({referrer}: FuzzImage): FuzzContent =>
  json(OCI_INDEX, {
    manifests: [{...descriptorOf(referrer), artifactType: 'application/vnd.example.sbom'}],
  });

/** What the upstream has at a path below the repository's name: `manifests/1`, `blobs/sha256:…`. */
export function contentAt(image: FuzzImage, path: string): FuzzContent | undefined {
  const {manifest, index, referrer, blob} = image;
  const [kind, reference = ''] = path.split('/');
  if (kind === 'referrers') return reference === manifest.digest ? listOf(image) : undefined;
  if (kind === 'blobs') return reference === blob.digest ? blob : undefined;
  if (reference === '1') return index;
  if (reference === fallbackTag(manifest.digest)) return listOf(image);
  return [manifest, index, referrer].find(({digest}) => digest === reference);
}
