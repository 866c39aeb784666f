import {setImmediate as nextTurn} from 'node:timers/promises';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {createLru} from '../../lru.ts';
import {OciError} from '../../oci/errors.ts';
import type {Tag} from '../../oci/name.ts';
import {type Change, fullName, type Metadata, type TagListRecord} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import type {Access} from '../access.ts';
import {toOciErrors} from '../failure.ts';
import {
  absentTtl,
  ageOf,
  type CacheReport,
  freshness,
  HIT,
  servableDespite,
  staleReport,
} from '../freshness.ts';
import {createKeyedMutex, createSingleFlight, type KeyedMutex, type SingleFlight} from '../keyed.ts';
import type {Route} from '../namespace.ts';
import {type NegativeCache, repositoryAbsence} from '../negative-cache.ts';
import {byBytes, MAX_ENTRIES, type Page, type PageQuery, pageOf, visibleInSteps} from '../page.ts';
import {hitReport, tagListPolicy} from '../quota.ts';
import {storeIfSpace} from '../store-if-space.ts';
import {createOwnTagLists} from './own-tag-lists.ts';
import type {TagOptions} from './tags.ts';

export interface TagListAnswer extends Page {
  readonly report: CacheReport;
}

/** dist-spec, Listing Tags. */
export interface TagLists {
  /**
   * A page of those of the repository's tags that the caller may pull, merged from all pages of the upstream and from what was pushed here.
   * @throws OciError NAME_UNKNOWN where the upstream says so; DENIED, UNAVAILABLE or TOOMANYREQUESTS where it could
   * not be asked and no list here may be served
   */
  list(route: Route, query: PageQuery, caller: Caller, options: TagOptions): Promise<TagListAnswer>;
  /**
   * Tags were put or deleted through us. The list is asked for again when it is next wanted, an answer to a question
   * from before is not kept, and the list that is served while the upstream fails has the change.
   */
  changed(route: Route, tags: {put: readonly Tag[]; deleted: readonly Tag[]}): Promise<void>;
  /**
   * The upstream's whole list, asked for whatever the age of the one that is here, and kept; undefined where it has no
   * such repository.
   * @param spend called before each request; what it throws keeps the request from being made
   * @throws UpstreamFailure
   */
  renew(route: Route, caller: Caller, spend: () => void): Promise<readonly string[] | undefined>;
}

/** `list` is undefined where the upstream has no such repository. */
interface UpstreamList {
  readonly list: TagListRecord | undefined;
  readonly report: CacheReport;
}

interface Question {
  /** Milliseconds since the epoch. */
  readonly askedAt: number;
  /** The last change of the repository's tags that was made through us before it. */
  readonly change: symbol | undefined;
}

/**
 * What became of an answer: it is kept, or there is no space for it; tags were put or deleted through us after its
 * question; or the answer to a later question is known.
 */
type KeepOutcome = 'kept' | 'no-space' | 'changed' | 'later';

export interface TagListsParts {
  metadata: Metadata;
  access: Pick<Access, 'visibleTags'>;
  negativeCache: NegativeCache;
  clock: Clock;
  events: Events;
}

/** A list that the upstream has just given, and whether it is kept; no list where it has no such repository. */
interface ReceivedList {
  readonly list: TagListRecord | undefined;
  readonly stored: boolean;
}

/** How often to ask for a list while tags are put meanwhile. */
const MAX_ATTEMPTS = 3;
const MAX_CHANGES = 10_000;

export const createTagLists = (parts: TagListsParts): TagLists => new MergedTagLists(parts);

class MergedTagLists implements TagLists {
  readonly #metadata: Metadata;
  readonly #access: TagListsParts['access'];
  readonly #negativeCache: NegativeCache;
  readonly #clock: Clock;
  readonly #events: Events;
  readonly #asking: SingleFlight<ReceivedList> = createSingleFlight();
  readonly #mutex: KeyedMutex = createKeyedMutex();
  /** The last change of each repository's tags that was made through us. */
  readonly #changes = createLru<string, symbol>(MAX_CHANGES);
  readonly #own = createOwnTagLists();

