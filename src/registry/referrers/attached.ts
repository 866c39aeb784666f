import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Descriptor} from '../../oci/descriptor.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {type ManifestFacts, readManifest} from '../../oci/manifest.ts';
import type {Tag} from '../../oci/name.ts';
import {attachedTags, isAttestation} from '../../oci/referrers.ts';
import {fullReference, type ManifestRecord, type Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import {manifestAbsence, type NegativeCache} from '../negative-cache.ts';
import {keptIn, type ManifestPull} from '../pull/manifest.ts';
import type {Tags} from '../tags/tags.ts';
import type {ReferrerLists} from './lists.ts';

/** Ends a run: looked at before each request. */
export type Stop = Pick<AbortSignal, 'aborted'>;

/** An image that was pulled: an index or the manifest of one platform. */
export interface PulledImage {
  readonly route: Route;
  readonly record: Pick<ManifestRecord, 'digest' | 'bytes'>;
  readonly caller: Caller;
  /** The platforms of an index that count; undefined: all. */
  readonly entries?: ReadonlySet<Digest> | undefined;
}

/**
 * Fetches what verifying an image needs besides the image, as far as it is not here. What the upstream does not have, or
 * refuses, is left out.
 *
 * Everything that gives manifests throws UpstreamFailure, or OciError UNAVAILABLE, when the upstream cannot be asked, and
 * DiskFull when an answer cannot be kept. An aborted signal ends it without an error.
 */
export interface AttachedManifests {
  /** The attestations inside an index, then the referrers of the image and of its platforms, and of these referrers. */
  referring(image: PulledImage, signal: Stop): AsyncGenerator<ManifestRecord, void>;
  /** What cosign attached to the image and to its platforms by tags. */
  tagged(image: PulledImage, signal: Stop): AsyncGenerator<ManifestRecord, void>;
  /** The manifests that an index names: those of a fallback tag. */
  entries(index: PulledImage, signal: Stop): AsyncGenerator<ManifestRecord, void>;
  /** True while this manifest is being fetched here: it is attached, so nothing that it needs in turn is looked for. */
  isFetching(route: Route, digest: Digest): boolean;
}

export interface AttachedManifestsParts {
  metadata: Metadata;
  pull: ManifestPull;
  tags: Tags;
  negativeCache: NegativeCache;
  lists: ReferrerLists;
}

/** Referrers of one subject that are fetched. */
const MAX_REFERRERS = 50;
/** Entries of one index that are followed: who writes the index must not decide how often the upstream is asked. */
const MAX_ENTRIES = 100;
/** Lists in a row: that of an image, of its SBOM, of the SBOM's signature. */
const MAX_DEPTH = 3;
/** Referrers whose own referrers are asked for, for each image. */
const MAX_NESTED_LISTS = 100;
/**
 * How long a tag of cosign's is not asked for again where there was none: most images have none, and their platforms are
 * pulled after the index that names them. Clients that ask for the tag are not kept waiting for so long.
 */
const ABSENT_TTL_MS = 60 * 60_000;

export const createAttachedManifests = (parts: AttachedManifestsParts): AttachedManifests =>
  new UpstreamAttachedManifests(parts);

class UpstreamAttachedManifests implements AttachedManifests {
  readonly #parts: AttachedManifestsParts;
  /** By full reference; how many requests fetch each. */
  readonly #fetching = new Map<string, number>();

  constructor(parts: AttachedManifestsParts) {
    this.#parts = parts;
  }

  isFetching({repository}: Route, digest: Digest): boolean {
    return this.#fetching.has(fullReference(repository, digest));
  }

  async *referring(image: PulledImage, signal: Stop): AsyncGenerator<ManifestRecord, void> {
    const counting = countingIn(image);
    const attestations = counting.filter(isAttestation).map(({digest}) => digest);
    yield* this.#all(image, firstOf(attestations), signal);
    const entries = firstOf(counting.map(({digest}) => digest));
    yield* this.#referrers(image, [image.record.digest, ...entries], signal);
  }

  async *tagged(image: PulledImage, signal: Stop): AsyncGenerator<ManifestRecord, void> {
    const platforms = countingIn(image).flatMap((entry) => (isAttestation(entry) ? [] : [entry.digest]));
    for (const subject of [image.record.digest, ...firstOf(platforms)]) {
      for (const tag of attachedTags(subject)) {
        if (signal.aborted) return;
        const record = await unlessRefused(() => this.#byTag(image, tag));
        if (record) yield record;
      }
    }
  }

  entries(index: PulledImage, signal: Stop): AsyncGenerator<ManifestRecord, void> {
    return this.#all(index, entriesOf(readManifest(index.record.bytes)), signal);
  }

  async *#all(
    image: PulledImage,
    digests: readonly Digest[],
    signal: Stop,
  ): AsyncGenerator<ManifestRecord, void> {
    for (const digest of digests) {
      if (signal.aborted) return;
      const record = await unlessRefused(() => this.#byDigest(image, digest));
      if (record) yield record;
    }
  }

  /** Level by level, so that what is nested deeply never takes the place of what refers to the image itself. */
  async *#referrers(
    image: PulledImage,
    subjects: readonly Digest[],
    signal: Stop,
  ): AsyncGenerator<ManifestRecord, void> {
    const visited = new Set(subjects);
    const maxVisited = visited.size + MAX_NESTED_LISTS;
    let level: readonly Digest[] = [...visited];
    for (let depth = 1; depth <= MAX_DEPTH && level.length > 0; depth += 1) {
      const next: Digest[] = [];
      for (const subject of level) {
        if (signal.aborted) return;
        for await (const referrer of this.#all(image, await this.#listed(image, subject), signal)) {
          yield referrer;
          const {digest} = referrer;
          if (visited.has(digest) || visited.size >= maxVisited) continue;
          visited.add(digest);
          next.push(digest);
        }
      }
      level = next;
    }
  }

  async #listed({route, caller}: PulledImage, subject: Digest): Promise<Digest[]> {
    const {metadata, lists} = this.#parts;
    const list = await unlessRefused(() => lists.ready(route, subject, caller));
    if (!list) return [];
    const rows = await metadata.referrers(route.repository, subject, {limit: MAX_REFERRERS});
    return rows.map(({digest}) => digest);
  }

  async #byDigest({route, caller}: PulledImage, digest: Digest): Promise<ManifestRecord | undefined> {
    const key = fullReference(route.repository, digest);
    // Reads run on this thread: waiting requests come first.
    await nextTurn();
    this.#fetching.set(key, (this.#fetching.get(key) ?? 0) + 1);
    try {
      return keptIn(await this.#parts.pull.localOrByDigest(route, digest, caller));
    } finally {
      const others = (this.#fetching.get(key) ?? 1) - 1;
      if (others === 0) this.#fetching.delete(key);
      else this.#fetching.set(key, others);
    }
  }

  async #byTag(image: PulledImage, tag: Tag): Promise<ManifestRecord | undefined> {
    const {pull, tags, negativeCache} = this.#parts;
    const {route, caller} = image;
    if (negativeCache.has(manifestAbsence(route.repository, tag), caller, ABSENT_TTL_MS)) return undefined;
    await nextTurn();
    if (!(await tags.known(route, tag, caller))) {
      const record = keptIn(await pull.byTag(route, tag, caller));
      if (!record) throw tags.absent(route, tag, caller);
      return record;
    }
    const {digest} = await tags.resolve(route, tag, caller, {noCache: false});
    const record = await this.#byDigest(image, digest);
    if (record) await tags.arrived(route, digest);
    return record;
  }
}

