import {setImmediate as turn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {type Algorithm, algorithmOf, type Digest, digestOf} from '../../oci/digest.ts';
import {factsOf, manifestBody} from '../../oci/manifest.ts';
import {isDigestReference, type Reference, type Tag} from '../../oci/name.ts';
import {edgeOf} from '../../oci/referrers.ts';
import {type Change, DiskFull, type ManifestRecord, type Metadata} from '../../storage/metadata.ts';
import {type ManifestBody, UpstreamFailure} from '../../upstream/port.ts';
import {isLater} from '../freshness.ts';
import {createSingleFlight} from '../keyed.ts';
import type {Route} from '../namespace.ts';
import {manifestPut, manifestType} from '../stored-manifest.ts';
import type {WriteFence} from '../write-fence.ts';

export interface Pulled {
  /** undefined: the upstream says that there is no such manifest. */
  readonly value: ManifestRecord | undefined;
  readonly collapsed: boolean;
  /** There was no room to keep it: it is good for this one answer. */
  readonly unkept?: DiskFull | undefined;
}

/** Several manifests, as the upstream gave them. */
export interface PulledTogether {
  /** In the order of their digests, less the refused; undefined: the upstream says that there is no such manifest. */
  readonly records: readonly (ManifestRecord | undefined)[];
  /** Those that could not be had, and that whoever asks can do without. */
  readonly refused: ReadonlyMap<Digest, UpstreamFailure>;
  /**
   * Resolves when they are committed, all in one. Until then, whoever asks for one of them by its digest waits for that.
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
  writes: WriteFence;
  clock: Clock;
  /** Told of each manifest; must not throw. */
  arrived(arrival: Arrival): void;
}

/**
 * Fetches manifests from the upstream, verifies them and commits them, each once however many wait for it. One that is
 * asked for alone is given also where there is no room to keep it.
 */
export interface ManifestPull {
  byDigest(route: Route, digest: Digest, caller: Caller): Promise<Pulled>;
  /** One that is here and being committed, when it is; undefined where there is no such one. */
  coming(route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined>;
  /**
   * Several side by side, given as soon as all are here. When one cannot be had, the others are kept all the same.
   * @param isRefusal tells failures that are an answer of their own, for that one manifest alone
   * @throws the first other failure; DiskFull when one was written through us meanwhile, so that they had to be kept first
   */
  byDigests(
    route: Route,
    digests: readonly Digest[],
    caller: Caller,
    isRefusal: (error: unknown) => error is UpstreamFailure,
  ): Promise<PulledTogether>;
  /**
   * Manifest and tag become one commit, dated by the question: an answer that comes after the answer to a later question
   * does not move the tag back, and the later one is given. `algorithm` names the digest that the tag is known by, where
   * the upstream's answer does not say.
   */
  byTag(route: Route, tag: Tag, caller: Caller, algorithm?: Algorithm): Promise<Pulled>;
}

/** The upstream's answer, verified and not kept yet. */
interface Fetched {
  /** When it was asked, as `Writes` counts. */
  readonly asked: number;
  /** The same by the wall clock. */
  readonly askedAt: number;
  /** What it tells of: when one of these is written through us meanwhile, the answer is an old one. */
  readonly references: readonly Reference[];
  /** undefined: there is no such manifest. */
  readonly found:
    | {
        readonly record: ManifestRecord;
        /** What keeps it; none where somebody else is keeping it. */
        readonly changes: readonly Change[];
      }
    | undefined;
}

/** What came of a question, and why it is not kept where it is not. */
interface Kept {
  readonly value: ManifestRecord | undefined;
  readonly unkept: DiskFull | undefined;
}

/** Manifests that are asked for in one turn of the event loop. */
const STEP = 5;

export function createManifestPull({metadata, writes, clock, arrived}: ManifestPullParts): ManifestPull {
  const fetches = createSingleFlight<Fetched>();
  const flights = createSingleFlight<Kept>();
  /** What is here, and is not committed yet. */
  const keeping = createSingleFlight<Kept>();

  function read({registry, repository}: Route, body: ManifestBody, digest: Digest) {
    const {bytes} = body;
    verify(body, digest, registry.upstream.host);
    const parsed = manifestBody(bytes);
    const facts = factsOf(parsed);
    const mediaType = manifestType(body.mediaType, facts, registry.upstream.host);
    const at = clock.now();
    const edge = edgeOf({digest, mediaType, bytes}, parsed);
    const changes: Change[] = [
      manifestPut({repository, digest, mediaType, bytes, edge, facts, origin: 'upstream', at}),
    ];
    const record: ManifestRecord = {digest, mediaType, bytes, origin: 'upstream', linkedAt: at};
    return {record, changes};
  }

  const now = (): Pick<Fetched, 'asked' | 'askedAt'> => ({asked: writes.moment(), askedAt: clock.now()});

  async function fetchDigest(route: Route, digest: Digest, caller: Caller): Promise<Fetched> {
    const asked = now();
    const body = await route.registry.upstream.getManifest(route.repository.name, digest, caller);
    return {...asked, references: [digest], found: body && read(route, body, digest)};
  }

  async function fetchTag(
    route: Route,
    tag: Tag,
    caller: Caller,
    algorithm: Algorithm | undefined,
  ): Promise<Fetched> {
    const asked = now();
    const body = await route.registry.upstream.getManifest(route.repository.name, tag, caller);
    if (!body) return {...asked, references: [tag], found: undefined};
    const digest = body.digest ?? digestOf(body.bytes, algorithm);
    // Deleted through us meanwhile, it does not come back by its tag.
    return {...asked, references: [tag, digest], found: read(route, body, digest)};
  }

  /** Of what is not overtaken, one commit; of what is, what was written. */
  async function keep(
    route: Route,
    all: readonly Fetched[],
    caller: Caller,
  ): Promise<(ManifestRecord | undefined)[]> {
    const settled = all.map((fetched) => ({...fetched, newer: overtakenBy(route, fetched)}));
    const kept = settled.flatMap(({found, newer}) =>
      found && newer === undefined && found.changes.length > 0 ? [found] : [],
    );
    if (kept.length > 0) await metadata.commit(kept.flatMap(({changes}) => changes));
    for (const {record} of kept) arrived({route, record, tag: undefined, caller});
    return Promise.all(
      settled.map(({found, newer}) => (newer === undefined ? found?.record : written(route, newer))),
    );
  }

  /** Manifest and tag become one commit. The answer to a later question stays where the tag is, and is given. */
  async function keepTag(
    route: Route,
    fetched: Fetched,
    tag: Tag,
    caller: Caller,
  ): Promise<ManifestRecord | undefined> {
    const {found, askedAt} = fetched;
    const {repository} = route;
    const newer = overtakenBy(route, fetched);
    if (newer !== undefined) return written(route, newer);
    if (!found) return laterAnswer(route, tag, askedAt);
    const {record, changes} = found;
    const {digest} = record;
    const moved = await metadata.commit(
      [...changes, {type: 'tag.put', repository, name: tag, digest, origin: 'upstream', at: askedAt}],
      [{type: 'tag.latest', repository, name: tag, askedAt, now: clock.now()}],
    );
    if (!moved) await metadata.commit(changes);
    arrived({route, record, tag, caller});
    return moved ? record : ((await laterAnswer(route, tag, askedAt)) ?? record);
  }

  /** What the tag points at by the answer to a later question. */
  async function laterAnswer(
    {repository}: Route,
    tag: Tag,
    askedAt: number,
  ): Promise<ManifestRecord | undefined> {
    const known = await metadata.tag(repository, tag);
    if (!known || known.goneAt !== undefined || !isLater(known, askedAt, clock.now())) return undefined;
    return metadata.manifest(repository, known.digest);
  }

  /** What was asked for alone is given also where there is no room to keep it. */
  async function orUnkept({found}: Fetched, kept: Promise<ManifestRecord | undefined>): Promise<Kept> {
    try {
      return {value: await kept, unkept: undefined};
    } catch (error) {
      if (!(error instanceof DiskFull)) throw error;
      return {value: found?.record, unkept: error};
    }
  }

  const keepOne = (route: Route, fetched: Fetched, caller: Caller): Promise<Kept> =>
    orUnkept(
      fetched,
      keep(route, [fetched], caller).then(([record]) => record),
    );

  /** What they tell may be answered before, and leaves first. */
  function keepNext(route: Route, all: readonly Fetched[], caller: Caller): Promise<void> {
    const together = turn().then(() => keep(route, all, caller));
    for (const [index, fetched] of all.entries()) {
      const [digest] = fetched.references;
      if (!digest || !fetched.found) continue;
      const one = () =>
        orUnkept(
          fetched,
          together.then((records) => records[index]),
        );
      keeping.run(keyOf(route, digest, caller), one).catch(() => undefined);
    }
    const kept = together.then(() => undefined);
    // Nobody need wait for it.
    kept.catch(() => undefined);
    return kept;
  }

  const joined = ({value, collapsed}: {value: Kept; collapsed: boolean}): Pulled => ({...value, collapsed});

  const overtakenBy = (route: Route, {references, asked}: Fetched): Reference | undefined =>
    references.find((reference) => writes.isStale(route, reference, asked));

  const keyOf = ({repository}: Route, reference: string, caller: Caller) =>
    `${repository.registry}/${repository.name} ${reference} ${caller.key}`;

  /** What was written through us while the upstream's answer was on its way. */
  async function written(route: Route, reference: Reference): Promise<ManifestRecord | undefined> {
    const {repository} = route;
    await writes.settled(route, reference);
    const digest = isDigestReference(reference)
      ? reference
      : (await metadata.tag(repository, reference))?.digest;
    return digest && metadata.manifest(repository, digest);
  }

  const coming = async (route: Route, digest: Digest, caller: Caller): Promise<ManifestRecord | undefined> =>
    (await keeping.join(keyOf(route, digest, caller)))?.value;

  /** What somebody else is keeping. */
  async function keptElsewhere(digest: Digest, kept: Promise<Kept>): Promise<Fetched> {
    const asked = now();
    const {value: record} = await kept;
    return {...asked, references: [digest], found: record && {record, changes: []}};
  }

  /** Who pulls one alone does not wait for others that are pulled with it. */
  async function fetchOnce(route: Route, digest: Digest, caller: Caller): Promise<Fetched> {
    const key = keyOf(route, digest, caller);
    const kept = keeping.join(key);
    if (kept) return keptElsewhere(digest, kept);
    return (await fetches.run(key, () => fetchDigest(route, digest, caller))).value;
  }

  /**
   * Asks for all of them, none waiting for another's answer. Questions of one turn leave together when the last is made;
   * in a few turns, the first answers are on their way before.
   */
  async function askInSteps(
    route: Route,
    digests: readonly Digest[],
    caller: Caller,
  ): Promise<Promise<Fetched>[]> {
    const asking: Promise<Fetched>[] = [];
    for (const digest of digests) {
      if (asking.length > 0 && asking.length % STEP === 0) await turn();
      const fetching = fetchOnce(route, digest, caller);
      // One that fails while others are asked for is its reader's all the same.
      fetching.catch(() => undefined);
      asking.push(fetching);
    }
    return asking;
  }

  return {
    coming,

    async byDigest(route, digest, caller) {
      const kept = keeping.join(keyOf(route, digest, caller));
      if (kept) return {...(await kept), collapsed: true};
      const flight = await flights.run(keyOf(route, digest, caller), async () =>
        keepOne(route, await fetchOnce(route, digest, caller), caller),
      );
      return joined(flight);
    },

    async byDigests(route, digests, caller, isRefusal) {
      const asked = await Promise.allSettled(await askInSteps(route, digests, caller));
      const fetched = asked.flatMap((each) => (each.status === 'fulfilled' ? [each.value] : []));
      const refused = refusals(digests, asked, isRefusal);
      const failure = asked.find((each) => each.status === 'rejected' && !isRefusal(each.reason));
      if (failure?.status === 'rejected') {
        // The upstream's word goes before the disk's: a denial must not pass for a mere want of room.
        await keep(route, fetched, caller).catch(unlessNoRoom);
        throw failure.reason;
      }
      if (fetched.some((each) => overtakenBy(route, each) !== undefined)) {
        return {records: await keep(route, fetched, caller), refused, kept: Promise.resolve()};
      }
      return {
        records: fetched.map(({found}) => found?.record),
        refused,
        kept: keepNext(route, fetched, caller),
      };
    },

    async byTag(route, tag, caller, algorithm) {
      const flight = await flights.run(keyOf(route, tag, caller), async () => {
        const fetched = await fetchTag(route, tag, caller, algorithm);
        return orUnkept(fetched, keepTag(route, fetched, tag, caller));
      });
      return joined(flight);
    },
  };
}

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

function unlessNoRoom(error: unknown): void {
  if (!(error instanceof DiskFull)) throw error;
}

function verify({bytes}: ManifestBody, digest: Digest, host: string): void {
  const actual = digestOf(bytes, algorithmOf(digest));
  if (actual === digest) return;
  throw new UpstreamFailure(
    'protocol',
    host,
    `answered with a manifest whose digest is ${actual}, not ${digest}`,
  );
}
