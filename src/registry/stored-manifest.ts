import type {ManifestFacts} from '../oci/manifest.ts';
import {isGenericType, OCI_INDEX, OCI_MANIFEST} from '../oci/media-type.ts';
import type {Change} from '../storage/metadata.ts';
import {UpstreamFailure} from '../upstream/port.ts';

/** The media type that an upstream's header names; undefined where the header is missing or generic. */
export const claimedType = (header: string | undefined): string | undefined =>
  header === undefined || isGenericType(header) ? undefined : header;

/** What a header can carry. Type and subtype have at most 127 characters each (RFC 6838, section 4.2). */
const SENDABLE = /^[\x20-\x7e]{1,255}$/;

/**
 * The media type of a manifest: the one that its body names, else the one that the upstream's header claims, unless that
 * is generic. dist-spec, Pulling Manifests: where both name one, they must agree.
 * @throws UpstreamFailure when they do not, and for a type that no response header can carry
 */
export function manifestType(header: string | undefined, facts: ManifestFacts, host: string): string {
  const claimed = claimedType(header);
  if (claimed && facts.mediaType && claimed !== facts.mediaType.toLowerCase()) {
    throw new UpstreamFailure(
      'protocol',
      host,
      `answered with the content type ${claimed} for a manifest that calls itself ${facts.mediaType.slice(0, 255)}`,
    );
  }
  const mediaType = facts.mediaType ?? claimed ?? (facts.manifests.length > 0 ? OCI_INDEX : OCI_MANIFEST);
  if (SENDABLE.test(mediaType)) return mediaType;
  throw new UpstreamFailure(
    'protocol',
    host,
    'answered with a manifest whose media type no header can carry',
  );
}

type ManifestPut = Extract<Change, {type: 'manifest.put'}>;

/** The change that stores a manifest with everything that it refers to. */
export const manifestPut = ({
  facts,
  ...manifest
}: Omit<ManifestPut, 'type' | 'references'> & {facts: ManifestFacts}): ManifestPut => ({
  type: 'manifest.put',
  ...manifest,
  references: [
    ...facts.blobs.map(({digest, size}) => ({digest, size, kind: 'blob' as const})),
    ...facts.foreign.map(({digest, size}) => ({digest, size, kind: 'foreign' as const})),
    ...facts.manifests.map(({digest, size}) => ({digest, size, kind: 'manifest' as const})),
  ],
});
