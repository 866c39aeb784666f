import type {Caller} from '../../caller.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {type NamedReferrers, referrersNamedBy} from '../../oci/fallback-index.ts';
import {type Edge, edgeOf, fallbackTag, type SkippedReferrer} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {type ManifestBody, UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {ManifestPull} from '../pull/manifest.ts';

/** dist-spec, Referrers Tag Schema: what clients wrote where the registry has no Referrers API. */
export interface FallbackTags {
  /**
   * The referrers that the subject's tag names, each fetched and found to have this very subject: a tag is written by
   * anybody and lost in races, so its entries are hints and its descriptors are not believed.
   * @throws UpstreamFailure when the tag could not be asked for or is not a readable index, or when one of its entries
   * could not be asked for; NoRoom when there are so many that the first ones have to be kept before the others are
   * asked for, and cannot be
   */
  read(route: Route, subject: Digest, caller: Caller): Promise<Checked>;
  /** The same of what stands under the tag, whoever has it: its entries are here, and found by their edges, from then on. */
  check(route: Route, subject: Digest, body: FallbackTagBody, caller: Caller): Promise<Checked>;
  /**
   * When the upstream last confirmed the tag as a client pulled it through us, if everything that it names is here and
   * some of it refers to the subject; nobody is asked. An index of nothing proves nothing, so it is not given.
   * @returns milliseconds since the epoch
   */
  pulledAt(route: Route, subject: Digest): Promise<number | undefined>;
}

export interface Checked {
  readonly descriptors: readonly Descriptor[];
  /** Entries that the upstream refuses for good or that cannot be verified: with any, the list is not the whole one. */
  readonly skipped: readonly SkippedReferrer[];
  /** Resolves when the entries are in the metadata. @throws NoRoom */
  readonly kept: Promise<void>;
}

export type FallbackTagBody = Pick<ManifestBody, 'bytes' | 'mediaType'>;

/** Anybody who can push to a public registry can write a tag of any length: pulls keep their share of connections. */
const CONCURRENCY = 32;
const MAX_ENTRIES = 10_000;
/** Refused entries are asked for again each time, so a tag may not have many of them. */
const MAX_REFUSED = 100;

const NONE: NamedReferrers = {digests: [], skipped: []};

export function createFallbackTags({metadata, pull}: {metadata: Metadata; pull: ManifestPull}): FallbackTags {
  /** The edges of those that exist, in the order of the tag: whoever adds to it appends. */
  async function edgesOf(
    route: Route,
    digests: readonly Digest[],
    caller: Caller,
  ): Promise<{edges: Edge[]; refused: SkippedReferrer[]; kept: Promise<void>}> {
    const here = await Promise.all(digests.map((digest) => metadata.manifest(route.repository, digest)));
    const missing = digests.filter((_, index) => !here[index]);
    const {records, refused, kept} = await pull.byDigests(route, missing, caller, isLasting);
    const entries = new Map([...here, ...records].flatMap((entry) => (entry ? [[entry.digest, entry]] : [])));
    const edges = digests.flatMap((digest) => {
      const entry = entries.get(digest);
      return (entry && edgeOf(entry)) ?? [];
    });
    return {edges, refused: [...refused].map(([digest, {message}]) => ({digest, reason: message})), kept};
  }

  async function check(
    route: Route,
    subject: Digest,
    body: FallbackTagBody,
    caller: Caller,
  ): Promise<Checked> {
    const {digests, skipped} = namedBy(route, subject, body);
    const descriptors: Descriptor[] = [];
    const refused: SkippedReferrer[] = [];
    let last: Promise<void> = Promise.resolve();
    for (let at = 0; at < digests.length; at += CONCURRENCY) {
      await last;
      const some = await edgesOf(route, digests.slice(at, at + CONCURRENCY), caller);
      for (const edge of some.edges) if (edge.subject === subject) descriptors.push(edge.descriptor);
      refused.push(...some.refused);
      if (refused.length > MAX_REFUSED) throw tooManyRefused(route, subject);
      last = some.kept;
    }
    return {descriptors, skipped: [...skipped, ...refused], kept: last};
  }

  return {
    check,

    async read(route, subject, caller) {
      const {upstream} = route.registry;
      const body = await upstream.getManifest(route.repository.name, fallbackTag(subject), caller);
      if (body) return check(route, subject, body, caller);
      return {descriptors: [], skipped: [], kept: Promise.resolve()};
    },

    async pulledAt({repository}, subject) {
      const tag = await metadata.tag(repository, fallbackTag(subject));
      if (!tag || tag.origin === 'local' || tag.goneAt !== undefined) return undefined;
      const index = await metadata.manifest(repository, tag.digest);
      const named = index && referrersNamedBy(index.bytes, index.mediaType);
      if (!named || named.skipped.length > 0 || named.digests.length > MAX_ENTRIES) return undefined;
      let found = false;
      for (const digest of named.digests) {
        const entry = await metadata.manifest(repository, digest);
        if (!entry) return undefined;
        if (edgeOf(entry)?.subject === subject) found = true;
      }
      return found ? tag.checkedAt : undefined;
    },
  };
}

/**
 * What the tag names. The upstream's port has compared the bytes with their digest. What is not a readable index says
 * nothing about referrers: taken for an empty list, it would hide every signature.
 * @throws UpstreamFailure
 */
function namedBy(
  {registry: {upstream}}: Route,
  subject: Digest,
  {bytes, mediaType}: FallbackTagBody,
): NamedReferrers {
  const fault = (reason: string) => new UpstreamFailure('protocol', upstream.host, reason);
  const tag = fallbackTag(subject);
  // GitLab resolves the tag to the subject itself, and so says nothing of a list.
  if (digestOf(bytes, algorithmOf(subject)) === subject) return NONE;
  const named = referrersNamedBy(bytes, mediaType);
  if (!named) {
    const what = `${mediaType ?? 'content without a type'} that does not read as an index`;
    throw fault(`answered for the tag ${tag}, which lists referrers, with ${what}`);
  }
  const digests = named.digests.filter((each) => each !== subject);
  if (digests.length > MAX_ENTRIES) {
    throw fault(
      `names ${digests.length} referrers by the tag of ${subject}; at most ${MAX_ENTRIES} are read`,
    );
  }
  return {...named, digests};
}

const tooManyRefused = ({registry: {upstream}}: Route, subject: Digest): UpstreamFailure =>
  new UpstreamFailure(
    'protocol',
    upstream.host,
    `refuses more than ${MAX_REFUSED} of the referrers that it names by the tag of ${subject}`,
  );

/** Statuses of 4xx that pass with time. */
const PASSING = new Set([408, 425, 429]);

/**
 * Asking for this manifest again would bring the same: its upstream refuses it, or answers with something else. What
 * fails for a moment (429, 5xx, a time-out, a broken connection) is not of that kind.
 */
function isLasting(error: unknown): error is UpstreamFailure {
  if (!(error instanceof UpstreamFailure)) return false;
  const {kind, status = 0} = error;
  if (kind === 'status') return status >= 400 && status < 500 && !PASSING.has(status);
  return kind === 'denied' || kind === 'protocol';
}
