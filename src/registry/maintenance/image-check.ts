import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import {isDigestReference, type Tag} from '../../oci/name.ts';
import {isPlatform, type PlatformManifest, platformManifests} from '../../oci/platform.ts';
import {attachedTags, isAttestation} from '../../oci/referrers.ts';
import type {ManifestRecord, Metadata, TagRecord} from '../../storage/metadata.ts';
import type {BlobLifecycle} from '../blobs/lifecycle.ts';
import {freshness, servableUntil, type TagPolicy} from '../freshness.ts';
import type {NamedImage} from '../image-name.ts';
import type {ReferrerLists} from '../referrers/lists.ts';
import {policyOf} from '../tag-policies.ts';

/** Something that an image needs and that is not here, or that this repository may not serve. */
export interface MissingContent {
  /** `list`: the list of the referrers of this digest. `platform`: the index names none that is the wanted one. */
  readonly kind: 'tag' | 'platform' | 'manifest' | 'blob' | 'list';
  /** Of a tag or a platform. */
  readonly name?: string;
  readonly digest?: Digest;
  /** Bytes, where a descriptor names them. */
  readonly size?: number;
  readonly neededTo: 'pull' | 'verify';
}

export interface ImageCheckResult {
  /** What the name points at here. */
  readonly digest: Digest | undefined;
  /** Until when the tag may be served without the upstream: milliseconds since the epoch. */
  readonly until: number | undefined;
  /** Cosign's tags are not asked for with each pull, and no list of tags is known: whether there are any is unknown. */
  readonly areTagsUnknown: boolean;
  /** Each once. */
  readonly missing: readonly MissingContent[];
}

export interface ImageCheckParts {
  metadata: Pick<Metadata, 'tag' | 'tagList' | 'manifest' | 'references' | 'referrers' | 'blobLink'>;
  lifecycle: Pick<BlobLifecycle, 'stored'>;
  lists: Pick<ReferrerLists, 'servableUntil'>;
  clock: Clock;
}

/** How many descriptors are looked at for one image: who writes an index must not decide how long that takes. */
const MAX_DESCRIPTORS = 10_000;
/** Referrers of one subject that are looked at, as many as `prefetch` brings. */
const MAX_REFERRERS = 50;
/** How deep referrers of referrers, and indexes in indexes, are followed. */
const MAX_DEPTH = 3;
/** How many reads of the metadata happen in a row. They run on this thread, so waiting requests come in between. */
const READS_PER_TURN = 16;

/** The image is too large to be looked at as a whole. */
export class TooManyDescriptors extends Error {
  override readonly name = 'TooManyDescriptors';
}

/** @throws TooManyDescriptors when an image names more manifests and blobs than are looked at, or fetched */
export function requireFewDescriptors(count: number): void {
  if (count > MAX_DESCRIPTORS)
    throw new TooManyDescriptors(
      `names more than ${MAX_DESCRIPTORS} manifests and blobs, which is more than is looked at`,
    );
}

/**
 * Finds what a pull, and then a verification, of one image would miss with the upstream gone. Asks no upstream.
 * @param platforms that have to be whole, such as `linux/arm64`; empty: of an index, one platform is enough
 * @throws TooManyDescriptors; StoreMissing; the signal's reason
 */
export const checkImage = (
  parts: ImageCheckParts,
  image: NamedImage,
  platforms: readonly string[],
  signal: AbortSignal,
): Promise<ImageCheckResult> => new ImageCheck(parts, image, platforms, signal).run();

class ImageCheck {
  readonly #parts: ImageCheckParts;
  readonly #image: NamedImage;
  readonly #platforms: readonly string[];
  readonly #signal: AbortSignal;
  /** The manifests that are pulled: the image's own, and of an index those of its platforms. */
  readonly #pulled = new Set<Digest>();
  readonly #missing = new Map<string, MissingContent>();
  #until: number | undefined;
  #areTagsUnknown = false;
  #descriptors = 0;
  #reads = 0;

  constructor(parts: ImageCheckParts, image: NamedImage, platforms: readonly string[], signal: AbortSignal) {
    this.#parts = parts;
    this.#image = image;
    this.#platforms = platforms;
    this.#signal = signal;
  }

