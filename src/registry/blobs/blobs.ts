import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {type Digest, plausibleSize} from '../../oci/digest.ts';
import type {OciError} from '../../oci/errors.ts';
import type {BlobFile} from '../../storage/blob-files.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {DiskFailed} from '../../storage/disk.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type Access, accessKey, type BlobGrant} from '../access.ts';
import {BlobAbsent, SpoolFailed, toOciErrors} from '../failure.ts';
import {HIT, MISS} from '../freshness.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import {blobAbsence, type NegativeCache} from '../negative-cache.ts';
import {grantIn} from '../place-access.ts';
import {storeIfSpace} from '../store-if-space.ts';
import {
  type BlobAnswer,
  type BlobFound,
  blobUnknown,
  fromFill,
  fromMemory,
  fromStore,
  fromUpstream,
  openable,
} from './answer.ts';
import {type Fill, type Fills, joinWhile} from './fills.ts';
import {type BlobsInMemory, createBlobsInMemory} from './in-memory.ts';
import type {BlobLifecycle} from './lifecycle.ts';
import {createPassing, type Passage, type Passing} from './passing.ts';
import {reportServed, type ServedBlobsParts} from './served.ts';
import {blobSource} from './source.ts';

/** dist-spec, Pulling Blobs, and Checking if Content Exists. */
export interface Blobs {
  /**
   * @param waiting aborted when the client no longer waits; without it, nobody waits. Downloads that somebody waits for
   * come first
   * @throws OciError BLOB_UNKNOWN where the upstream says so; DENIED, UNAVAILABLE or TOOMANYREQUESTS where it could
   * not be asked and the bytes are not here
   */
  get(route: Route, digest: Digest, caller: Caller, waiting?: AbortSignal): Promise<BlobAnswer>;
  /** The same without the bytes. Never starts a download. `size` is always known. */
  head(route: Route, digest: Digest, caller: Caller): Promise<BlobFound>;
}

export interface BlobsParts {
  store: BlobStore;
  lifecycle: BlobLifecycle;
  metadata: Metadata;
  access: Access;
  fills: Fills;
  negativeCache: NegativeCache;
  memory: Memory;
  clock: Clock;
  events: Events;
}

/** A blob that somebody asks for. */
interface AskedBlob {
  readonly route: Route;
  readonly digest: Digest;
  readonly caller: Caller;
  /** Aborted when the client no longer waits; undefined while nobody does. */
  readonly waiting?: AbortSignal | undefined;
  /** True for a GET. */
  readonly isForBytes: boolean;
}

/** A link that a client relies on is renewed when it is older than this. Garbage collection spares links for longer. */
const RENEW_AFTER_MS = 60_000;

export const createBlobs = (parts: BlobsParts & ServedBlobsParts): Blobs =>
  reportServed(new CachedBlobs(parts), parts);

class CachedBlobs implements Blobs {
  readonly #store: BlobStore;
  readonly #lifecycle: BlobLifecycle;
  readonly #metadata: Metadata;
  readonly #access: Access;
  readonly #fills: Fills;
  readonly #negativeCache: NegativeCache;
  readonly #inMemory: BlobsInMemory;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #passing: Passing;

  constructor(parts: BlobsParts) {
    this.#store = parts.store;
    this.#lifecycle = parts.lifecycle;
    this.#metadata = parts.metadata;
    this.#access = parts.access;
    this.#fills = parts.fills;
    this.#negativeCache = parts.negativeCache;
    this.#inMemory = createBlobsInMemory(parts);
    this.#clock = parts.clock;
    this.#events = parts.events;
    this.#passing = createPassing(parts);
  }

  get(route: Route, digest: Digest, caller: Caller, waiting?: AbortSignal): Promise<BlobAnswer> {
    return toOciErrors(route, async () => {
      const asked = {route, digest, caller, waiting, isForBytes: true};
      const found = await this.#obtain(asked).catch((error) => this.#unread(asked, error));
      return openable(route, found);
    });
  }

