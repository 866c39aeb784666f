import type {ManifestFacts} from '../oci/manifest.ts';
import type {Change} from '../storage/metadata.ts';

type ManifestPut = Extract<Change, {type: 'manifest.put'}>;

/** The change that stores a manifest, with everything that it refers to. */
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
