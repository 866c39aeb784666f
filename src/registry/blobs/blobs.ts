import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {algorithmOf, type Digest, digestOf, plausibleSize} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {type BlobStore, collect} from '../../storage/blob-store.ts';
import type {Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type Access, accessKey, grantIn} from '../access.ts';
import {answering, BlobAbsent, SpoolFailed} from '../failure.ts';
import {HIT, MISS, outcomeOf} from '../freshness.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import {blobAbsence, type NegativeCache} from '../negative-cache.ts';
import {storeIfSpace} from '../store-if-space.ts';
import {type BlobAnswer, type BlobFound, fromFill, fromMemory, fromStore, fromUpstream} from './answer.ts';
import type {Fill, Fills} from './fills.ts';
import type {BlobLifecycle} from './lifecycle.ts';
import {blobSource, type Source} from './source.ts';

/** dist-spec, Pulling Blobs, and Checking if Content Exists. */
export interface Blobs {
  /**
   * @throws OciError BLOB_UNKNOWN where the upstream says so; DENIED, UNAVAILABLE or TOOMANYREQUESTS where it could
   * not be asked and the bytes are not here
   * @param waiting aborted when whoever asked does not wait any more; without it nobody waits: downloads that somebody
   * waits for come first
   */
  get(route: Route, digest: Digest, caller: Caller, waiting?: AbortSignal): Promise<BlobAnswer>;
  /** The same without the bytes; never starts a download. `size` is always there. */
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

/** Blobs up to this many bytes are held in memory: configs and the like. */
const SMALL = 64 * 1024;
/** Milliseconds after which a link that is relied on is renewed; garbage is left alone for longer than that. */
const RENEWAL = 60_000;

export function createBlobs({
  store,
  lifecycle,
  metadata,
  access,
  fills,
  negativeCache,
  memory,
  clock,
  events,
}: BlobsParts): Blobs {
  function absent(route: Route, digest: Digest): OciError {
    negativeCache.remember(blobAbsence(route.repository, digest));
    return unknown(route, digest);
  }

  /** @throws OciError BLOB_UNKNOWN when neither link nor upstream grants it */
  async function granted(route: Route, digest: Digest, caller: Caller) {
    const grant = grantIn(await access.blob(route, digest, caller));
    if (!grant) throw absent(route, digest);
    return grant;
  }

  /** The bytes of a small stored blob, hashed again before they stay in memory; undefined when the disk has damaged them. */
  async function smallBytes(digest: Digest, size: number): Promise<Buffer | undefined> {
    const bytes = await collect(store.open(digest), Buffer.alloc(size));
    if (digestOf(bytes, algorithmOf(digest)) === digest) {
      memory.keepBlob(digest, bytes);
      return bytes;
    }
    if (!(await lifecycle.verify(digest))) events.emit('blob.damaged', {digest});
    return undefined;
  }

  /** What is whole and here, after access. */
  async function warm(route: Route, digest: Digest, caller: Caller): Promise<BlobAnswer | undefined> {
    const held = memory.blob(digest);
    const size = held?.length ?? (await lifecycle.stored(digest));
    if (size === undefined) return undefined;
    const {by} = await granted(route, digest, caller);
    const report = by === 'link' ? HIT : {...MISS, detail: 'confirmed'};
    if (size > SMALL) return fromStore(store, digest, size, report);
    const bytes = held ?? (await smallBytes(digest, size));
    return bytes && fromMemory(digest, bytes, report);
  }

  async function link({repository}: Route, digest: Digest, size: number): Promise<void> {
    await metadata.commit([
      {type: 'blob.link', repository, digest, size, origin: 'upstream', at: clock.now()},
    ]);
  }

  /** What is here, else the running download, else one that begins now. */
  async function obtain(
    route: Route,
    digest: Digest,
    caller: Caller,
    waiting: AbortSignal | undefined,
  ): Promise<BlobAnswer> {
    const {ended} = fills;
    const again = () => obtain(route, digest, caller, waiting);
    const here = await warm(route, digest, caller);
    if (here) return here;
    refuseAbsent(route, digest);
    if (route.registry.hosted) throw absent(route, digest);
    const source = blobSource(route, digest, caller);
    const us = accessKey(route, digest, caller);
    const linked = grantIn(await access.recallBlob(route, digest));
    const promised = plausibleSize(digest, await metadata.promisedSize(route.repository, digest));
    const expected = linked?.size ?? promised;
    // A fill that ended meanwhile may have stored just this blob.
    if (fills.ended !== ended) return again();
    const {mine, fill} = fills.claim({
      digest,
      beganFor: us,
      source,
      expected,
      repository: route.repository,
    });
    if (!mine && fill.failed) return afterwards(fill, again);
    // Asked only now: whose download it is was not certain before it was claimed.
    if (fill.beganFor !== us) await granted(route, digest, caller);
    joinWhile(waiting, fill);
    const report = fill.whole ? HIT : {...MISS, stored: true, collapsed: !mine};
    try {
      const {size} = await fill.ready();
      if (mine) linkEarly(route, digest, {size, promised});
      return fromFill(fill, source, {digest, size, promised, report});
    } catch (error) {
      if (error instanceof SpoolFailed) return uncached(route, digest, caller, {source, promised});
      // Another access began it and lost: ours may be better.
      if (fill.beganFor !== us) return afterwards(fill, again);
      if (error instanceof BlobAbsent) throw absent(route, digest);
      throw error;
    }
  }

  /** Past the cache, once the upstream has said by HEAD that it is there, and how long it is. */
  async function uncached(
    route: Route,
    digest: Digest,
    caller: Caller,
    {source, promised}: {source: Source; promised: number | undefined},
  ): Promise<BlobAnswer> {
    const grant = grantIn(await access.confirmBlob(route, digest, caller));
    if (!grant) throw absent(route, digest);
    return fromUpstream(source, {digest, size: grant.size, promised});
  }

  /** The answer whose failures to open are told as those of the pull that it is a part of. */
  const openable = (route: Route, answer: BlobAnswer): BlobAnswer => ({
    ...answer,
    open: (part) =>
      answering(route, async () => {
        try {
          return await answer.open(part);
        } catch (error) {
          throw error instanceof BlobAbsent ? unknown(route, answer.digest) : error;
        }
      }),
  });

  /** Once more, when a download that failed has left its place. */
  async function afterwards(fill: Fill, again: () => Promise<BlobAnswer>): Promise<BlobAnswer> {
    await fill.done.catch(() => {});
    return again();
  }

  /**
   * The upstream's answer was this repository's permission, also for those who ask while the blob arrives. The link waits
   * for the end of the download where the length is unknown, or where the upstream and the manifest disagree about it:
   * only the bytes can tell who is right.
   */
  function linkEarly(
    route: Route,
    digest: Digest,
    {size, promised}: {size: number | undefined; promised: number | undefined},
  ): void {
    if (size !== undefined && size === (promised ?? size)) link(route, digest, size).catch(lost);
  }

  const lost = (error: unknown) => void events.emit('background.failed', {task: 'link a blob', error});

  function refuseAbsent(route: Route, digest: Digest): void {
    const {absentTtl} = route.registry.tags;
    if (negativeCache.has(blobAbsence(route.repository, digest), absentTtl)) throw unknown(route, digest);
  }

  async function headCold(route: Route, digest: Digest, caller: Caller): Promise<BlobFound> {
    const linked = fills.running(digest) && grantIn(await access.recallBlob(route, digest));
    if (linked?.size !== undefined) return {digest, size: linked.size, report: {...MISS, collapsed: true}};
    const grant = grantIn(await access.confirmBlob(route, digest, caller));
    if (!grant) throw absent(route, digest);
    if (grant.size === undefined) {
      throw new UpstreamFailure(
        'protocol',
        route.registry.upstream.host,
        `does not tell the length of ${digest}`,
      );
    }
    return {digest, size: grant.size, report: MISS};
  }

  function served<T extends BlobFound>(route: Route, found: T): T {
    const {registry, name: repository} = route.repository;
    events.emit('blob.served', {
      registry,
      repository,
      digest: found.digest,
      outcome: outcomeOf(found.report),
    });
    return found;
  }

  /** Who pushes relies on a HEAD's answer and uploads nothing: what was pushed before stays for another while. */
  async function renew({registry, repository}: Route, digest: Digest): Promise<void> {
    if (registry.push.mode !== 'local') return;
    const link = await metadata.blobLink(repository, digest);
    const at = clock.now();
    if (link?.origin !== 'local' || at - link.linkedAt < RENEWAL) return;
    const change = {type: 'blob.link' as const, repository, digest, size: link.size, origin: link.origin, at};
    await storeIfSpace(events, 'that a blob is asked for', () =>
      metadata.commit([change], [{type: 'blob.held', repository, digest}]),
    );
  }

  return {
    get: (route, digest, caller, waiting) =>
      answering(route, async () =>
        openable(route, served(route, await obtain(route, digest, caller, waiting))),
      ),
    head: (route, digest, caller) =>
      answering(route, async () => {
        const here = await warm(route, digest, caller);
        if (here) {
          await renew(route, digest);
          return served(route, here);
        }
        refuseAbsent(route, digest);
        return served(route, await headCold(route, digest, caller));
      }),
  };
}

function joinWhile(waiting: AbortSignal | undefined, fill: Fill): void {
  if (!waiting || waiting.aborted) return;
  waiting.addEventListener('abort', fill.join(), {once: true});
}

const unknown = ({registry, asked}: Route, digest: Digest): OciError =>
  new OciError('BLOB_UNKNOWN', {
    message: `${registry.upstream.host} has no blob ${digest} in ${asked}`,
    detail: {name: asked, digest, upstream: registry.upstream.host},
  });