  head(route: Route, digest: Digest, caller: Caller): Promise<BlobFound> {
    const asked = {route, digest, caller, isForBytes: false};
    return toOciErrors(route, () => this.#find(asked).catch((error) => this.#unread(asked, error)));
  }

  async #find(asked: AskedBlob): Promise<BlobFound> {
    const here = await this.#warm(asked);
    if (!here) return this.#headCold(asked);
    await this.#renew(asked.route, asked.digest);
    return here;
  }

  /** A blob whose bytes are here, if the caller may have it. */
  async #warm(asked: AskedBlob): Promise<BlobAnswer | undefined> {
    const {digest, isForBytes} = asked;
    const held = this.#inMemory.held(digest);
    const size = held?.length ?? (await this.#lifecycle.stored(digest));
    if (size === undefined) return undefined;
    const {by} = await this.#granted(asked);
    const report = by === 'link' ? HIT : {...MISS, detail: 'confirmed'};
    if (held) return fromMemory(digest, held, report);
    if (!isForBytes || !this.#inMemory.wants(digest, size))
      return fromStore(this.#store, this.#passage(asked), {
        digest,
        size,
        report,
        // Only who opens the file sees whether it is still there: each HEAD looks.
        file: isForBytes ? this.#file(digest, size) : undefined,
      });
    const bytes = await this.#inMemory.load(digest, size);
    return bytes && fromMemory(digest, bytes, report);
  }

