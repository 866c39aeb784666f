import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {createLru} from '../../lru.ts';
import type {Digest} from '../../oci/digest.ts';
import {DiskFull, fullReference, type Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import type {WriteFence} from '../write-fence.ts';

/** Referrers that are stored here but missing from the upstream's complete list. */
export interface UnlistedReferrers {
  /**
   * Asks the upstream about those of a subject. One is dropped only if the upstream says that it does not exist. What
   * could not be asked about, or dropped, stays until the next time: the list is known all the same.
   */
  verify(route: Route, subject: Digest, caller: Caller): Promise<void>;
  /** The upstream is not asked about this referrer for `life` milliseconds. */
  confirm(route: Route, referrer: Digest, life: number): void;
  /** Drops nothing more. Resolves when the drops under way have ended. */
  close(): Promise<void>;
}

export interface UnlistedReferrersParts {
  metadata: Metadata;
  memory: Memory;
  writeFence: WriteFence;
  clock: Clock;
}

/** Referrers that are asked about at a time. */
const MAX_ASKED = 64;
/** How long a referrer that exists at the upstream is not asked about again. */
const CONFIRMED_LIFE_MS = 60 * 60_000;
/** Unlisted referrers of one subject that are looked at; the others are ignored. */
const MAX_READ = 10_000;
const MAX_CONFIRMED = 10_000;

export const createUnlistedReferrers = (parts: UnlistedReferrersParts): UnlistedReferrers =>
  new StoredUnlistedReferrers(parts);

const keyOf = ({repository}: Route, referrer: Digest): string => fullReference(repository, referrer);

class StoredUnlistedReferrers implements UnlistedReferrers {
  readonly #parts: UnlistedReferrersParts;
  readonly #dropping = new Set<Promise<unknown>>();
  /** Until when a referrer is not asked about, on the monotonic clock. */
  readonly #confirmed = createLru<string, number>(MAX_CONFIRMED);
  #isClosed = false;

  constructor(parts: UnlistedReferrersParts) {
    this.#parts = parts;
  }

  async verify(route: Route, subject: Digest, caller: Caller): Promise<void> {
    try {
      await this.#askAbout(route, subject, caller);
    } catch (error) {
      if (!(error instanceof UpstreamFailure || error instanceof DiskFull)) throw error;
    }
  }

  confirm(route: Route, referrer: Digest, life: number): void {
    this.#confirmed.set(keyOf(route, referrer), this.#parts.clock.monotonic() + life);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#dropping);
  }

  async #askAbout(route: Route, subject: Digest, caller: Caller): Promise<void> {
    const {registry, repository} = route;
    const unlisted = await this.#unconfirmed(route, subject);
    const asked = this.#parts.writeFence.current();
    const answers = await Promise.allSettled(
      unlisted.map(async (digest) => ({
        digest,
        head: await registry.upstream.headManifest(repository.name, digest, caller),
      })),
    );
    const answered = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    for (const {digest, head} of answered) if (head) this.confirm(route, digest, CONFIRMED_LIFE_MS);
    const gone = answered.filter(({head}) => !head).map(({digest}) => digest);
    await this.#drop(route, gone, asked);
    const failure = answers.find((answer) => answer.status === 'rejected');
    if (failure) throw failure.reason;
  }

  /** Leaves out what was pushed here: the upstream need not know it. */
  async #unconfirmed(route: Route, subject: Digest): Promise<Digest[]> {
    const {metadata, clock} = this.#parts;
    const {repository} = route;
    const unlisted: Digest[] = [];
    for (const digest of await metadata.unlistedReferrers(repository, subject, MAX_READ)) {
      const confirmedUntil = this.#confirmed.get(keyOf(route, digest)) ?? Number.NEGATIVE_INFINITY;
      if (confirmedUntil >= clock.monotonic()) continue;
      if ((await metadata.manifest(repository, digest))?.origin === 'local') continue;
      unlisted.push(digest);
      if (unlisted.length === MAX_ASKED) break;
    }
    return unlisted;
  }

  /** Leaves out what was pushed through us since the upstream was asked: by now it exists there. */
  async #drop(route: Route, gone: readonly Digest[], asked: number): Promise<void> {
    const {metadata, memory, writeFence} = this.#parts;
    const {repository} = route;
    const digests = gone.filter((digest) => !writeFence.isStale(route, digest, asked));
    if (this.#isClosed || digests.length === 0) return;
    // Nothing may be awaited since `isStale`: a push that begins now is committed after this.
    const drop = metadata.commit(
      digests.map((digest) => ({type: 'manifest.unlink' as const, repository, digest})),
    );
    this.#dropping.add(drop);
    try {
      await drop;
    } finally {
      this.#dropping.delete(drop);
    }
    for (const digest of digests) memory.forgetManifest(repository, digest);
  }
}
