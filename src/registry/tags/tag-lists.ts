import {LRUCache} from 'lru-cache';
import type {Caller} from '../../caller.ts';
import type {Clock} from '../../clock.ts';
import type {Events} from '../../events.ts';
import {OciError} from '../../oci/errors.ts';
import type {Tag} from '../../oci/name.ts';
import type {Change, Metadata, TagListRecord} from '../../storage/metadata.ts';
import {UpstreamFailure} from '../../upstream/port.ts';
import {answering} from '../failure.ts';
import {type CacheReport, freshness, HIT, NO_CACHE_FLOOR} from '../freshness.ts';
import {createKeyedMutex, createSingleFlight} from '../keyed.ts';
import type {Place, Route} from '../namespace.ts';
import {type NegativeCache, repositoryAbsence} from '../negative-cache.ts';
import {byBytes, MAX_ENTRIES, type Page, type PageQuery, pageOf} from '../page.ts';
import {storeIfSpace} from '../store-if-space.ts';
import type {TagOptions} from './tags.ts';

export interface TagListAnswer extends Page {
  readonly report: CacheReport;
}

/** dist-spec, Listing Tags. */
export interface TagLists {
  /**
   * A page of the repository's tags, merged from all pages of the upstream and from what was pushed here.
   * @throws OciError NAME_UNKNOWN where the upstream says so; DENIED, UNAVAILABLE or TOOMANYREQUESTS where it could
   * not be asked and no list here may be served
   */
  list(route: Route, query: PageQuery, caller: Caller, options: TagOptions): Promise<TagListAnswer>;
  /**
   * Tags were put or deleted through us: the list is asked for anew when it is next wanted, an answer from before does
   * not stand, and what is served while the upstream fails is as it should be.
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

/** An answer's question. */
interface Question {
  /** Milliseconds since the epoch. */
  readonly askedAt: number;
  /** The last change through us of the repository's tags before it. */
  readonly change: symbol | undefined;
}

/**
 * What became of an answer: it is kept, or there is no room for it; tags were put or deleted through us after its
 * question; or the answer to a later question is known.
 */
type Outcome = 'kept' | 'no-room' | 'changed' | 'later';

export interface TagListsParts {
  metadata: Metadata;
  negativeCache: NegativeCache;
  clock: Clock;
  events: Events;
}

/** A list that the upstream has just given, and whether it is kept; no list where it has no such repository. */
interface Given {
  readonly list: TagListRecord | undefined;
  readonly stored: boolean;
}

/** A list is asked for so often when tags are put meanwhile. */
const MAX_ATTEMPTS = 3;
const MAX_CHANGES = 10_000;

export function createTagLists({metadata, negativeCache, clock, events}: TagListsParts): TagLists {
  const asking = createSingleFlight<Given>();
  const mutex = createKeyedMutex();
  /** Names the last change through us of each repository's tags. */
  const changes = new LRUCache<string, symbol>({max: MAX_CHANGES});

  /** Keeps an answer in turn with `changed`, so that neither misses the other. */
  function keep({repository}: Place, answer: Change, {askedAt, change}: Question): Promise<Outcome> {
    const key = repositoryAbsence(repository);
    return mutex.run(key, async () => {
      if (changes.get(key) !== change) return 'changed';
      // Anybody can ask about any name: what was never listed costs no commit.
      if (answer.type === 'tag-list.delete' && !(await metadata.tagList(repository))) return 'kept';
      let isLatest = true;
      const latest = {type: 'tag-list.latest' as const, repository, askedAt, now: clock.now()};
      const hasRoom = await storeIfSpace(events, 'a list of tags', async () => {
        isLatest = await metadata.commit([answer], [latest]);
      });
      if (!isLatest) return 'later';
      return hasRoom ? 'kept' : 'no-room';
    });
  }

  /**
   * All pages, or a failure: a list learned partly is never kept, nor one from before a change through us.
   * @param spend called before each request; what it throws keeps the request from being made
   */
  async function ask(
    route: Route,
    caller: Caller,
    spend?: () => void,
    attempts = MAX_ATTEMPTS,
  ): Promise<Given> {
    const {registry, repository} = route;
    const question = {askedAt: clock.now(), change: changes.get(repositoryAbsence(repository))};
    const given = await registry.upstream.listTags(repository.name, caller, spend);
    const list = given && {names: [...new Set(given)].sort(byBytes), checkedAt: question.askedAt};
    const outcome = await keep(
      route,
      list
        ? {type: 'tag-list.put', repository, names: list.names, at: list.checkedAt}
        : {type: 'tag-list.delete', repository},
      question,
    );
    if (outcome === 'changed' && attempts > 1) return ask(route, caller, spend, attempts - 1);
    if (outcome === 'later') return {list: (await metadata.tagList(repository)) ?? list, stored: false};
    return {list, stored: outcome === 'kept'};
  }

  function aged(route: Route, list: TagListRecord, how: CacheReport['how']): CacheReport {
    const age = Math.max(0, clock.now() - list.checkedAt);
    return {how, ttl: Math.ceil((route.registry.tags.ttl - age) / 1000), age: Math.floor(age / 1000)};
  }

  function stale(route: Route, list: TagListRecord | undefined, failure: UpstreamFailure) {
    if (!list || failure.kind === 'denied') throw failure;
    const verdict = freshness({
      now: clock.now(),
      known: list,
      policy: route.registry.tags,
      upstream: 'failed',
    });
    if (verdict === 'gone') throw failure;
    const warning = `${failure.message}; serving the list of ${new Date(list.checkedAt).toISOString()}`;
    return {list, report: {...aged(route, list, 'stale'), detail: failure.kind, warning}};
  }

  async function renewed(
    route: Route,
    caller: Caller,
    list: TagListRecord | undefined,
    how: CacheReport['how'],
  ): Promise<UpstreamList> {
    try {
      const {value, collapsed} = await asking.run(
        `${repositoryAbsence(route.repository)} ${caller.key}`,
        () => ask(route, caller),
      );
      const {list: given, stored} = value;
      if (given) return {list: given, report: {...aged(route, given, how), collapsed, stored}};
    } catch (error) {
      if (error instanceof UpstreamFailure) return stale(route, list, error);
      throw error;
    }
    negativeCache.remember(repositoryAbsence(route.repository));
    return {list: undefined, report: {how}};
  }

  /** What the upstream lists, as far as that may be used. */
  async function upstreamList(route: Route, caller: Caller, noCache: boolean): Promise<UpstreamList> {
    const {tags: policy} = route.registry;
    const absentTtl = noCache ? Math.min(NO_CACHE_FLOOR, policy.absentTtl) : policy.absentTtl;
    if (negativeCache.has(repositoryAbsence(route.repository), absentTtl))
      return {list: undefined, report: HIT};
    const known = await metadata.tagList(route.repository);
    const now = clock.now();
    if (known && freshness({now, known, policy, upstream: 'unasked', noCache}) === 'fresh') {
      return {list: known, report: aged(route, known, 'hit')};
    }
    return renewed(route, caller, known, known ? (noCache ? 'request' : 'stale') : 'uri-miss');
  }

  /** All names that were pushed here. */
  async function localNames({repository}: Route): Promise<string[]> {
    const names: string[] = [];
    for (;;) {
      const after = names.at(-1);
      const page = {limit: MAX_ENTRIES, ...(after === undefined ? {} : {after})};
      const some = await metadata.localTags(repository, page);
      names.push(...some);
      if (some.length < MAX_ENTRIES) return names;
    }
  }

  /** Of a hosted repository, one page alone is read. A repository without tags is known by what else it has. */
  async function hostedPage(route: Route, {n, last}: PageQuery): Promise<Page> {
    const {repository} = route;
    const limit = Math.min(n ?? MAX_ENTRIES, MAX_ENTRIES);
    const page = {limit: limit + 1, ...(last === undefined ? {} : {after: last})};
    const names = await metadata.localTags(repository, page);
    if (names.length === 0 && !(await metadata.hasRepository(repository))) throw unknown(route);
    const entries = names.slice(0, limit);
    return {entries, next: names.length > limit ? entries.at(-1) : undefined};
  }

  /** An upstream that could not be asked, and of which no list is known, is a failure also beside tags of ours. */
  async function page(route: Route, query: PageQuery, caller: Caller, noCache: boolean) {
    const {list, report} = await upstreamList(route, caller, noCache);
    const ours = route.registry.push.mode === 'local' ? await localNames(route) : [];
    if (!list && ours.length === 0) throw unknown(route);
    const theirs = list?.names ?? [];
    const names = ours.length === 0 ? theirs : [...new Set([...theirs, ...ours])].sort(byBytes);
    return {...pageOf(names, query), report};
  }

  return {
    async renew(route, caller, spend) {
      return (await ask(route, caller, spend)).list?.names;
    },

    list: (route, query, caller, {noCache}) =>
      answering(route, async () =>
        route.registry.hosted
          ? {...(await hostedPage(route, query)), report: HIT}
          : page(route, query, caller, noCache),
      ),

    changed: (route, {put, deleted}) => {
      const {repository, registry} = route;
      changes.set(repositoryAbsence(repository), Symbol());
      return mutex.run(repositoryAbsence(repository), async () => {
        const known = await metadata.tagList(repository);
        if (!known) return;
        const names = [...new Set([...known.names, ...put])].filter((name) => !deleted.includes(name as Tag));
        const at = Math.min(known.checkedAt, clock.now() - registry.tags.ttl);
        await metadata.commit([{type: 'tag-list.put', repository, names: names.sort(byBytes), at}]);
      });
    },
  };
}

const unknown = ({registry, asked}: Route): OciError =>
  new OciError('NAME_UNKNOWN', {
    message: `${registry.upstream.host} has no repository ${asked}`,
    detail: {name: asked, upstream: registry.upstream.host},
  });