  async run(): Promise<ImageCheckResult> {
    const digest = await this.#resolved();
    if (digest) {
      const root = await this.#manifest(digest);
      if (root) {
        this.#pulled.add(digest);
        this.#note(await this.#lacksToPull(root));
        await this.#verify(root);
      } else this.#note([{kind: 'manifest', digest, neededTo: 'pull'}]);
    }
    return {
      digest,
      until: this.#until,
      areTagsUnknown: this.#areTagsUnknown,
      missing: [...this.#missing.values()],
    };
  }

  async #resolved(): Promise<Digest | undefined> {
    const {reference} = this.#image;
    if (isDigestReference(reference)) return reference;
    const tag = await this.#tag(reference);
    if (!tag) {
      this.#note([{kind: 'tag', name: reference, neededTo: 'pull'}]);
      return undefined;
    }
    if (tag.origin !== 'local') this.#until = servableUntil(tag, this.#policyOf(reference));
    return tag.digest;
  }

  /** The tag, if it would be served. */
  async #tag(name: Tag): Promise<TagRecord | undefined> {
    const {route} = this.#image;
    await this.#giveWay();
    const known = await this.#parts.metadata.tag(route.repository, name);
    if (known?.origin === 'local' || !known) return known;
    const now = this.#parts.clock.now();
    const policy = this.#policyOf(name);
    return freshness({now, known, policy, upstream: 'failed'}) === 'gone' ? undefined : known;
  }

  #policyOf(tag: Tag): TagPolicy {
    const {registry, repository} = this.#image.route;
    return policyOf(registry, repository.name, tag);
  }

  async #manifest(digest: Digest): Promise<ManifestRecord | undefined> {
    await this.#giveWay();
    return this.#parts.metadata.manifest(this.#image.route.repository, digest);
  }

  async #lacksToPull(root: ManifestRecord): Promise<MissingContent[]> {
    const children = platformsIn(root);
    if (this.#platforms.length === 0 || children.length === 0) return this.#lacks(root, 0);
    const missing = await this.#lacksBlobs(root, 'pull');
    for (const name of this.#platforms) {
      const wanted = children.filter(({platform}) => isPlatform(platform, name));
      if (wanted.length === 0) missing.push({kind: 'platform', name, neededTo: 'pull'});
      for (const child of wanted) {
        missing.push(...(await this.#lacksOf(child, 0)));
        this.#pulled.add(child.digest);
      }
    }
    return missing;
  }

  /** What a pull of this manifest would miss: of an index, what the platform misses that lacks the least. */
  async #lacks(record: ManifestRecord, depth: number): Promise<MissingContent[]> {
    const missing = await this.#lacksBlobs(record, 'pull');
    const children = platformsIn(record);
    if (children.length === 0) return missing;
    if (depth > MAX_DEPTH) {
      throw new TooManyDescriptors(
        `nests indexes more than ${MAX_DEPTH} deep, which is more than is looked at`,
      );
    }
    let least: {child: PlatformManifest; missing: MissingContent[]} | undefined;
    for (const child of children) {
      const ofChild = await this.#lacksOf(child, depth + 1);
      if (ofChild.length === 0) this.#pulled.add(child.digest);
      if (!least || ofChild.length < least.missing.length) least = {child, missing: ofChild};
    }
    if (!least) return missing;
    this.#pulled.add(least.child.digest);
    return [...missing, ...least.missing];
  }

  async #lacksOf({digest, size}: PlatformManifest, depth: number): Promise<MissingContent[]> {
    const record = await this.#manifest(digest);
    return record ? this.#lacks(record, depth) : [{kind: 'manifest', digest, size, neededTo: 'pull'}];
  }

  async #lacksBlobs(
    {digest}: Pick<ManifestRecord, 'digest'>,
    neededTo: MissingContent['neededTo'],
  ): Promise<MissingContent[]> {
    const references = await this.#parts.metadata.references(digest);
    this.#descriptors += references.length;
    requireFewDescriptors(this.#descriptors);
    const blobs = new Map(references.flatMap((each) => (each.kind === 'blob' ? [[each.digest, each]] : [])));
    const missing: MissingContent[] = [];
    for (const {digest, size} of blobs.values()) {
      if (!(await this.#hasBlob(digest))) missing.push({kind: 'blob', digest, size, neededTo});
    }
    return missing;
  }

  /** Knowing a digest is not permission: bytes that only another repository is linked to do not count. */
  async #hasBlob(digest: Digest): Promise<boolean> {
    await this.#giveWay();
    const {metadata, lifecycle} = this.#parts;
    if (!(await metadata.blobLink(this.#image.route.repository, digest))) return false;
    return (await lifecycle.stored(digest)) !== undefined;
  }

  async #verify(root: ManifestRecord): Promise<void> {
    const {registry, repository} = this.#image.route;
    const known = (await this.#parts.metadata.tagList(repository))?.names;
    this.#areTagsUnknown = !known && !registry.hosted && registry.referrers.prefetch !== 'all';
    const tags = new Set(known);
    const visited = new Set<Digest>(this.#pulled);
    for (const subject of this.#pulled) {
      if (!(await this.#isListKnown(subject))) {
        this.#note([{kind: 'list', digest: subject, neededTo: 'verify'}]);
      }
      await this.#verifyReferrers(subject, visited, 1);
      await this.#verifyTags(subject, tags, visited);
    }
    for (const entry of platformManifests(root.bytes).filter(isAttestation)) {
      const subject = entry.annotations?.['vnd.docker.reference.digest'];
      if (![...this.#pulled].some((digest) => digest === subject)) continue;
      await this.#verifyAttached(entry.digest, entry.size, visited, 1);
    }
  }

  async #isListKnown(subject: Digest): Promise<boolean> {
    const {route} = this.#image;
    // Clients then find everything by tags.
    if (route.registry.referrers.mode === 'off') return true;
    await this.#giveWay();
    const until = await this.#parts.lists.servableUntil(route, subject);
    return until !== undefined && this.#parts.clock.now() <= until;
  }

  async #verifyReferrers(subject: Digest, visited: Set<Digest>, depth: number): Promise<void> {
    await this.#giveWay();
    const {repository} = this.#image.route;
    const rows = await this.#parts.metadata.referrers(repository, subject, {limit: MAX_REFERRERS});
    for (const {digest} of rows) await this.#verifyAttached(digest, undefined, visited, depth);
  }

  /** What cosign attached by tags. That there is such a tag at the upstream is known from the tag, or the list of tags. */
  async #verifyTags(subject: Digest, listed: ReadonlySet<string>, visited: Set<Digest>): Promise<void> {
    for (const name of attachedTags(subject)) {
      const tag = await this.#tag(name);
      if (tag) await this.#verifyAttached(tag.digest, undefined, visited, MAX_DEPTH);
      else if (listed.has(name)) this.#note([{kind: 'tag', name, neededTo: 'verify'}]);
    }
  }

  /** An attached manifest is needed whole: with its blobs, its own manifests, and what is attached to it. */
  async #verifyAttached(
    digest: Digest,
    size: number | undefined,
    visited: Set<Digest>,
    depth: number,
  ): Promise<void> {
    if (visited.has(digest)) return;
    visited.add(digest);
    const record = await this.#manifest(digest);
    if (!record) {
      return this.#note([
        {kind: 'manifest', digest, ...(size === undefined ? {} : {size}), neededTo: 'verify'},
      ]);
    }
    this.#note(await this.#lacksBlobs(record, 'verify'));
    if (depth >= MAX_DEPTH) return;
    for (const entry of platformManifests(record.bytes)) {
      await this.#verifyAttached(entry.digest, entry.size, visited, depth + 1);
    }
    await this.#verifyReferrers(digest, visited, depth + 1);
  }

  /** What a pull needs comes first, and is not counted again for the verification. */
  #note(missing: readonly MissingContent[]): void {
    for (const each of missing) {
      const key = `${each.kind} ${each.digest ?? each.name}`;
      if (!this.#missing.has(key)) this.#missing.set(key, each);
    }
  }

  async #giveWay(): Promise<void> {
    this.#reads += 1;
    if (this.#reads % READS_PER_TURN !== 0) return;
    await nextTurn();
    this.#signal.throwIfAborted();
  }
}

/** The manifests of an index that may be pulled; empty for an image. */
const platformsIn = ({bytes}: ManifestRecord): PlatformManifest[] =>
  platformManifests(bytes).filter((entry) => !isAttestation(entry));
