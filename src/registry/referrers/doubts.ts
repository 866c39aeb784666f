import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Digest} from '../../oci/digest.ts';
import {type Metadata, NoRoom} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Memory} from '../memory.ts';
import type {Route} from '../namespace.ts';

/** Referrers that are here and that the upstream's complete list lacks. */
export interface Doubts {
  /**
   * Asks the upstream about a subject's. One is dropped only when it says that there is none; what could not be asked
   * about, or removed, stays until the next round: the list is known all the same.
   */
  settle(route: Route, subject: Digest, caller: Caller): Promise<void>;
  /** Nothing is asked about this referrer for so many milliseconds. */
  confirm(route: Route, referrer: Digest, life: number): void;
}

export interface DoubtsParts {
  metadata: Metadata;
  memory: Memory;
  clock: Clock;
}

/** So many are asked about in a round, each once in a while. */
const MOST = 64;
const LIFE = 60 * 60_000;
/** Beyond so many the others are not looked at. */
const MOST_READ = 10_000;
const MOST_CONFIRMED = 10_000;

export function createDoubts({metadata, memory, clock}: DoubtsParts): Doubts {
  const confirmed = new LRUCache<string, number>({max: MOST_CONFIRMED});
  const keyOf = ({repository}: Route, referrer: Digest) =>
    `${repository.registry}/${repository.name}@${referrer}`;

  function confirm(route: Route, referrer: Digest, life: number): void {
    confirmed.set(keyOf(route, referrer), clock.monotonic() + life);
  }

  /** What was pushed here is no doubt: the upstream need not know of it. */
  async function doubtsOf(route: Route, subject: Digest): Promise<Digest[]> {
    const {repository} = route;
    const doubts: Digest[] = [];
    for (const digest of await metadata.unlistedReferrers(repository, subject, MOST_READ)) {
      if ((confirmed.get(keyOf(route, digest)) ?? Number.NEGATIVE_INFINITY) >= clock.monotonic()) continue;
      if ((await metadata.manifest(repository, digest))?.origin === 'local') continue;
      doubts.push(digest);
      if (doubts.length === MOST) break;
    }
    return doubts;
  }

  async function askAbout(route: Route, subject: Digest, caller: Caller): Promise<void> {
    const {registry, repository} = route;
    const doubts = await doubtsOf(route, subject);
    const gone = await Promise.all(
      doubts.map(async (digest) => {
        const head = await registry.upstream.headManifest(repository.name, digest, caller);
        if (head) confirm(route, digest, LIFE);
        return head ? undefined : digest;
      }),
    );
    const changes = gone
      .filter((digest) => digest !== undefined)
      .map((digest) => ({type: 'manifest.unlink' as const, repository, digest}));
    if (changes.length === 0) return;
    await metadata.commit(changes);
    for (const {digest} of changes) memory.forgetManifest(repository, digest);
  }

  return {
    confirm,

    async settle(route, subject, caller) {
      try {
        await askAbout(route, subject, caller);
      } catch (error) {
        if (!(error instanceof UpstreamFailure || error instanceof NoRoom)) throw error;
      }
    },
  };
}
