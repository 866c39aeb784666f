import {ANONYMOUS} from '../../caller.ts';
import {mapConcurrently} from '../../concurrency.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {readManifest} from '../../oci/manifest.ts';
import type {Reference} from '../../oci/name.ts';
import {isPlatform, platformManifests} from '../../oci/platform.ts';
import {isAttestation} from '../../oci/referrers.ts';
import type {ManifestRecord} from '../../storage/metadata.ts';
import type {Blobs} from '../blobs/blobs.ts';
import type {Fill, Fills} from '../blobs/fills.ts';
import {SpoolFailed} from '../failure.ts';
import type {CacheReport} from '../freshness.ts';
import type {NamedImage} from '../image-name.ts';
import type {ManifestAnswer, Manifests} from '../manifests/manifests.ts';
import type {AttachedManifests} from '../referrers/attached.ts';
import {requireFewDescriptors, TooManyDescriptors} from './image-check.ts';

/** What was fetched of an image, or was here. */
export interface FetchedImage {
  manifests: number;
  blobs: number;
  /** Of the blobs. */
  bytes: number;
}

export interface ImageFetchState {
  /** The part of it that is done, 0 to 1, of what is known to be needed. */
  done: number;
  /** Bytes of blobs that are here, and that are needed as far as that is known. */
  bytes: number;
  size: number;
}

export interface ImageFetchParts {
  manifests: Pick<Manifests, 'get'>;
  blobs: Pick<Blobs, 'get'>;
  fills: Pick<Fills, 'running'>;
  attached: Pick<AttachedManifests, 'referring' | 'tagged'>;
}

export interface ImageFetchOptions {
  /** The platforms of an index that are fetched; empty: all. */
  platforms: readonly string[];
  /** Fetches what is attached to the image as well. */
  referrers: boolean;
  signal: AbortSignal;
}

/** Manifests of one image that are fetched: who writes an index must not decide how often the upstream is asked. */
const MAX_MANIFESTS = 1000;
/** Manifests, or blobs, of one image that are fetched at a time. */
const CONCURRENCY = 3;
/** How often a blob is asked for whose download ended before it could be watched. */
const MAX_ATTEMPTS = 3;

/** Fetches one image, in parts: what cannot be had does not keep the rest from being fetched. */
export class ImageFetch {
  /** What could not be had. */
  readonly failures: unknown[] = [];
  readonly #parts: ImageFetchParts;
  readonly #image: NamedImage;
  readonly #options: ImageFetchOptions;
  readonly #visited = new Set<Digest>();
  /** Blobs that are needed, with the sizes that manifests name. */
  readonly #blobs = new Map<Digest, number>();
  readonly #here = new Set<Digest>();
  readonly #running = new Map<Digest, Fill>();
  #digest: Digest | undefined;
  #descriptors = 0;

  constructor(parts: ImageFetchParts, image: NamedImage, options: ImageFetchOptions) {
    this.#parts = parts;
    this.#image = image;
    this.#options = options;
  }

  /** @throws OciError when the image itself cannot be had; TooManyDescriptors; the signal's reason */
  async run(): Promise<FetchedImage & {digest: Digest}> {
    const {platforms, referrers, signal} = this.#options;
    const root = await this.#manifest(this.#image.reference);
    this.#digest = root.digest;
    const all = platformManifests(root.bytes).filter((entry) => !isAttestation(entry));
    const wanted = all.filter(
      ({platform}) => platforms.length === 0 || platforms.some((name) => isPlatform(platform, name)),
    );
    const entries = new Set(wanted.map(({digest}) => digest));
    await this.#fetchChildren([...entries]);
    await this.#fetchBlobs([...this.#blobs.keys()]);
    if (referrers) await this.#fetchAttached(root, all.length === wanted.length ? undefined : entries);
    signal.throwIfAborted();
    return {...this.fetched, digest: root.digest};
  }

