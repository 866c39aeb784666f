import {type Content, content, descriptor, noise} from '../rig/image.ts';
import {createRandom} from './random.ts';

/** An image, or an artifact that refers to one. */
export interface Artifact {
  /** Below its registry: `app/3`. */
  repository: string;
  tag: string;
  manifest: Content;
  /** Of an index: its children. */
  children: readonly Content[];
  /** Configurations and layers, those of the children included. */
  blobs: readonly Content[];
  /** The digest of the manifest that it refers to. */
  subject: string | undefined;
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const CONFIG = 'application/vnd.oci.image.config.v1+json';
const LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip';
const EMPTY = content('application/vnd.oci.empty.v1+json', Buffer.from('{}'));

const json = (mediaType: string, value: unknown): Content =>
  content(mediaType, Buffer.from(JSON.stringify(value)));

/** Most layers are small and a few are large, as in published traces of registries. */
function layerSize(seed: string): number {
  const random = createRandom(`size of ${seed}`);
  return Math.floor(2 ** (random.chance(0.1) ? 19 + 2 * random.fraction() : 10 + 8 * random.fraction()));
}

function buildPlatform(seed: string, shared: string, architecture: string) {
  const layers = [shared, `${seed}/1`, `${seed}/2`].map((name) =>
    content(LAYER, noise(name, layerSize(name))),
  );
  const config = json(CONFIG, {
    architecture,
    os: 'linux',
    config: {Labels: {seed}},
    rootfs: {type: 'layers', diff_ids: layers.map(({digest}) => digest)},
  });
  const manifest = json(MANIFEST, {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: descriptor(config),
    layers: layers.map(descriptor),
  });
  return {architecture, manifest, blobs: [config, ...layers]};
}

/** An image whose bytes follow from its name. Images of one repository share their first layer. */
export function buildImage(repository: string, tag: string, platforms: 1 | 2): Artifact {
  const seed = `${repository}:${tag}`;
  const built = ['amd64', 'arm64']
    .slice(0, platforms)
    .map((architecture) => buildPlatform(`${seed}/${architecture}`, repository, architecture));
  const blobs = built.flatMap((platform) => platform.blobs);
  const [first] = built;
  if (platforms === 1 && first)
    return {repository, tag, manifest: first.manifest, children: [], blobs, subject: undefined};
  const manifest = json(INDEX, {
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: built.map((platform) => ({
      ...descriptor(platform.manifest),
      platform: {architecture: platform.architecture, os: 'linux'},
    })),
  });
  return {repository, tag, manifest, children: built.map((each) => each.manifest), blobs, subject: undefined};
}

/** An image to push: small, because nothing that was pushed is ever evicted. */
export function buildSmallImage(repository: string, tag: string, seed: string): Artifact {
  const layer = content(LAYER, noise(`${seed} layer`, 1 + (layerSize(seed) % 6_000)));
  const config = json(CONFIG, {
    architecture: 'amd64',
    os: 'linux',
    config: {Labels: {seed}},
    rootfs: {type: 'layers', diff_ids: [layer.digest]},
  });
  const manifest = json(MANIFEST, {
    schemaVersion: 2,
    mediaType: MANIFEST,
    config: descriptor(config),
    layers: [descriptor(layer)],
  });
  return {repository, tag, manifest, children: [], blobs: [config, layer], subject: undefined};
}

/** A referrer of an image, such as a signature or an SBOM. */
export function buildReferrer(image: Artifact, name: string): Artifact {
  const artifactType = `application/vnd.chaos.${name.split('-')[0]}`;
  const layer = content('application/octet-stream', noise(`${image.manifest.digest}/${name}`, 300));
  const manifest = json(MANIFEST, {
    schemaVersion: 2,
    mediaType: MANIFEST,
    artifactType,
    config: descriptor(EMPTY),
    layers: [descriptor(layer)],
    subject: descriptor(image.manifest),
  });
  const {repository} = image;
  const tag = `${name}-of-${image.tag}`;
  return {repository, tag, manifest, children: [], blobs: [EMPTY, layer], subject: image.manifest.digest};
}

/** The index under a fallback tag (distribution-spec, "Referrers Tag Schema"). */
export const fallbackIndex = (referrers: readonly Artifact[]): Content =>
  json(INDEX, {schemaVersion: 2, mediaType: INDEX, manifests: referrers.map(referrerDescriptor)});

/** The descriptor of a referrer in a list of referrers. */
export const referrerDescriptor = ({manifest}: Artifact) => ({
  ...descriptor(manifest),
  artifactType: String(JSON.parse(manifest.bytes.toString()).artifactType),
});

/** What one upstream has. */
export interface Catalog {
  images: readonly Artifact[];
  /** By the digest of their subject. */
  referrers: ReadonlyMap<string, readonly Artifact[]>;
}

/** Repositories of three images each; every second image has referrers, and every third is an index. */
export function buildCatalog(prefix: string, repositories: number): Catalog {
  const images = Array.from({length: repositories * 3}, (_, index) =>
    buildImage(`${prefix}/${Math.floor(index / 3)}`, `v${index % 3}`, index % 3 === 2 ? 2 : 1),
  );
  const signed = images.filter((_, index) => index % 2 === 0);
  const referrers = signed.map((image) => {
    const names = ['signature', 'sbom', 'signature-2'];
    return [image.manifest.digest, names.map((name) => buildReferrer(image, name))] as const;
  });
  return {images, referrers: new Map(referrers)};
}
