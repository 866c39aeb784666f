import {type Content, content, descriptor, noise, pushBlob, pushManifest} from '../rig/image.ts';

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

export const manifestPath = ({repository}: ServedArtifact, reference: string): string =>
  `/v2/${repository}/manifests/${reference}`;
export const blobPath = ({repository}: ServedArtifact, digest: string): string =>
  `/v2/${repository}/blobs/${digest}`;
