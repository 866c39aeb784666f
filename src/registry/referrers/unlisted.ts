import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import {DiskFull, type Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';
import type {WriteFence} from '../write-fence.ts';

/** Referrers that are here and that the upstream's complete list lacks. */
export interface UnlistedReferrers {
  /**
   * Asks the upstream about a subject's. One is dropped only when it says that there is none; what could not be asked
   * about, or removed, stays until the next round: the list is known all the same.
   */
  settle(route: Route, subject: Digest, caller: Caller): Promise<void>;
  /** Nothing is asked about this referrer for so many milliseconds. */
  confirm(route: Route, referrer: Digest, life: number): void;
  /** Drops nothing more. Resolves when what is being dropped is. */
  close(): Promise<void>;
}

export interface UnlistedReferrersParts {
  metadata: Metadata;
  memory: Memory;
  writes: WriteFence;
  clock: Clock;
}

/** So many are asked about in a round, each once in a while. */
const MOST = 64;
const LIFE = 60 * 60_000;
/** Beyond so many the others are not looked at. */
const MAX_READ = 10_000;
const MAX_CONFIRMED = 10_000;

export function createUnlistedReferrers({
  metadata,
  memory,
  writes,
  clock,
}: UnlistedReferrersParts): UnlistedReferrers {
  const dropping = new Set<Promise<unknown>>();
  let closed = false;
  const confirmed = new LRUCache<string, number>({max: MAX_CONFIRMED});
  const keyOf = ({repository}: Route, referrer: Digest) =>
    `${repository.registry}/${repository.name}@${referrer}`;

  function confirm(route: Route, referrer: Digest, life: number): void {
    confirmed.set(keyOf(route, referrer), clock.monotonic() + life);
  }

  /** What was pushed here is no doubt: the upstream need not know of it. */
  async function doubtsOf(route: Route, subject: Digest): Promise<Digest[]> {
    const {repository} = route;
    const unlisted: Digest[] = [];
    for (const digest of await metadata.unlistedReferrers(repository, subject, MAX_READ)) {
      if ((confirmed.get(keyOf(route, digest)) ?? Number.NEGATIVE_INFINITY) >= clock.monotonic()) continue;
      if ((await metadata.manifest(repository, digest))?.origin === 'local') continue;
      unlisted.push(digest);
      if (unlisted.length === MOST) break;
    }
    return unlisted;
  }

  async function askAbout(route: Route, subject: Digest, caller: Caller): Promise<void> {
    const {registry, repository} = route;
    const unlisted = await doubtsOf(route, subject);
    const asked = writes.moment();
    const answers = await Promise.allSettled(
      unlisted.map(async (digest) => ({
        digest,
        head: await registry.upstream.headManifest(repository.name, digest, caller),
      })),
    );
    const told = answers.flatMap((answer) => (answer.status === 'fulfilled' ? [answer.value] : []));
    for (const {digest, head} of told) if (head) confirm(route, digest, LIFE);
    const gone = told.filter(({head}) => !head).map(({digest}) => digest);
    await drop(route, gone, asked);
    const failure = answers.find((answer) => answer.status === 'rejected');
    if (failure) throw failure.reason;
  }

  /** What was pushed through us since the upstream was asked is there by now. */
  async function drop(route: Route, gone: readonly Digest[], asked: number): Promise<void> {
    const {repository} = route;
    const digests = gone.filter((digest) => !writes.isStale(route, digest, asked));
    if (closed || digests.length === 0) return;
    // Not a moment later: a push that begins now is committed behind this.
    const dropped = metadata.commit(
      digests.map((digest) => ({type: 'manifest.unlink' as const, repository, digest})),
    );
    dropping.add(dropped);
    try {
      await dropped;
    } finally {
      dropping.delete(dropped);
    }
    for (const digest of digests) memory.forgetManifest(repository, digest);
  }

  return {
    confirm,

    async settle(route, subject, caller) {
      try {
        await askAbout(route, subject, caller);
      } catch (error) {
        if (!(error instanceof UpstreamFailure || error instanceof DiskFull)) throw error;
      }
    },

    async close() {
      closed = true;
      await Promise.allSettled(dropping);
    },
  };
}
