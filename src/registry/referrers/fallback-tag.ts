import type {Caller} from '../../caller.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import {type Digest, digestOf} from '../../oci/digest.ts';
import {readManifest} from '../../oci/manifest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {edgeOf, fallbackTag} from '../../oci/referrers.ts';
import type {ManifestRecord, Metadata} from '../../storage/metadata.ts';
import type {ManifestBody} from '../../upstream/port.ts';
import type {ManifestPull} from '../manifest-pull.ts';
import type {Route} from '../namespace.ts';

/** dist-spec, Referrers Tag Schema: what clients wrote where the registry has no Referrers API. */
export interface FallbackTags {
  /**
   * The referrers that the subject's tag names, each fetched and found to have this very subject: a tag is written by
   * anybody and lost in races, so its entries are hints and its descriptors are not believed.
   * @throws UpstreamFailure when the tag, or one of its entries, could not be asked for
   */
  read(route: Route, subject: Digest, caller: Caller): Promise<Descriptor[]>;
}

export function createFallbackTags({metadata, pull}: {metadata: Metadata; pull: ManifestPull}): FallbackTags {
  async function fetchEntry(
    route: Route,
    digest: Digest,
    caller: Caller,
  ): Promise<ManifestRecord | undefined> {
    const here = await metadata.manifest(route.repository, digest);
    return here ?? (await pull.byDigest(route, digest, caller)).value;
  }

  return {
    async read(route, subject, caller) {
      const {upstream} = route.registry;
      const body = await upstream.getManifest(route.repository.name, fallbackTag(subject), caller);
      if (!body) return [];
      const digests = entriesOf(body, subject);
      const entries = await Promise.all(digests.map((digest) => fetchEntry(route, digest, caller)));
      return entries
        .map((entry) => entry && edgeOf(entry))
        .filter((edge) => edge?.subject === subject)
        .map((edge) => edge?.descriptor)
        .filter((descriptor) => descriptor !== undefined);
    },
  };
}

/** GitLab resolves the tag to the subject itself, and anything else that is no index names no referrers either. */
function entriesOf({bytes, mediaType}: ManifestBody, subject: Digest): Digest[] {
  const facts = readManifest(bytes);
  const isIndex = (facts.mediaType ?? mediaType) === OCI_INDEX;
  if (!isIndex || digestOf(bytes) === subject) return [];
  return [...new Set(facts.manifests.map(({digest}) => digest))].filter((digest) => digest !== subject);
}
