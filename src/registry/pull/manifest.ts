import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Algorithm, Digest} from '../../oci/digest.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {DiskFull, fullReference, type ManifestRecord, type Metadata} from '../../storage/metadata.ts';
import type {UpstreamFailure} from '../../upstream/port.ts';
import {isLater} from '../freshness.ts';
import {createSingleFlight, type SingleFlight} from '../keyed.ts';
import type {Route} from '../namespace.ts';
import type {WriteFence} from '../write-fence.ts';
import {createManifestFetch, type Fetched, type Kept, type ManifestFetch, orUnkept} from './fetch.ts';

export interface Pulled {
  /** undefined: the upstream says that there is no such manifest. */
  readonly value: ManifestRecord | undefined;
  readonly collapsed: boolean;
  /** The disk was too full to keep it: it serves this one answer. */
  readonly unkept?: DiskFull | undefined;
}

/** Several manifests, as the upstream gave them. */
export interface PulledTogether {
  /** In the order of their digests, without the refused ones; undefined: the upstream has no such manifest. */
  readonly records: readonly (ManifestRecord | undefined)[];
  /** Those that could not be had, and that the caller can do without. */
  readonly refused: ReadonlyMap<Digest, UpstreamFailure>;
  /**
   * Resolves when they are committed, all in one. A request for one of them by its digest waits for that.
   * @throws DiskFull
   */
  readonly kept: Promise<void>;
}

/** A manifest that was just fetched and committed. */
export interface Arrival {
  readonly route: Route;
  readonly record: ManifestRecord;
  /** The tag that it was asked for by. */
  readonly tag: Tag | undefined;
  readonly caller: Caller;
}

export interface ManifestPullParts {
  metadata: Metadata;
  writeFence: WriteFence;
  clock: Clock;
  /** Called with each manifest; must not throw. */
  arrived(arrival: Arrival): void;
}

/**
 * Fetches manifests from the upstream, verifies them and commits them, each once however many wait for it. A manifest
 * that is asked for alone is given even when the disk is too full to keep it.
 */
export interface ManifestPull {
  /**
   * The repository's manifest from the metadata, else from the upstream.
   * @param spend called before the upstream is asked; what it throws keeps the request from being made
   */
  localOrByDigest(route: Route, digest: Digest, caller: Caller, spend?: () => void): Promise<Pulled>;
  byDigest(route: Route, digest: Digest, caller: Caller): Promise<Pulled>;
  /** The manifest, if it has arrived and is being committed. */
  coming(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined>;
  /**
   * Fetches several side by side. When one cannot be had, the others are kept all the same.
   * @param isRefusal recognizes failures that concern one manifest alone, and that the caller can do without
   * @throws the first other failure; DiskFull when one was written through us meanwhile, so that they had to be kept
   * before they could be given
   */
  byDigests(
    route: Route,
    digests: readonly Digest[],
    caller: Caller,
    isRefusal: (error: unknown) => error is UpstreamFailure,
  ): Promise<PulledTogether>;
  /**
   * Commits manifest and tag together. The tag is dated by its question: an answer that comes after the answer to a
   * later question does not move the tag back, and the later one is given.
   * @param algorithm of the digest that the tag is known by, where the upstream's answer does not name one
   */
  byTag(route: Route, tag: Tag, caller: Caller, algorithm?: Algorithm): Promise<Pulled>;
}

/** @throws DiskFull for a manifest that could not be kept */
export function keptIn({value, unkept}: Pulled): ManifestRecord | undefined {
  if (unkept) throw unkept;
  return value;
}

/** Manifests that are asked for in one turn of the event loop. */
const QUESTIONS_PER_TURN = 5;

export const createManifestPull = (parts: ManifestPullParts): ManifestPull => new SharedManifestPull(parts);

class SharedManifestPull implements ManifestPull {
  readonly #metadata: Metadata;
  readonly #writeFence: WriteFence;
  readonly #clock: Clock;
  readonly #arrived: ManifestPullParts['arrived'];
  readonly #fetch: ManifestFetch;
  readonly #fetches: SingleFlight<Fetched> = createSingleFlight();
  readonly #flights: SingleFlight<Kept> = createSingleFlight();
  /** What has arrived and is not committed yet. */
  readonly #keeping: SingleFlight<Kept> = createSingleFlight();