/** The first of the digests, each once. */
const firstOf = (digests: readonly Digest[]): Digest[] => [...new Set(digests)].slice(0, MAX_ENTRIES);

/** The manifests of an index that count: all, or some platforms with their attestations. */
function countingIn({record, entries}: PulledImage): Descriptor[] {
  const {manifests} = readManifest(record.bytes);
  if (!entries) return manifests;
  const wanted: ReadonlySet<string> = entries;
  return manifests.filter(({digest, annotations}) =>
    wanted.has(annotations?.['vnd.docker.reference.digest'] ?? digest),
  );
}

const entriesOf = ({manifests}: ManifestFacts): Digest[] => firstOf(manifests.map(({digest}) => digest));

/** What an upstream answers for one manifest or blob alone: the others can be had all the same. */
const REFUSALS: readonly string[] = ['MANIFEST_UNKNOWN', 'BLOB_UNKNOWN', 'NAME_UNKNOWN', 'DENIED'];

/**
 * Fetches one of several things.
 * @returns undefined where the upstream does not have it, refuses it, or answers with something else
 * @throws when the upstream cannot be asked
 */
export async function unlessRefused<T>(fetch: () => Promise<T>): Promise<T | undefined> {
  try {
    return await fetch();
  } catch (error) {
    if (error instanceof OciError && REFUSALS.includes(error.code)) return undefined;
    if (error instanceof UpstreamFailure && (error.kind === 'denied' || error.kind === 'protocol'))
      return undefined;
    throw error;
  }
}
