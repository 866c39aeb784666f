import {setImmediate as nextTurn} from 'node:timers/promises';
import {ANONYMOUS} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import {algorithmOf, type Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {readManifest} from '../../oci/manifest.ts';
import {isTag, type Tag} from '../../oci/name.ts';
import {edgeOf} from '../../oci/referrers.ts';
import type {Change, ManifestRecord, Metadata} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {type Aging, freshness, type TagPolicy} from '../freshness.ts';
import type {Route} from '../namespace.ts';
import {createManifestPull, keptIn, type ManifestPull} from '../pull/manifest.ts';
import {requireServed} from '../served.ts';
import {policyOf} from '../tag-policies.ts';
import type {TagLists} from '../tags/tag-lists.ts';
import type {WriteFence} from '../write-fence.ts';

export interface IndexResult {
  /** Tags that the upstream lists. */
  tags: number;
  /** Tags whose manifest, with everything that it leads to, is stored now. */
  indexed: number;
  /** Manifests that were found, each once. */
  manifests: number;
  /** Those of them that refer to another manifest. */
  referrers: number;
  /** Requests made to the upstream, without retries and requests for tokens. */
  requests: number;
  /** Everything that the tags lead to is stored. */
  complete: boolean;
  /** Why the walk ended early; single tags that fail do not end it. */
  stopped: string | undefined;
  /** The first tags that failed, each with the reason. */
  failures: {tag: string; reason: string}[];
  /** How many tags failed. */
  failed: number;
}

export interface IndexOptions {
  /** How many requests may be made to the upstream; at least 1. */
  budget: number;
  /** Ends the walk between two requests. What was indexed until then stays. */
  signal: AbortSignal;
  /** Called after every tag. */
  progress(state: IndexResult): void;
}

/**
 * Walks the tags of an upstream's repository and stores every manifest that they lead to, so that those with a subject
 * are listed as referrers even if no client ever wrote a fallback tag. Fallback tags are tags as well.
 */
export interface IndexRepository {
  /**
   * What is stored costs no request: manifests, and tags that are fresh by their registry's policy. Tags that were
   * never seen come first, so that repeated runs reach all tags, however small the budget.
   * @throws UpstreamFailure when the tags could not be listed; OciError NAME_UNKNOWN when the repository does not exist;
   * the signal's reason
   */
  run(route: Route, options: IndexOptions): Promise<IndexResult>;
}

export interface IndexRepositoryParts {
  metadata: Metadata;
  writeFence: WriteFence;
  tagLists: Pick<TagLists, 'renew'>;
  clock: Clock;
}

/** Tags that are followed at a time. */
const CONCURRENCY = 4;
const MAX_FAILURES = 20;
/** Tags that are looked up before waiting requests have their turn. */
const TAGS_PER_TURN = 100;
const NOTHING = {
  tags: 0,
  indexed: 0,
  manifests: 0,
  referrers: 0,
  requests: 0,
  complete: false,
  stopped: undefined,
  failed: 0,
};
/** An upstream that fails in one of these ways will fail the next tag as well. */
const FINAL = new Set<UpstreamFailure['kind']>(['throttled', 'credentials', 'open']);

/** Ends the walk early, for a reason that the result gives. */
class Stop extends Error {}

export function createIndexRepository(parts: IndexRepositoryParts): IndexRepository {
  const {metadata, writeFence, clock} = parts;
  // Its own pull: its requests are not shared with those of clients, and do not start a prefetch.
  const pull = createManifestPull({metadata, writeFence, clock, arrived: () => {}});
  return {
    async run(route, options) {
      requireServed(route);
      return new Indexing({...parts, pull, route}, options).run();
    },
  };
}

/** One walk over the tags of a repository, with its result. */
class Indexing {
  readonly #options: IndexOptions;
  readonly #walk: TagWalk;
  readonly #result: IndexResult = {...NOTHING, failures: []};
  #stop: Stop | undefined;

  constructor(walk: Omit<TagWalkParts, 'spend' | 'found'>, options: IndexOptions) {
    this.#options = options;
    this.#walk = new TagWalk({
      ...walk,
      spend: () => this.#spend(),
      found: (record) => this.#count(record),
    });
  }

  async run(): Promise<IndexResult> {
    const result = this.#result;
    try {
      const tags = await this.#walk.tags();
      result.tags = tags.length;
      const queue = tags.values();
      const worker = async (): Promise<void> => {
        for (const tag of queue) await this.#follow(tag);
      };
      await allEnded(Array.from({length: CONCURRENCY}, worker));
    } catch (error) {
      if (!(error instanceof Stop)) throw error;
      result.stopped = error.message;
    }
    result.complete = result.stopped === undefined && result.failed === 0;
    return result;
  }

  #spend(): void {
    const {budget, signal} = this.#options;
    signal.throwIfAborted();
    if (this.#result.requests >= budget) {
      this.#stop ??= new Stop(`the budget of ${budget} requests is spent`);
    }
    if (this.#stop) throw this.#stop;
    this.#result.requests += 1;
  }

  #count(record: ManifestRecord): void {
    this.#result.manifests += 1;
    if (edgeOf(record)) this.#result.referrers += 1;
  }

  async #follow(tag: Tag): Promise<void> {
    const result = this.#result;
    try {
      await this.#walk.follow(tag);
      result.indexed += 1;
    } catch (error) {
      if (!(error instanceof UpstreamFailure)) throw error;
      if (FINAL.has(error.kind)) {
        this.#stop ??= new Stop(error.message, {cause: error});
        throw this.#stop;
      }
      result.failed += 1;
      if (result.failures.length < MAX_FAILURES) result.failures.push({tag, reason: error.message});
    }
    this.#options.progress(structuredClone(result));
  }
}