  constructor({metadata, access, negativeCache, clock, events}: TagListsParts) {
    this.#metadata = metadata;
    this.#access = access;
    this.#negativeCache = negativeCache;
    this.#clock = clock;
    this.#events = events;
  }

  list(route: Route, query: PageQuery, caller: Caller, {noCache}: TagOptions): Promise<TagListAnswer> {
    return toOciErrors(route, async () =>
      route.registry.hosted
        ? {...(await this.#hostedPage(route, query, caller)), report: HIT}
        : this.#mergedPage(route, query, caller, noCache),
    );
  }

  async renew(route: Route, caller: Caller, spend: () => void): Promise<readonly string[] | undefined> {
    return (await this.#ask(route, caller, spend)).list?.names;
  }

  changed(
    {registry, repository}: Route,
    {put, deleted}: {put: readonly Tag[]; deleted: readonly Tag[]},
  ): Promise<void> {
    const key = fullName(repository);
    this.#changes.set(key, Symbol());
    return this.#mutex.run(key, async () => {
      const known = await this.#metadata.tagList(repository);
      if (!known) return;
      const names = [...new Set([...known.names, ...put])].filter((name) => !deleted.includes(name as Tag));
      const at = Math.min(known.checkedAt, this.#clock.now() - tagListPolicy(registry).ttl);
      await this.#metadata.commit([{type: 'tag-list.put', repository, names: names.sort(byBytes), at}]);
    });
  }

  /** Reads no more of a hosted repository than it shows. One without tags is known by its other content. */
  async #hostedPage(route: Route, {n, last}: PageQuery, caller: Caller): Promise<Page> {
    const {repository} = route;
    const limit = Math.min(n ?? MAX_ENTRIES, MAX_ENTRIES);
    const isVisible = this.#access.visibleTags(route, caller);
    const names: string[] = [];
    let after = last;
    for (let size = limit + 1; names.length <= limit; size = MAX_ENTRIES) {
      const page = {limit: size, ...(after === undefined ? {} : {after})};
      const some = await this.#metadata.localTags(repository, page);
      if (some.length === 0 && after === last && !(await this.#metadata.hasRepository(repository)))
        throw repositoryUnknown(route);
      names.push(...(isVisible ? await visibleInSteps(some, isVisible) : some));
      after = some.at(-1);
      if (some.length < size) break;
      // Reads run on this thread, and everything may be hidden.
      if (size === MAX_ENTRIES) await nextTurn();
    }
    const entries = names.slice(0, limit);
    return {entries, next: names.length > limit ? entries.at(-1) : undefined};
  }

  /** Fails when no list of the upstream is known and it could not be asked, even where tags were pushed here. */
  async #mergedPage(
    route: Route,
    query: PageQuery,
    caller: Caller,
    noCache: boolean,
  ): Promise<TagListAnswer> {
    const {list, report} = await this.#upstreamList(route, caller, noCache);
    const ours = route.registry.push.mode === 'local' ? await this.#localNames(route) : [];
    if (!list && ours.length === 0) throw repositoryUnknown(route);
    const theirs = list?.names ?? [];
    const names = ours.length === 0 ? theirs : [...new Set([...theirs, ...ours])].sort(byBytes);
    const isVisible = this.#access.visibleTags(route, caller);
    return {...pageOf(isVisible ? await visibleInSteps(names, isVisible) : names, query), report};
  }

  /** All names that were pushed here. */
  async #localNames({repository}: Route): Promise<string[]> {
    const names: string[] = [];
    for (;;) {
      const after = names.at(-1);
      const page = {limit: MAX_ENTRIES, ...(after === undefined ? {} : {after})};
      const some = await this.#metadata.localTags(repository, page);
      names.push(...some);
      if (some.length < MAX_ENTRIES) return names;
    }
  }

  /** What the upstream lists, as far as that may be used. */
  async #upstreamList(route: Route, caller: Caller, noCache: boolean): Promise<UpstreamList> {
    const {registry, repository} = route;
    const policy = tagListPolicy(registry);
    const absence = repositoryAbsence(repository);
    if (this.#negativeCache.has(absence, caller, absentTtl(policy, noCache)))
      return {list: undefined, report: HIT};
    const known = registry.approvals
      ? this.#own.get(route, caller, this.#changes.get(fullName(repository)))
      : await this.#metadata.tagList(repository);
    const now = this.#clock.now();
    if (known && freshness({now, known, policy, upstream: 'unasked', noCache}) === 'fresh')
      return {list: known, report: hitReport({checkedAt: known.checkedAt, now}, policy)};
    return this.#renewed(route, caller, known, known ? (noCache ? 'request' : 'stale') : 'uri-miss');
  }

  async #renewed(
    route: Route,
    caller: Caller,
    known: TagListRecord | undefined,
    how: CacheReport['how'],
  ): Promise<UpstreamList> {
    const {repository} = route;
    try {
      const key = `${fullName(repository)} ${caller.key}`;
      const {value, collapsed} = await this.#asking.run(key, () => this.#ask(route, caller));
      const {list, stored} = value;
      if (list) return {list, report: {...this.#reportOf(route, list, how), collapsed, stored}};
    } catch (error) {
      if (error instanceof UpstreamFailure) return this.#stale(route, known, error);
      throw error;
    }
    this.#negativeCache.remember(repositoryAbsence(repository), caller);
    return {list: undefined, report: {how}};
  }

  #stale({registry}: Route, known: TagListRecord | undefined, failure: UpstreamFailure): UpstreamList {
    const now = this.#clock.now();
    const policy = tagListPolicy(registry);
    const list = servableDespite(failure, known, policy, now);
    const {kind, message: reason} = failure;
    const age = {checkedAt: list.checkedAt, ttl: policy.ttl, now};
    return {list, report: staleReport({kind, reason}, 'the list of', age)};
  }

  #reportOf({registry}: Route, {checkedAt}: TagListRecord, how: CacheReport['how']): CacheReport {
    return {how, ...ageOf(this.#clock.now() - checkedAt, tagListPolicy(registry).ttl)};
  }

  /**
   * All pages, or a failure: a list learned partly is never kept, nor one from before a change through us.
   * @param spend called before each request; what it throws keeps the request from being made
   */
  async #ask(
    route: Route,
    caller: Caller,
    spend?: () => void,
    attempts = MAX_ATTEMPTS,
  ): Promise<ReceivedList> {
    const {registry, repository} = route;
    const question = {askedAt: this.#clock.now(), change: this.#changes.get(fullName(repository))};
    const given = await registry.upstream.listTags(repository.name, caller, spend);
    const list = given && {names: [...new Set(given)].sort(byBytes), checkedAt: question.askedAt};
    const outcome = await this.#keep(
      route,
      list
        ? {type: 'tag-list.put', repository, names: list.names, at: list.checkedAt}
        : {type: 'tag-list.delete', repository},
      question,
    );
    if (outcome === 'changed' && attempts > 1) return this.#ask(route, caller, spend, attempts - 1);
    if (registry.approvals) this.#own.keep(route, caller, {list, change: question.change});
    else if (outcome === 'later')
      return {list: (await this.#metadata.tagList(repository)) ?? list, stored: false};
    return {list, stored: outcome === 'kept'};
  }

  /** Keeps an answer, one at a time with `changed`, so that neither misses the other. */
  #keep({repository}: Route, answer: Change, {askedAt, change}: Question): Promise<KeepOutcome> {
    const key = fullName(repository);
    return this.#mutex.run(key, async () => {
      if (this.#changes.get(key) !== change) return 'changed';
      // Anybody can ask about any name: what was never listed costs no commit.
      if (answer.type === 'tag-list.delete' && !(await this.#metadata.tagList(repository))) return 'kept';
      let isLatest = true;
      const latest = {type: 'tag-list.latest' as const, repository, askedAt, now: this.#clock.now()};
      const hasSpace = await storeIfSpace(this.#events, 'a list of tags', async () => {
        isLatest = await this.#metadata.commit([answer], [latest]);
      });
      if (!isLatest) return 'later';
      return hasSpace ? 'kept' : 'no-space';
    });
  }
}

const repositoryUnknown = ({registry, asked}: Route): OciError =>
  new OciError('NAME_UNKNOWN', {
    message: `${registry.upstream.host} has no repository ${asked}`,
    detail: {name: asked, upstream: registry.upstream.host},
  });