  #file(digest: Digest, size: number): BlobFile | undefined {
    const path = this.#inMemory.mayHold(size) ? undefined : this.#store.pathOf(digest);
    return path === undefined ? undefined : {path, size};
  }

  /** What is here, else the running download, else one that begins now. */
  async #obtain(asked: AskedBlob): Promise<BlobAnswer> {
    const {route, digest, caller} = asked;
    const {repository} = route;
    const {ended} = this.#fills;
    const here = await this.#warm(asked);
    if (here) return here;
    this.#reportMissed(asked);
    this.#refuseAbsent(asked);
    if (route.registry.hosted) throw this.#absent(asked);
    const source = blobSource(route, digest, caller);
    const beganFor = accessKey(route, digest, caller);
    const linked = grantIn(await this.#access.recallBlob(route, digest));
    const promised = plausibleSize(digest, await this.#metadata.promisedSize(repository, digest));
    const expected = linked?.size ?? promised;
    // A fill that ended meanwhile may have stored this very blob.
    if (this.#fills.ended !== ended) return this.#obtain(asked);
    const {mine, fill} = this.#fills.claim({digest, beganFor, source, expected, repository});
    if (!mine && fill.failed) return this.#obtainAfter(fill, asked);
    // Asked only now: until the claim it was open whose download this is.
    if (fill.beganFor !== beganFor) await this.#granted(asked);
    joinWhile(asked.waiting, fill, source);
    try {
      return await this.#answerFrom(fill, asked, {mine, promised});
    } catch (error) {
      if (error instanceof SpoolFailed) return this.#uncached(asked, promised);
      // The download failed with another caller's access; this caller's may be better.
      if (fill.beganFor !== beganFor) return this.#obtainAfter(fill, asked);
      if (error instanceof BlobAbsent) throw this.#absent(asked);
      throw error;
    }
  }

  async #answerFrom(
    fill: Fill,
    asked: AskedBlob,
    {mine, promised}: {mine: boolean; promised: number | undefined},
  ): Promise<BlobAnswer> {
    const {route, digest} = asked;
    const report = fill.whole ? HIT : {...MISS, stored: true, collapsed: !mine};
    const {size} = await fill.ready();
    if (mine) this.#linkEarly(route, digest, {size, promised});
    return fromFill(fill, this.#passage(asked), {digest, size, promised, report});
  }

  /** Starts over when a download that failed has ended. */
  async #obtainAfter(fill: Fill, asked: AskedBlob): Promise<BlobAnswer> {
    await fill.done.catch(() => {});
    return this.#obtain(asked);
  }

  /** Serves a blob without keeping it, once the upstream's HEAD has said that it is there, and how long it is. */
  async #uncached(asked: AskedBlob, promised: number | undefined): Promise<BlobAnswer> {
    const {size} = await this.#confirmed(asked);
    return fromUpstream(this.#passage(asked), {digest: asked.digest, size, promised});
  }

  /**
   * Serves a blob that the disk fails to read from the upstream, without keeping it. That the upstream lacks it says nothing
   * about what is here.
   * @throws the failure itself where the upstream cannot take the disk's place
   */
  async #unread(asked: AskedBlob, failure: unknown): Promise<BlobAnswer> {
    const {route, digest, caller} = asked;
    if (!(failure instanceof DiskFailed) || route.registry.hosted) throw failure;
    const grant = grantIn(await this.#access.confirmBlob(route, digest, caller));
    if (grant?.size === undefined) throw failure;
    return fromUpstream(this.#passage(asked), {digest, size: grant.size, promised: undefined});
  }

  #passage({route, digest, caller, waiting}: AskedBlob): Passage {
    return this.#passing.from(blobSource(route, digest, caller), waiting);
  }

  async #headCold(asked: AskedBlob): Promise<BlobFound> {
    this.#reportMissed(asked);
    this.#refuseAbsent(asked);
    const {route, digest} = asked;
    const linked = this.#fills.running(digest) && grantIn(await this.#access.recallBlob(route, digest));
    if (linked?.size !== undefined) return {digest, size: linked.size, report: {...MISS, collapsed: true}};
    const {size} = await this.#confirmed(asked);
    if (size !== undefined) return {digest, size, report: MISS};
    const {host} = route.registry.upstream;
    throw new UpstreamFailure('protocol', host, `does not name the length of ${digest}`);
  }

  /** @throws OciError BLOB_UNKNOWN when neither link nor upstream grants it */
  async #granted(asked: AskedBlob): Promise<BlobGrant> {
    const {route, digest, caller} = asked;
    const grant = grantIn(await this.#access.blob(route, digest, caller));
    if (!grant) throw this.#absent(asked);
    return grant;
  }

  /** @throws OciError BLOB_UNKNOWN when the upstream does not grant it */
  async #confirmed(asked: AskedBlob): Promise<BlobGrant> {
    const {route, digest, caller} = asked;
    const grant = grantIn(await this.#access.confirmBlob(route, digest, caller));
    if (!grant) throw this.#absent(asked);
    return grant;
  }

  #absent({route, digest, caller}: AskedBlob): OciError {
    this.#negativeCache.remember(blobAbsence(route.repository, digest), caller);
    return blobUnknown(route, digest);
  }

  #refuseAbsent({route, digest, caller}: AskedBlob): void {
    const {absentTtl} = route.registry.tags;
    const isAbsent = this.#negativeCache.has(blobAbsence(route.repository, digest), caller, absentTtl);
    if (isAbsent) throw blobUnknown(route, digest);
  }

  /**
   * Links the blob to the repository while it arrives: the upstream's answer was the repository's permission. The link
   * waits for the end of the download where the length is unknown, or where the upstream and the manifest disagree about
   * it: only the bytes can decide.
   */
  #linkEarly(
    {repository}: Route,
    digest: Digest,
    {size, promised}: Pick<BlobAnswer, 'size' | 'promised'>,
  ): void {
    if (size === undefined || size !== (promised ?? size)) return;
    const link = {type: 'blob.link' as const, repository, digest, size, origin: 'upstream' as const};
    this.#metadata.commit([{...link, at: this.#clock.now()}]).catch((error) => {
      this.#events.emit('background.failed', {task: 'link a blob', error});
    });
  }

  /** Keeps a pushed blob for another while: a client that pushes uploads nothing when a HEAD says that it is here. */
  async #renew({registry, repository}: Route, digest: Digest): Promise<void> {
    if (registry.push.mode !== 'local') return;
    const link = await this.#metadata.blobLink(repository, digest);
    const at = this.#clock.now();
    if (link?.origin !== 'local' || at - link.linkedAt < RENEW_AFTER_MS) return;
    const change = {type: 'blob.link' as const, repository, digest, size: link.size, origin: link.origin, at};
    await storeIfSpace(this.#events, 'that a blob is asked for', () =>
      this.#metadata.commit([change], [{type: 'blob.held', repository, digest}]),
    );
  }

  #reportMissed({route: {repository}, digest}: AskedBlob): void {
    if (this.#fills.running(digest)) return;
    const {registry, name} = repository;
    this.#events.emit('blob.missed', {registry, repository: name, digest});
  }
}
