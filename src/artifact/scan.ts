import type {Descriptor} from '../oci/descriptor.ts';
import type {Digest} from '../oci/digest.ts';
import {edgeOf} from '../oci/referrers.ts';
import type {TargetManifest} from './target.ts';

/** Finds what refers to a subject among manifests, in their order, each once: an index made from nothing but them. */
export async function scanFor(
  subject: Digest,
  manifests: AsyncIterable<TargetManifest>,
): Promise<Descriptor[]> {
  const found = new Map<Digest, Descriptor>();
  for await (const manifest of manifests) {
    const edge = edgeOf(manifest);
    if (edge?.subject === subject && !found.has(manifest.digest)) found.set(manifest.digest, edge.descriptor);
  }
  return [...found.values()];
}
