import type {Caller} from '../../caller.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import {algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {type NamedReferrers, referrersNamedBy} from '../../oci/fallback-index.ts';
import {type EdgeSource, edgeOf, fallbackTag, type SkippedReferrer} from '../../oci/referrers.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {type ManifestBody, UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {ManifestPull} from '../pull/manifest.ts';

/** What a fallback tag points to. */
export type TagContent = Pick<ManifestBody, 'bytes' | 'mediaType'>;

/** The referrers that a fallback tag names, verified. */
export interface TagReferrers {
  /** In the order of the tag, to which writers append. */
  readonly descriptors: readonly Descriptor[];
  /** Entries that cannot be verified, or that the upstream refuses for good. If there are any, the list is incomplete. */
  readonly skipped: readonly SkippedReferrer[];
  /** Resolves when the entries are in the metadata. @throws DiskFull */
  readonly kept: Promise<void>;
}

/** Where the entries of a fallback tag are fetched from: an upstream, or a target of the library. */
export interface EntrySource {
  fetch(digests: readonly Digest[]): Promise<FetchedEntries>;
  /** The error for a tag that cannot be read. @param reason a sentence about the tag */
  unreadable(reason: string): Error;
}

export interface FetchedEntries {
  /** Those that exist, in the order of the digests. */
  readonly manifests: readonly EdgeSource[];
  readonly refused: readonly SkippedReferrer[];
  /** As of `TagReferrers`. */
  readonly kept: Promise<void>;
}

/** Anybody who can push to a public registry can write a tag of any length: other pulls keep their share of connections. */
const BATCH = 32;
const MAX_ENTRIES = 10_000;
/** Refused entries are asked for again each time, so a tag may not have many of them. */
const MAX_REFUSED = 100;

/**
 * Fetches the manifests that a fallback tag names, and keeps those that refer to this very subject. Anybody can write
 * the tag, and entries get lost in races: so its entries are hints, and its descriptors are not trusted (dist-spec,
 * Referrers Tag Schema).
 * @throws what `source` makes of a tag that is not a readable index, or has too many entries; and what it throws itself
 */
export async function verifyEntries(
  subject: Digest,
  content: TagContent,
  source: EntrySource,
): Promise<TagReferrers> {
  const {digests, skipped} = namedBy(subject, content, source);
  const descriptors: Descriptor[] = [];
  const refused: SkippedReferrer[] = [];
  let kept: Promise<void> = Promise.resolve();
  for (let at = 0; at < digests.length; at += BATCH) {
    await kept;
    const batch = await source.fetch(digests.slice(at, at + BATCH));
    for (const manifest of batch.manifests) {
      const edge = edgeOf(manifest);
      if (edge?.subject === subject) descriptors.push(edge.descriptor);
    }
    refused.push(...batch.refused);
    if (refused.length > MAX_REFUSED) {
      const tag = fallbackTag(subject);
      throw source.unreadable(
        `more than ${MAX_REFUSED} of the referrers that the tag ${tag} names are refused`,
      );
    }
    kept = batch.kept;
  }
  return {descriptors, skipped: [...skipped, ...refused], kept};
}

const NONE: NamedReferrers = {digests: [], skipped: []};

/** @throws for content that is not a readable index: if it counted as an empty list, it would hide every signature */
function namedBy(subject: Digest, {bytes, mediaType}: TagContent, source: EntrySource): NamedReferrers {
  // GitLab resolves the tag to the subject itself, which says nothing about a list.
  if (digestOf(bytes, algorithmOf(subject)) === subject) return NONE;
  const tag = fallbackTag(subject);
  const named = referrersNamedBy(bytes, mediaType);
  if (!named) {
    throw source.unreadable(
      `the tag ${tag}, which would list referrers, is not a readable index: its type is "${mediaType ?? ''}"`,
    );
  }
  const digests = named.digests.filter((digest) => digest !== subject);
  if (digests.length > MAX_ENTRIES) {
    throw source.unreadable(
      `the tag ${tag} names ${digests.length} referrers; at most ${MAX_ENTRIES} are read`,
    );
  }
  return {...named, digests};
}

