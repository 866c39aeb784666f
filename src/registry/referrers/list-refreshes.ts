import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {fullReference} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Route} from '../namespace.ts';
import type {Discovery} from './discovery.ts';
import {type Learned, type ListRecords, STALENESS_MS} from './list-records.ts';
import type {UnlistedReferrers} from './unlisted.ts';

/** A list that the upstream is asked for, and that is then stored. */
interface Refresh {
  /** When the upstream answered, on the monotonic clock; undefined until then. */
  learnedAt: number | undefined;
  readonly learned: Promise<Learned>;
  readonly written: Promise<void>;
  /** Resolves when the upstream has also been asked about our referrers that it does not list. */
  readonly verified: Promise<void>;
}

interface JoinedRefresh extends Refresh {
  /** Somebody else began it. */
  readonly collapsed: boolean;
}

/** Asks upstreams for lists and stores the answers: for each subject and caller, once at a time. */
export interface ListRefreshes {
  /**
   * Joins a refresh that is waiting for the upstream, or that is storing an answer from after `since`; otherwise begins
   * one.
   * @param since on the monotonic clock
   */
  join(route: Route, subject: Digest, caller: Caller, since: number): JoinedRefresh;
  /** A referrer was pushed through us: for a while, its absence from the upstream's list is not questioned. */
  pushed(route: Route, referrer: Digest): void;
  /** Stores what was learned so far, and nothing after that. Resolves when that has ended, even if it failed. */
  close(): Promise<void>;
}

export interface ListRefreshesParts {
  discovery: Discovery;
  records: ListRecords;
  unlisted: UnlistedReferrers;
  clock: Clock;
  events: Events;
}

export const createListRefreshes = (parts: ListRefreshesParts): ListRefreshes => new Refreshes(parts);

class Refreshes implements ListRefreshes {
  readonly #parts: ListRefreshesParts;
  readonly #running = new Map<string, Refresh>();
  /** Answers that may have been served already, until they are stored. */
  readonly #writing = new Set<Promise<void>>();
  #isClosed = false;

  constructor(parts: ListRefreshesParts) {
    this.#parts = parts;
  }

  join(route: Route, subject: Digest, caller: Caller, since: number): JoinedRefresh {
    const key = `${fullReference(route.repository, subject)} ${caller.key}`;
    const running = this.#running.get(key);
    if (running && (running.learnedAt === undefined || running.learnedAt > since)) {
      return {...running, collapsed: true};
    }
    const started = this.#start(route, subject, caller);
    this.#running.set(key, started);
    const {learned, written} = started;
    const end = (): void => {
      this.#writing.delete(written);
      if (this.#running.get(key) === started) this.#running.delete(key);
    };
    learned.then(
      () => this.#writing.add(written),
      () => undefined,
    );
    written.then(end, end);
    // It continues when nobody waits for it any longer. The next request finds what it brought.
    started.verified.catch((error) => {
      if (error instanceof UpstreamFailure) return;
      this.#parts.events.emit('background.failed', {task: 'list referrers', error});
    });
    return {...started, collapsed: false};
  }

  pushed(route: Route, referrer: Digest): void {
    this.#parts.unlisted.confirm(route, referrer, STALENESS_MS);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled([...this.#writing, this.#parts.unlisted.close()]);
  }

  #start(route: Route, subject: Digest, caller: Caller): Refresh {
    const {discovery, records, unlisted, clock} = this.#parts;
    const learn = async (): Promise<Learned> => {
      const at = clock.now();
      const discovered = await discovery.ask(route, subject, caller);
      // An incomplete answer is for those who wait for it already: nobody else joins.
      const isWhole = discovered.skipped.length === 0;
      refresh.learnedAt = isWhole ? clock.monotonic() : Number.NEGATIVE_INFINITY;
      return {...discovered, at};
    };
    const write = async (list: Learned): Promise<void> => {
      // By now the metadata may be closed.
      if (this.#isClosed) return;
      await list.kept;
      await records.keep(route, subject, list);
    };
    const learned = learn();
    const written = learned.then(write);
    const verified = written.then(() => unlisted.verify(route, subject, caller));
    const refresh: Refresh = {learnedAt: undefined, learned, written, verified};
    return refresh;
  }
}