/** As `Promise.all`, but when it rejects, nothing is under way any more. */
async function allEnded(work: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(work);
  await Promise.all(work);
}

interface TagWalkParts extends IndexRepositoryParts {
  pull: ManifestPull;
  route: Route;
  /** Called before each request to the upstream, which is not made if this throws. */
  spend(): void;
  /** Called for every manifest, once. */
  found(record: ManifestRecord): void;
}

/** Leads from the tags of a repository to the manifests. */
class TagWalk {
  readonly #parts: TagWalkParts;
  readonly #visited = new Set<Digest>();

  constructor(parts: TagWalkParts) {
    this.#parts = parts;
  }

  /**
   * The upstream's tags: first those that were never seen here, then those that were checked longest ago.
   * @throws OciError NAME_UNKNOWN when the upstream has no repository; UpstreamFailure
   */
  async tags(): Promise<Tag[]> {
    const {metadata, route} = this.#parts;
    const aged: {tag: Tag; checkedAt: number}[] = [];
    for (const tag of (await this.#names()).filter(isTag)) {
      if (aged.length % TAGS_PER_TURN === 0) await nextTurn();
      const known = await metadata.tag(route.repository, tag);
      aged.push({tag, checkedAt: known?.checkedAt ?? 0});
    }
    return aged.sort((one, other) => one.checkedAt - other.checkedAt).map(({tag}) => tag);
  }

  /** Stores the tag's manifest and, of an index, its children. What no longer exists is skipped. @throws UpstreamFailure */
  async follow(tag: Tag): Promise<void> {
    const record = await this.#manifestOf(tag);
    if (!record || this.#visited.has(record.digest)) return;
    this.#visited.add(record.digest);
    await this.#descend(record);
  }

  async #names(): Promise<readonly string[]> {
    const {metadata, tagLists, route, spend} = this.#parts;
    const known = await metadata.tagList(route.repository);
    if (known && this.#isFresh(known, route.registry.tags)) return known.names;
    const list = await tagLists.renew(route, ANONYMOUS, spend);
    if (list) return list;
    const {repository, registry} = route;
    throw new OciError('NAME_UNKNOWN', {
      message: `${registry.upstream.host} has no repository ${repository.name}`,
    });
  }

  #isFresh(known: Aging, policy: TagPolicy): boolean {
    const {clock} = this.#parts;
    return freshness({now: clock.now(), known, policy, upstream: 'unasked'}) === 'fresh';
  }

  async #manifestOf(tag: Tag): Promise<ManifestRecord | undefined> {
    const {metadata, writeFence, clock, route, spend} = this.#parts;
    const {repository, registry} = route;
    const known = await metadata.tag(repository, tag);
    const stored = known && (await metadata.manifest(repository, known.digest));
    // A tag that was pushed here does not say anything about the upstream's.
    const policy = policyOf(registry, repository.name, tag);
    if (stored && known.origin === 'upstream' && this.#isFresh(known, policy)) return stored;
    spend();
    const asked = writeFence.current();
    const askedAt = clock.now();
    const head = await registry.upstream.headManifest(repository.name, tag, ANONYMOUS);
    if (writeFence.isStale(route, tag, asked)) return stored;
    if (!head) {
      if (known) await this.#commit(tag, askedAt, {type: 'tag.gone', repository, name: tag, at: askedAt});
      return undefined;
    }
    const {digest} = head;
    const same = digest && (await metadata.manifest(repository, digest));
    if (!same) return this.#pullTag(tag, known?.digest);
    const put = {type: 'tag.put' as const, repository, name: tag, digest, origin: 'upstream' as const};
    await this.#commit(tag, askedAt, {...put, at: askedAt});
    return same;
  }

  async #pullTag(tag: Tag, known: Digest | undefined): Promise<ManifestRecord | undefined> {
    const {pull, route, spend} = this.#parts;
    spend();
    return keptIn(await pull.byTag(route, tag, ANONYMOUS, known && algorithmOf(known)));
  }

  /** Changes nothing if the answer to a later question is known. */
  async #commit(tag: Tag, askedAt: number, change: Change): Promise<void> {
    const {metadata, clock, route} = this.#parts;
    const {repository} = route;
    const latest = {type: 'tag.latest' as const, repository, name: tag, askedAt, now: clock.now()};
    await metadata.commit([change], [latest]);
  }

  async #descend(record: ManifestRecord): Promise<void> {
    this.#parts.found(record);
    for (const {digest} of readManifest(record.bytes).manifests) {
      if (this.#visited.has(digest)) continue;
      this.#visited.add(digest);
      const found = await this.#child(digest);
      if (found) await this.#descend(found);
    }
  }

  async #child(digest: Digest): Promise<ManifestRecord | undefined> {
    const {pull, route, spend} = this.#parts;
    // Reads run on this thread: waiting requests come first.
    await nextTurn();
    return keptIn(await pull.localOrByDigest(route, digest, ANONYMOUS, spend));
  }
}
