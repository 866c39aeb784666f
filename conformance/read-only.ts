import {
  buildImage,
  type Content,
  content,
  descriptor,
  pushBlob,
  pushImage,
  pushManifest,
} from '../rig/image.ts';

const REPOSITORY = 'conformance/repo1';
const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const INDEX = 'application/vnd.oci.image.index.v1+json';
const EMPTY = content('application/vnd.oci.empty.v1+json', Buffer.from('{}'));

/** The content of the suite's first repository, in the form of its `roData` setting. */
export interface ReadOnlyData {
  tags: string[];
  manifests: string[];
  blobs: string[];
  /** Subjects whose referrers the suite lists. */
  referrers: string[];
}

/**
 * Puts images of both kinds and an attachment into a registry without the Referrers API, at `http://host:port`.
 * @returns all of it, in the suite's form.
 */
export async function preload(url: string): Promise<ReadOnlyData> {
  const images = [buildImage(REPOSITORY, 'oci', 'oci'), buildImage(REPOSITORY, 'docker', 'docker')];
  const data: ReadOnlyData = {tags: [], manifests: [], blobs: [], referrers: []};
  for (const image of images) {
    await pushImage(url, image);
    data.tags.push(image.tag);
    data.manifests.push(image.index.digest);
    for (const {manifest, config, layers} of image.platforms) {
      data.manifests.push(manifest.digest);
      data.blobs.push(config.digest, ...layers.map(({digest}) => digest));
    }
    const attachment = await attach(url, image.index);
    data.manifests.push(attachment.digest);
    data.referrers.push(image.index.digest);
  }
  data.blobs.push(EMPTY.digest);
  return data;
}

/** Attaches an artifact, and lists it under the fallback tag (dist-spec, "Referrers Tag Schema"). */
async function attach(url: string, subject: Content): Promise<Content> {
  const artifactType = 'application/vnd.example.conformance';
  const manifest = json(MANIFEST, {
    schemaVersion: 2,
    mediaType: MANIFEST,
    artifactType,
    config: descriptor(EMPTY),
    layers: [descriptor(EMPTY)],
    subject: descriptor(subject),
  });
  const index = json(INDEX, {
    schemaVersion: 2,
    mediaType: INDEX,
    manifests: [{...descriptor(manifest), artifactType}],
  });
  await pushBlob(url, REPOSITORY, EMPTY);
  await pushManifest(url, REPOSITORY, manifest.digest, manifest);
  await pushManifest(url, REPOSITORY, subject.digest.replace(':', '-'), index);
  return manifest;
}

const json = (mediaType: string, value: unknown): Content =>
  content(mediaType, Buffer.from(JSON.stringify(value)));
