export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json';
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json';
/** From the release candidates of OCI 1.1; registries still have such manifests. */
export const OCI_ARTIFACT_MANIFEST = 'application/vnd.oci.artifact.manifest.v1+json';
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json';
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json';

/**
 * What every manifest request to an upstream accepts. Always the same: distribution rewrites a list to one platform for
 * clients that do not accept lists, so a varying header would let HEAD and GET name different digests.
 */
export const MANIFEST_ACCEPT = [
  OCI_INDEX,
  OCI_MANIFEST,
  OCI_ARTIFACT_MANIFEST,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  '*/*;q=0.1',
].join(', ');

const NAME = '[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}';
const MEDIA_TYPE = new RegExp(`^${NAME}/${NAME}$`);

/** True for a type and subtype as RFC 6838, section 4.2, defines them, without parameters. A header can carry them. */
export const isMediaType = (text: string): boolean => MEDIA_TYPE.test(text);

/** A `Content-Type` without its parameters, lower case; undefined when there is none. */
export function bareMediaType(contentType: string | undefined): string | undefined {
  const bare = contentType?.split(';', 1)[0]?.trim().toLowerCase();
  return bare === '' ? undefined : bare;
}

/** Content types that servers send when they do not know what they serve. */
const GENERIC = new Set([
  'application/json',
  'application/octet-stream',
  'text/plain',
  'binary/octet-stream',
]);

/** True for a content type, bare and lower case, that says nothing about the content. */
export const isGenericType = (mediaType: string): boolean => GENERIC.has(mediaType);

/** Layers that may not be redistributed: fetched from elsewhere, absent from registries (image-spec, Layer). */
export const isForeignLayer = (mediaType: string): boolean =>
  /\.(?:foreign|nondistributable)\./.test(mediaType);