  constructor({metadata, writeFence, clock, arrived}: ManifestPullParts) {
    this.#metadata = metadata;
    this.#writeFence = writeFence;
    this.#clock = clock;
    this.#arrived = arrived;
    this.#fetch = createManifestFetch({writeFence, clock});
  }

  async localOrByDigest(route: Route, digest: Digest, caller: Caller, spend?: () => void): Promise<Pulled> {
    const here = await this.#metadata.manifest(route.repository, digest);
    if (here) return {value: here, collapsed: false};
    spend?.();
    return this.byDigest(route, digest, caller);
  }

  async coming(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> {
    return (await this.#keeping.join(keyOf(route, digest, caller)))?.value;
  }

  async byDigest(route: Route, digest: Digest, caller: Caller): Promise<Pulled> {
    const key = keyOf(route, digest, caller);
    const keeping = this.#keeping.join(key);
    if (keeping) return {...(await keeping), collapsed: true};
    const {value: kept, collapsed} = await this.#flights.run(key, async () => {
      const fetched = await this.#fetchOnce(route, digest, caller);
      return orUnkept(fetched, first(this.#keep(route, [fetched], caller)));
    });
    return {...kept, collapsed};
  }

  async byTag(route: Route, tag: Tag, caller: Caller, algorithm?: Algorithm): Promise<Pulled> {
    const {value: kept, collapsed} = await this.#flights.run(keyOf(route, tag, caller), async () => {
      const fetched = await this.#fetch.tag(route, tag, caller, algorithm);
      return orUnkept(fetched, this.#keepTag(route, fetched, tag, caller));
    });
    return {...kept, collapsed};
  }

  async byDigests(
    route: Route,
    digests: readonly Digest[],
    caller: Caller,
    isRefusal: (error: unknown) => error is UpstreamFailure,
  ): Promise<PulledTogether> {
    const asked = await Promise.allSettled(await this.#askInSteps(route, digests, caller));
    const fetched = asked.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
    const refused = refusals(digests, asked, isRefusal);
    const failure = asked.find((each) => each.status === 'rejected' && !isRefusal(each.reason));
    if (failure?.status === 'rejected') {
      // The upstream's failure matters more than a full disk: a denial must not pass for a lack of space.
      await this.#keep(route, fetched, caller).catch(unlessDiskFull);
      throw failure.reason;
    }
    if (fetched.some((each) => this.#staleReference(route, each) !== undefined)) {
      const records = await this.#keep(route, fetched, caller);
      return {records, refused, kept: Promise.resolve()};
    }
    const kept = this.#keepNextTurn(route, fetched, caller);
    return {records: fetched.map(({found}) => found?.record), refused, kept};
  }

  /**
   * Asks for all of them; none waits for another's answer. Questions of one turn of the event loop are sent when the
   * last of them is made: over a few turns, the first answers are on their way before that.
   */
  async #askInSteps(route: Route, digests: readonly Digest[], caller: Caller): Promise<Promise<Fetched>[]> {
    const asking: Promise<Fetched>[] = [];
    for (const digest of digests) {
      if (asking.length > 0 && asking.length % QUESTIONS_PER_TURN === 0) await nextTurn();
      const fetching = this.#fetchOnce(route, digest, caller);
      // A failure while others are still asked for is handled where all are awaited.
      fetching.catch(() => undefined);
      asking.push(fetching);
    }
    return asking;
  }

  /** A pull of one manifest does not wait for others that are pulled with it. */
  async #fetchOnce(route: Route, digest: Digest, caller: Caller): Promise<Fetched> {
    const key = keyOf(route, digest, caller);
    const keeping = this.#keeping.join(key);
    if (keeping) return this.#fetch.kept(digest, keeping);
    return (await this.#fetches.run(key, () => this.#fetch.digest(route, digest, caller))).value;
  }

  /** Commits what is not stale, all in one. For what is stale, gives what was written instead. */
  async #keep(
    route: Route,
    all: readonly Fetched[],
    caller: Caller,
  ): Promise<(ManifestRecord | undefined)[]> {
    const judged = all.map((fetched) => ({...fetched, stale: this.#staleReference(route, fetched)}));
    const kept = judged.flatMap(({found, stale}) =>
      found && stale === undefined && found.changes.length > 0 ? [found] : [],
    );
    if (kept.length > 0) await this.#metadata.commit(kept.flatMap(({changes}) => changes));
    for (const {record} of kept) this.#arrived({route, record, tag: undefined, caller});
    return Promise.all(
      judged.map(({found, stale}) => (stale === undefined ? found?.record : this.#written(route, stale))),
    );
  }

  /** Commits in the next turn of the event loop, so that the answer that waits for the records is sent first. */
  #keepNextTurn(route: Route, all: readonly Fetched[], caller: Caller): Promise<void> {
    const together = nextTurn().then(() => this.#keep(route, all, caller));
    for (const [index, fetched] of all.entries()) {
      const [digest] = fetched.references;
      if (!digest || !fetched.found) continue;
      const one = () =>
        orUnkept(
          fetched,
          together.then((records) => records[index]),
        );
      this.#keeping.run(keyOf(route, digest, caller), one).catch(() => undefined);
    }
    const kept = together.then(() => undefined);
    // Waiting for it is optional.
    kept.catch(() => undefined);
    return kept;
  }

  async #keepTag(
    route: Route,
    fetched: Fetched,
    tag: Tag,
    caller: Caller,
  ): Promise<ManifestRecord | undefined> {
    const {found, askedAt} = fetched;
    const {repository} = route;
    const stale = this.#staleReference(route, fetched);
    if (stale !== undefined) return this.#written(route, stale);
    if (!found) return this.#laterAnswer(route, tag, askedAt);
    const {record, changes} = found;
    const {digest} = record;
    const moved = await this.#metadata.commit(
      [...changes, {type: 'tag.put', repository, name: tag, digest, origin: 'upstream', at: askedAt}],
      [{type: 'tag.latest', repository, name: tag, askedAt, now: this.#clock.now()}],
    );
    if (!moved) await this.#metadata.commit(changes);
    this.#arrived({route, record, tag, caller});
    return moved ? record : ((await this.#laterAnswer(route, tag, askedAt)) ?? record);
  }

  /** What the tag points at by the answer to a later question. */
  async #laterAnswer({repository}: Route, tag: Tag, askedAt: number): Promise<ManifestRecord | undefined> {
    const known = await this.#metadata.tag(repository, tag);
    if (!known || known.goneAt !== undefined) return undefined;
    if (!isLater(known, askedAt, this.#clock.now())) return undefined;
    return this.#metadata.manifest(repository, known.digest);
  }

  #staleReference(route: Route, {references, asked}: Fetched): Reference | undefined {
    return references.find((reference) => this.#writeFence.isStale(route, reference, asked));
  }

  /** What was written through us while the upstream's answer was on its way. */
  async #written(route: Route, reference: Reference): Promise<ManifestRecord | undefined> {
    const {repository} = route;
    await this.#writeFence.idle(route, reference);
    const digest = isDigestReference(reference)
      ? reference
      : (await this.#metadata.tag(repository, reference))?.digest;
    return digest && this.#metadata.manifest(repository, digest);
  }
}

const keyOf = ({repository}: Route, reference: Reference, caller: Caller): string =>
  `${fullReference(repository, reference)} ${caller.key}`;

const first = async <T>(all: Promise<readonly T[]>): Promise<T | undefined> => (await all)[0];

function refusals(
  digests: readonly Digest[],
  asked: readonly PromiseSettledResult<unknown>[],
  isRefusal: (error: unknown) => error is UpstreamFailure,
): Map<Digest, UpstreamFailure> {
  const refused = new Map<Digest, UpstreamFailure>();
  for (const [index, digest] of digests.entries()) {
    const each = asked[index];
    if (each?.status === 'rejected' && isRefusal(each.reason)) refused.set(digest, each.reason);
  }
  return refused;
}

function unlessDiskFull(error: unknown): void {
  if (!(error instanceof DiskFull)) throw error;
}
