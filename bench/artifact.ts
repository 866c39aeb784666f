import {type Content, content, descriptor, noise, pushBlob, pushManifest} from '../rig/image.ts';
import {OCI_INDEX} from '../src/oci/media-type.ts';
import {fallbackTag} from '../src/oci/referrers.ts';

/** A manifest and its blobs, which the servers serve. */
export interface ServedArtifact {
  repository: string;
  tag: string;
  manifest: Content;
  blobs: Content[];
}

const MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
const EMPTY = content('application/vnd.oci.empty.v1+json', Buffer.from('{}'));

/** An artifact whose layers are noise of these sizes in bytes, the same bytes for the same tag and sizes. */
export function buildArtifact(repository: string, tag: string, sizes: readonly number[]): ServedArtifact {
  const blobs = sizes.map((size, number) =>
    content('application/octet-stream', noise(`${repository}:${tag}#${number}`, size)),
  );
  const manifest = {
    schemaVersion: 2,
    mediaType: MANIFEST,
    artifactType: 'application/vnd.example.bench',
    config: descriptor(EMPTY),
    layers: blobs.map(descriptor),
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  return {repository, tag, manifest: content(MANIFEST, bytes), blobs: [EMPTY, ...blobs]};
}

/** The blobs of an artifact, without the empty configuration. */
export const layersOf = ({blobs}: ServedArtifact): Content[] => blobs.slice(1);

export async function pushArtifact(url: string, artifact: ServedArtifact): Promise<void> {
  for (const blob of artifact.blobs) await pushBlob(url, artifact.repository, blob);
  await pushManifest(url, artifact.repository, artifact.tag, artifact.manifest);
}

/** Pushes manifests that refer to a pushed artifact, and the fallback tag that lists them. */
export async function pushReferrers(
  url: string,
  {repository, manifest}: ServedArtifact,
  count: number,
): Promise<void> {
  const artifactType = 'application/vnd.example.bench.referrer';
  const listed: object[] = [];
  for (let number = 0; number < count; number++) {
    const annotations = {'org.example.number': `${number}`};
    const body = {
      schemaVersion: 2,
      mediaType: MANIFEST,
      artifactType,
      config: descriptor(EMPTY),
      layers: [descriptor(EMPTY)],
      subject: descriptor(manifest),
      annotations,
    };
    const referrer = content(MANIFEST, Buffer.from(JSON.stringify(body)));
    await pushManifest(url, repository, referrer.digest, referrer);
    listed.push({...descriptor(referrer), artifactType, annotations});
  }
  const index = {schemaVersion: 2, mediaType: OCI_INDEX, manifests: listed};
  const tag = fallbackTag(manifest.digest);
  await pushManifest(url, repository, tag, content(OCI_INDEX, Buffer.from(JSON.stringify(index))));
}

export const referrersPath = ({repository, manifest}: ServedArtifact): string =>
  `/v2/${repository}/referrers/${manifest.digest}`;

export const manifestPath = ({repository}: ServedArtifact, reference: string): string =>
  `/v2/${repository}/manifests/${reference}`;
export const blobPath = ({repository}: ServedArtifact, digest: string): string =>
  `/v2/${repository}/blobs/${digest}`;
