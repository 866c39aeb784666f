import type {Caller} from '../../caller.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import {type Digest, digestOf} from '../../oci/digest.ts';
import {readManifest} from '../../oci/manifest.ts';
import {OCI_INDEX} from '../../oci/media-type.ts';
import {type Edge, edgeOf, fallbackTag} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {type ManifestBody, UpstreamFailure} from '../../upstream/port.ts';
import type {ManifestPull} from '../manifest-pull.ts';
import type {Route} from '../namespace.ts';

/** dist-spec, Referrers Tag Schema: what clients wrote where the registry has no Referrers API. */
export interface FallbackTags {
  /**
   * The referrers that the subject's tag names, each fetched and found to have this very subject: a tag is written by
   * anybody and lost in races, so its entries are hints and its descriptors are not believed.
   * @throws UpstreamFailure when the tag, or one of its entries, could not be asked for; NoRoom when there are so many
   * that the first ones have to be kept before the others are asked for, and cannot be
   */
  read(route: Route, subject: Digest, caller: Caller): Promise<Checked>;
  /** The same of what stands under the tag, whoever has it: its entries are here, and found by their edges, from then on. */
  check(route: Route, subject: Digest, body: FallbackTagBody, caller: Caller): Promise<Checked>;
}

export interface Checked {
  readonly descriptors: readonly Descriptor[];
  /** Resolves when the entries are in the metadata. @throws NoRoom */
  readonly kept: Promise<void>;
}

export type FallbackTagBody = Pick<ManifestBody, 'bytes' | 'mediaType'>;

/** Anybody who can push to a public registry can write a tag of any length: pulls keep their share of connections. */
const AT_ONCE = 32;
const MOST_ENTRIES = 10_000;

export function createFallbackTags({metadata, pull}: {metadata: Metadata; pull: ManifestPull}): FallbackTags {
  /** The edges of those that exist, in the order of the tag: whoever adds to it appends. */
  async function edgesOf(
    route: Route,
    digests: readonly Digest[],
    caller: Caller,
  ): Promise<{edges: Edge[]; kept: Promise<void>}> {
    const here = await Promise.all(digests.map((digest) => metadata.manifest(route.repository, digest)));
    const missing = digests.filter((_, index) => !here[index]);
    const {records, kept} = await pull.byDigests(route, missing, caller);
    const entries = new Map([...here, ...records].flatMap((entry) => (entry ? [[entry.digest, entry]] : [])));
    const edges = digests.flatMap((digest) => {
      const entry = entries.get(digest);
      return (entry && edgeOf(entry)) ?? [];
    });
    return {edges, kept};
  }

  async function check(
    route: Route,
    subject: Digest,
    body: FallbackTagBody,
    caller: Caller,
  ): Promise<Checked> {
    const digests = entriesOf(body, subject);
    if (digests.length > MOST_ENTRIES) {
      const reason = `names ${digests.length} referrers by the tag of ${subject}; at most ${MOST_ENTRIES} are read`;
      throw new UpstreamFailure('protocol', route.registry.upstream.host, reason);
    }
    const descriptors: Descriptor[] = [];
    let last: Promise<void> = Promise.resolve();
    for (let at = 0; at < digests.length; at += AT_ONCE) {
      await last;
      const {edges, kept} = await edgesOf(route, digests.slice(at, at + AT_ONCE), caller);
      for (const edge of edges) if (edge.subject === subject) descriptors.push(edge.descriptor);
      last = kept;
    }
    return {descriptors, kept: last};
  }

  return {
    check,

    async read(route, subject, caller) {
      const {upstream} = route.registry;
      const body = await upstream.getManifest(route.repository.name, fallbackTag(subject), caller);
      return body ? check(route, subject, body, caller) : {descriptors: [], kept: Promise.resolve()};
    },
  };
}

/** GitLab resolves the tag to the subject itself, and anything else that is no index names no referrers either. */
function entriesOf({bytes, mediaType}: FallbackTagBody, subject: Digest): Digest[] {
  const facts = readManifest(bytes);
  const isIndex = (facts.mediaType ?? mediaType) === OCI_INDEX;
  if (!isIndex || digestOf(bytes) === subject) return [];
  return [...new Set(facts.manifests.map(({digest}) => digest))].filter((digest) => digest !== subject);
}