  get fetched(): FetchedImage & {digest?: Digest} {
    return {
      ...(this.#digest ? {digest: this.#digest} : {}),
      manifests: this.#visited.size,
      blobs: this.#here.size,
      bytes: this.#bytesOf(this.#here),
    };
  }

  get state(): ImageFetchState {
    const arriving = [...this.#running.values()].reduce((sum, {received}) => sum + received, 0);
    const size = this.#bytesOf(this.#blobs.keys());
    const bytes = Math.min(size, this.#bytesOf(this.#here) + arriving);
    return {done: size === 0 ? 0 : bytes / size, bytes, size};
  }

  #bytesOf(blobs: Iterable<Digest>): number {
    let bytes = 0;
    for (const digest of blobs) bytes += this.#blobs.get(digest) ?? 0;
    return bytes;
  }

  /** A tag is asked for whatever its age: its time without the upstream begins again. */
  async #manifest(reference: Reference): Promise<ManifestAnswer> {
    const {route} = this.#image;
    this.#options.signal.throwIfAborted();
    const found = await this.#parts.manifests.get(route, reference, ANONYMOUS, {noCache: true, isUse: false});
    requireKept(found.report);
    if (found.report.warning !== undefined) {
      this.failures.push(new OciError('UNAVAILABLE', {message: found.report.warning}));
    }
    this.#need(found);
    return found;
  }

  /** The manifests of an index, and of indexes in it. */
  async #fetchChildren(digests: readonly Digest[]): Promise<void> {
    const fresh = digests.filter((digest) => !this.#visited.has(digest));
    if (this.#visited.size + fresh.length > MAX_MANIFESTS) {
      const message = `the image names more than ${MAX_MANIFESTS} manifests, which is more than is fetched`;
      this.failures.push(new OciError('MANIFEST_INVALID', {message}));
      return;
    }
    const nested = await mapConcurrently(fresh, CONCURRENCY, async (digest) => {
      const child = await this.#orFail(() => this.#manifest(digest));
      return child ? platformManifests(child.bytes).map((entry) => entry.digest) : [];
    });
    if (nested.some((each) => each.length > 0)) await this.#fetchChildren([...new Set(nested.flat())]);
  }

  async #fetchAttached(root: ManifestAnswer, entries: ReadonlySet<Digest> | undefined): Promise<void> {
    const {attached} = this.#parts;
    const {route} = this.#image;
    const image = {route, record: root, caller: ANONYMOUS, entries};
    await this.#orFail(() => this.#fetchAll(attached.referring(image, this.#options.signal)));
    await this.#orFail(() => this.#fetchAll(attached.tagged(image, this.#options.signal)));
  }

  async #fetchAll(manifests: AsyncIterable<ManifestRecord>): Promise<void> {
    for await (const manifest of manifests) {
      this.#need(manifest);
      await this.#fetchBlobs(readManifest(manifest.bytes).blobs.map(({digest}) => digest));
    }
  }

  #need({digest, bytes}: Pick<ManifestRecord, 'digest' | 'bytes'>): void {
    const {blobs, manifests} = readManifest(bytes);
    this.#descriptors += blobs.length + manifests.length;
    requireFewDescriptors(this.#descriptors);
    this.#visited.add(digest);
    for (const blob of blobs) this.#blobs.set(blob.digest, blob.size);
  }

  async #fetchBlobs(digests: readonly Digest[]): Promise<void> {
    const missing = [...new Set(digests)].filter((digest) => !this.#here.has(digest));
    await mapConcurrently(missing, CONCURRENCY, (digest) => this.#orFail(() => this.#fetchBlob(digest)));
  }

  /** The server owns the download, and nobody waits for it: those that clients wait for come first. */
  async #fetchBlob(digest: Digest): Promise<void> {
    const {blobs, fills} = this.#parts;
    for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
      this.#options.signal.throwIfAborted();
      const {stored, report} = await blobs.get(this.#image.route, digest, ANONYMOUS);
      requireKept(report);
      if (stored) return void this.#here.add(digest);
      const fill = fills.running(digest);
      if (!fill) continue;
      this.#running.set(digest, fill);
      try {
        await fill.done;
      } finally {
        this.#running.delete(digest);
      }
    }
  }

  async #orFail<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      this.#options.signal.throwIfAborted();
      if (error instanceof TooManyDescriptors) throw error;
      this.failures.push(error);
      return undefined;
    }
  }
}

/** @throws SpoolFailed for content that was passed on without being kept */
function requireKept({detail}: CacheReport): void {
  if (detail === 'uncached') throw new SpoolFailed('there is no room to keep it');
}