/** The fallback tags of upstreams: what clients wrote where the registry has no Referrers API. */
export interface FallbackTags {
  /**
   * The referrers that the subject's tag names at the upstream.
   * @throws UpstreamFailure when the tag could not be asked for or is not a readable index, or when one of its entries
   * could not be asked for; DiskFull when there are so many that the first ones have to be stored before the others are
   * asked for, and cannot be
   */
  read(route: Route, subject: Digest, caller: Caller): Promise<TagReferrers>;
  /** The same for content that is already here. From then on, its entries are found by their own subjects. */
  verify(route: Route, subject: Digest, content: TagContent, caller: Caller): Promise<TagReferrers>;
  /**
   * When the upstream last confirmed the tag for a client that pulled it through us, if all of its entries are stored
   * here and at least one of them refers to the subject: an index without any does not prove anything. Asks nobody.
   * @returns milliseconds since the epoch
   */
  pulledAt(route: Route, subject: Digest): Promise<number | undefined>;
}

export interface FallbackTagsParts {
  metadata: Metadata;
  pull: ManifestPull;
}

export const createFallbackTags = (parts: FallbackTagsParts): FallbackTags => new UpstreamFallbackTags(parts);

class UpstreamFallbackTags implements FallbackTags {
  readonly #metadata: Metadata;
  readonly #pull: ManifestPull;

  constructor({metadata, pull}: FallbackTagsParts) {
    this.#metadata = metadata;
    this.#pull = pull;
  }

  async read(route: Route, subject: Digest, caller: Caller): Promise<TagReferrers> {
    const {upstream} = route.registry;
    const content = await upstream.getManifest(route.repository.name, fallbackTag(subject), caller);
    if (content) return this.verify(route, subject, content, caller);
    return {descriptors: [], skipped: [], kept: Promise.resolve()};
  }

  verify(route: Route, subject: Digest, content: TagContent, caller: Caller): Promise<TagReferrers> {
    return verifyEntries(subject, content, {
      fetch: (digests) => this.#fetch(route, digests, caller),
      unreadable: (reason) => new UpstreamFailure('protocol', route.registry.upstream.host, reason),
    });
  }

  async pulledAt({repository}: Route, subject: Digest): Promise<number | undefined> {
    const tag = await this.#metadata.tag(repository, fallbackTag(subject));
    if (!tag || tag.origin === 'local' || tag.goneAt !== undefined) return undefined;
    const index = await this.#metadata.manifest(repository, tag.digest);
    const named = index && referrersNamedBy(index.bytes, index.mediaType);
    if (!named || named.skipped.length > 0 || named.digests.length > MAX_ENTRIES) return undefined;
    let found = false;
    for (const digest of named.digests) {
      const entry = await this.#metadata.manifest(repository, digest);
      if (!entry) return undefined;
      if (edgeOf(entry)?.subject === subject) found = true;
    }
    return found ? tag.checkedAt : undefined;
  }

  /** From the metadata, otherwise from the upstream. */
  async #fetch(route: Route, digests: readonly Digest[], caller: Caller): Promise<FetchedEntries> {
    const stored = await Promise.all(
      digests.map((digest) => this.#metadata.manifest(route.repository, digest)),
    );
    const missing = digests.filter((_, index) => !stored[index]);
    const {records, refused, kept} = await this.#pull.byDigests(route, missing, caller, isLasting);
    const found = new Map([...stored, ...records].flatMap((entry) => (entry ? [[entry.digest, entry]] : [])));
    return {
      manifests: digests.flatMap((digest) => found.get(digest) ?? []),
      refused: [...refused].map(([digest, {message}]) => ({digest, reason: message})),
      kept,
    };
  }
}

/** The 4xx statuses that go away with time. */
const PASSING = new Set([408, 425, 429]);

/**
 * Whether asking for the same manifest again would bring the same failure: the upstream refuses it, or answers with
 * something else. Failures that pass (429, 5xx, a timeout, a broken connection) do not count.
 */
function isLasting(error: unknown): error is UpstreamFailure {
  if (!(error instanceof UpstreamFailure)) return false;
  const {kind, status = 0} = error;
  if (kind === 'status') return status >= 400 && status < 500 && !PASSING.has(status);
  return kind === 'denied' || kind === 'protocol';
}
