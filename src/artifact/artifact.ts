import {type BlobSource, blobOf} from '../oci/blob.ts';
import {type Descriptor, readDescriptor} from '../oci/descriptor.ts';
import {isMediaType, OCI_MANIFEST} from '../oci/media-type.ts';
import {ArtifactError} from './target.ts';

/** An OCI image manifest without its `subject`. Its blobs are given separately, or are in the target already. */
export interface ArtifactManifest {
  mediaType?: string;
  artifactType?: string;
  config: Descriptor;
  layers: readonly Descriptor[];
  annotations?: Readonly<Record<string, string>>;
}

/** A piece of data, for which a manifest is made. */
export interface ArtifactData {
  mediaType: string;
  data: Uint8Array;
  /** Default: the media type of the data. */
  artifactType?: string;
  /** Annotations of the manifest. */
  annotations?: Readonly<Record<string, string>>;
}

export type Artifact = ArtifactManifest | ArtifactData;

/** A manifest that can be pushed after its blobs. */
export interface ComposedArtifact {
  mediaType: string;
  bytes: Buffer;
  blobs: BlobSource[];
}

/** The config of a manifest that does not need one (image-spec, "Guidance for an Empty Descriptor"). */
const EMPTY_CONFIG = 'application/vnd.oci.empty.v1+json';
const EMPTY_BLOB = blobOf(Buffer.from('{}'));

const isData = (artifact: Artifact): artifact is ArtifactData => 'data' in artifact;

/** The manifest of an artifact that has these layers, and no config of its own. */
export function manifestOfLayers(
  layers: readonly Descriptor[],
  artifactType: string,
  annotations?: Readonly<Record<string, string>>,
): ArtifactManifest {
  const {digest, size} = EMPTY_BLOB;
  return {
    artifactType,
    config: {mediaType: EMPTY_CONFIG, digest, size},
    layers,
    ...(annotations ? {annotations} : {}),
  };
}

function manifestOfData(
  {mediaType, artifactType, annotations}: ArtifactData,
  layer: BlobSource,
): ArtifactManifest {
  const {digest, size} = layer;
  return manifestOfLayers([{mediaType, digest, size}], artifactType || mediaType, annotations);
}

/** @throws ArtifactError that says what is wrong with the manifest */
function check({mediaType, artifactType, config, layers}: ArtifactManifest): void {
  if (mediaType !== undefined && mediaType !== OCI_MANIFEST) {
    throw new ArtifactError(`An artifact must be an image manifest (${OCI_MANIFEST}), not "${mediaType}".`);
  }
  if (!readDescriptor(config)?.mediaType) {
    throw new ArtifactError(
      'The property "config" of the artifact must be a descriptor: mediaType, digest, size.',
    );
  }
  if (!Array.isArray(layers) || !layers.every((layer) => readDescriptor(layer)?.mediaType)) {
    throw new ArtifactError(
      'The property "layers" of the artifact must be a list of descriptors: mediaType, digest, size.',
    );
  }
  // image-spec, "Image Manifest": artifactType MUST be set when config.mediaType is the empty value.
  if (config.mediaType === EMPTY_CONFIG && !artifactType) {
    throw new ArtifactError(`An artifact whose config is ${EMPTY_CONFIG} needs an "artifactType".`);
  }
  if (artifactType) checkType('artifactType', artifactType);
  checkType('config.mediaType', config.mediaType);
  for (const [index, layer] of layers.entries()) checkType(`layers[${index}].mediaType`, layer.mediaType);
}

/** image-spec, "Image Manifest" and "Content Descriptors": both properties MUST comply with RFC 6838. */
function checkType(property: string, value: string): void {
  if (isMediaType(value)) return;
  throw new ArtifactError(
    `The property "${property}" of the artifact is "${String(value).slice(0, 80)}", which is not a media type: write type/subtype, such as application/spdx+json.`,
  );
}

/** @throws ArtifactError */
function checkData({mediaType, artifactType}: ArtifactData): void {
  checkType('mediaType', mediaType);
  if (artifactType) checkType('artifactType', artifactType);
}

/**
 * Makes the manifest that attaches an artifact to its subject (image-spec, "Image Manifest", property `subject`).
 * @param blobs the blobs of a manifest that are to be pushed with it
 * @throws ArtifactError when the artifact is not valid
 */
export function compose(
  artifact: Artifact,
  subject: {mediaType: string; digest: string; size: number},
  blobs: readonly BlobSource[],
): ComposedArtifact {
  if (isData(artifact)) checkData(artifact);
  const data = isData(artifact) ? blobOf(artifact.data) : undefined;
  const manifest = isData(artifact) && data ? manifestOfData(artifact, data) : (artifact as ArtifactManifest);
  check(manifest);
  const {mediaType, digest, size} = subject;
  const {artifactType, config, layers, annotations, ...others} = manifest;
  const body = {
    ...others,
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    ...(artifactType ? {artifactType} : {}),
    config,
    layers,
    subject: {mediaType, digest, size},
    ...(annotations ? {annotations} : {}),
  };
  return {
    mediaType: OCI_MANIFEST,
    bytes: Buffer.from(JSON.stringify(body)),
    blobs: [
      ...(config.mediaType === EMPTY_CONFIG && config.digest === EMPTY_BLOB.digest ? [EMPTY_BLOB] : []),
      ...(data ? [data] : []),
      ...blobs,
    ],
  };
}
