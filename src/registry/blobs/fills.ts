import {setMaxListeners} from 'node:events';
import type {Cancel, Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import type {BlobStore} from '../../storage/blob-store.ts';
import {type Claim, type Coordination, claimInTurn} from '../../storage/coordination.ts';
import type {RepositoryKey} from '../../storage/metadata.ts';
import type {Spool, Spools} from '../../storage/spool.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Reservation, Space} from '../space.ts';
import {download, writing} from './download.ts';
import type {BlobLifecycle} from './lifecycle.ts';
import {
  type BytesBehind,
  createProgress,
  createWaiters,
  follow,
  MAX_HOLD_MS,
  type Prefix,
  type Progress,
  untilBegun,
  type Waiters,
} from './progress.ts';
import {createSources, type Source, type Sources} from './source.ts';

/** One running download of one digest, owned by the server, read by any number of clients. */
export interface Fill {
  /**
   * Counts a request that waits for it. While none waits, the download gives way to downloads that are waited for.
   * @param source with the access of who waits: the download goes on with it, should the upstream deny it to the caller
   * with whose access it began
   * @returns what ends the wait; idempotent
   */
  join(source: Source): () => void;
  /** Whose access it began with: all others need access of their own. */
  readonly beganFor: string;
  /**
   * Resolves when readers can have the first byte: the upstream has answered with the blob, and a small one has been
   * verified. `size` in bytes where known. This is a method because a
   * promise that nobody awaits would leave its rejection unhandled, which ends the process.
   * @throws BlobAbsent, UpstreamFailure, DigestMismatch or SpoolFailed
   */
  ready(): Promise<{size: number | undefined}>;
  /** Resolves when the blob is stored. Rejects with what ended the fill; need not be awaited. */
  readonly done: Promise<void>;
  /** True once it has failed; `done` still waits until its spool is closed or removed. */
  readonly failed: boolean;
  /** True once all bytes are here and verified, though perhaps not yet durable. */
  readonly whole: boolean;
  /** What it had received when its spool failed: readers may have it, and nobody has verified it. */
  readonly prefix: Prefix | undefined;
  /** Bytes that are here so far. */
  readonly received: number;
  /**
   * The bytes from `start` to `end`, both inclusive, at the reader's own pace while they arrive. The last byte comes
   * only after the digest was verified. A chunk is valid until the next one is asked for. The iteration throws what
   * ended the fill.
   */
  read(start?: number, end?: number): AsyncGenerator<Uint8Array, void>;
}

export interface FillOrder {
  digest: Digest;
  /** The repository and the caller: requests with the same access need not prove it while the fill begins. */
  beganFor: string;
  source: Source;
  /** The size in bytes that a manifest names, for an upstream that does not say. */
  expected?: number | undefined;
  /** Set where a push needs it: then the limit of the cache does not refuse it room. */
  isPushed?: boolean;
  /** Is linked to the blob by the commit that stores it: the upstream's answer is this repository's permission. */
  repository?: RepositoryKey;
}

export interface Fills {
  /** Grows with each fill that ends. A request that found a blob neither stored nor running looks again when it has grown. */
  readonly ended: number;
  running(digest: Digest): Fill | undefined;
  /** Downloads that run now. */
  readonly inFlight: number;
  /**
   * Joins the download of this digest, or begins it; `mine` says which. A request that joins a download which began with
   * another access must prove its own before it waits for the fill or reads it.
   */
  claim(order: FillOrder): {mine: boolean; fill: Fill};
  /** Ends all downloads and keeps their spools for the next process. */
  close(): Promise<void>;
}

export interface FillParts {
  spools: Spools;
  /** Room for what is downloaded. */
  space: Pick<Space, 'reserve' | 'reservePushed'>;
  store: BlobStore;
  lifecycle: BlobLifecycle;
  coordination: Coordination;
  clock: Clock;
  events: Events;
}

/** How long other processes leave a digest to the one that downloads it: longer than a large blob takes. */
const CLAIM_TTL_MS = 60 * 60_000;

/** One download per digest, many readers. */
export function createFills(parts: FillParts): Fills {
  const fills = new Map<Digest, Fill>();
  const stopping = new AbortController();
  setMaxListeners(0, stopping.signal);
  let ended = 0;
  return {
    get ended() {
      return ended;
    },
    running: (digest) => fills.get(digest),
    get inFlight() {
      return fills.size;
    },
    claim(order) {
      const running = fills.get(order.digest);
      if (running) return {mine: false, fill: running};
      const fill = begin(parts, order, stopping.signal);
      fills.set(order.digest, fill);
      const end = () => {
        ended += 1;
        fills.delete(order.digest);
      };
      fill.done.then(end, end);
      return {mine: true, fill};
    },
    async close() {
      stopping.abort();
      await Promise.allSettled([...fills.values()].map((fill) => fill.done));
    },
  };
}

/** The bytes of a fill that are no longer in memory: in the spool, and in the store once they are published. */
interface FillStorage {
  spool: Spool | undefined;
  published: Promise<void> | undefined;
}

function begin(parts: FillParts, order: FillOrder, stopping: AbortSignal): Fill {
  const progress = createProgress();
  const waiters = createWaiters(stopping);
  const behind: FillStorage = {spool: undefined, published: undefined};
  const sources = createSources(order.source);
  const done = run(parts, order, {sources, progress, waiters, behind, stopping});
  done.catch(() => {});
  return {
    join(source) {
      const leave = waiters.join();
      const remove = source === order.source ? () => {} : sources.add(source);
      return () => {
        leave();
        remove();
      };
    },
    beganFor: order.beganFor,
    ready: () => untilBegun(progress),
    done,
    get failed() {
      return progress.failure !== undefined;
    },
    get whole() {
      return progress.verified;
    },
    get prefix() {
      return progress.prefix;
    },
    get received() {
      return progress.received;
    },
    read: (start = 0, end = Number.POSITIVE_INFINITY) =>
      follow(progress, bytesBehind(parts.store, order.digest, behind), start, end),
  };
}

/** What one fill works with. */
interface FillState {
  sources: Sources;
  progress: Progress;
  waiters: Waiters;
  behind: FillStorage;
  stopping: AbortSignal;
}

async function run(
  {spools, space, store, lifecycle, coordination, clock, events}: FillParts,
  {digest, expected, repository, isPushed}: FillOrder,
  {sources: source, progress, waiters: demand, behind, stopping}: FillState,
): Promise<void> {
  const began = clock.monotonic();
  let claim: Claim | undefined;
  let room: Reservation | undefined;
  let endWait: Cancel | undefined;
  try {
    // Waits until no other process downloads this digest. Within this process, each digest has one fill.
    claim = await claimInTurn(coordination, `fill ${digest}`, {ttlMs: CLAIM_TTL_MS, signal: stopping});
    // Spools are on the store's disk: while that is missing, the blob is passed on without being kept.
    await writing(store.checkUnchanged());
    const reserve = isPushed ? space.reservePushed : space.reserve;
    room = await writing(reserve.call(space, expected ?? 0, () => behind.spool?.size ?? 0));
    const spool = await writing(spools.open(digest));
    behind.spool = spool;
    endWait = clock.after(MAX_HOLD_MS, () => progress.endHold());
    const found = spool.size > 0 ? spool.read(0, spool.size) : [];
    await download({digest, source, expected, found, spool, room, progress, demand, clock, events, stopping});
    const link = {type: 'blob.link' as const, digest, size: progress.received, origin: 'upstream' as const};
    const links = repository ? [{...link, repository, at: clock.now()}] : [];
    behind.published = writing(lifecycle.publish(digest, spool, links));
    progress.verify();
    await behind.published;
    // Readers go on with the store.
    progress.forgetSpooled(progress.received);
    events.emit('fill.done', {digest, size: progress.received, ms: clock.monotonic() - began});
  } catch (error) {
    progress.fail(error);
    await leave(behind.spool, progress, error, stopping);
    events.emit('fill.failed', {digest, reason: error instanceof Error ? error.message : String(error)});
    throw error;
  } finally {
    endWait?.();
    room?.release();
    await claim?.release();
  }
}

/** Keeps what was received before the upstream failed, or the server stopped, for the next attempt. Discards anything else. */
async function leave(
  spool: Spool | undefined,
  {received}: Progress,
  error: unknown,
  stopping: AbortSignal,
): Promise<void> {
  if (!spool) return;
  // What an earlier process received counts as received only after it has been hashed again.
  const isEmpty = received === 0 && spool.size === 0;
  const isWorthKeeping = !isEmpty && (error instanceof UpstreamFailure || stopping.aborted);
  await (isWorthKeeping ? spool.close() : spool.discard());
}

/**
 * While a download runs, readers behind its head share what they read of the spool; what the spool cannot give yet is still
 * in memory. Nothing stays open between two reads, so a client that stalls delays no other. Once it is published, the rest
 * comes from the store, where readers share what they read as well.
 */
const bytesBehind = (store: BlobStore, digest: Digest, behind: FillStorage): BytesBehind => ({
  async *rest(at, limit) {
    await behind.published;
    yield* store.open(digest, {start: at, end: limit - 1});
  },
  async read(at, limit) {
    const {spool} = behind;
    if (!spool) throw new Error(`nothing of ${digest} has been received`);
    return spool.piece(at, Math.min(limit, spool.size));
  },
});

/** Lets a request wait for a fill until the signal says that it no longer does. Without a signal, nobody waits. */
export function joinWhile(waiting: AbortSignal | undefined, fill: Fill, source: Source): void {
  if (!waiting || waiting.aborted) return;
  waiting.addEventListener('abort', fill.join(source), {once: true});
}
