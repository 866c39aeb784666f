import type {Caller} from '../caller.ts';
import type {Clock} from '../clock.ts';
import {OciError} from '../oci/errors.ts';
import type {Metadata, TagListRecord} from '../storage/metadata.ts';
import {UpstreamFailure} from '../upstream/port.ts';
import type {Absences} from './absences.ts';
import type {CacheReport} from './answer.ts';
import {answering} from './failure.ts';
import {freshness, NO_CACHE_FLOOR} from './freshness.ts';
import type {Route} from './namespace.ts';
import {byBytes, type Page, type PageQuery, pageOf} from './page.ts';
import {createSingleFlight} from './single-flight.ts';
import type {TagOptions} from './tags.ts';

export interface TagListAnswer extends Page {
  readonly report: CacheReport;
}

/** dist-spec, Listing Tags. */
export interface TagLists {
  /**
   * A page of the repository's tags, merged from all pages of the upstream.
   * @throws OciError NAME_UNKNOWN where the upstream says so; DENIED, UNAVAILABLE or TOOMANYREQUESTS where it could
   * not be asked and no list here may be served
   */
  list(route: Route, query: PageQuery, caller: Caller, options: TagOptions): Promise<TagListAnswer>;
}

export interface TagListsParts {
  metadata: Metadata;
  absences: Absences;
  clock: Clock;
}

export function createTagLists({metadata, absences, clock}: TagListsParts): TagLists {
  const asking = createSingleFlight<TagListRecord | undefined>();
  const keyOf = ({repository}: Route) => `${repository.registry}/${repository.name} tags`;

  /** All pages, or a failure: a list learned partly is never kept. */
  async function ask({registry, repository}: Route, caller: Caller): Promise<TagListRecord | undefined> {
    const given = await registry.upstream.listTags(repository.name, caller);
    if (!given) return undefined;
    const list = {names: [...new Set(given)].sort(byBytes), checkedAt: clock.now()};
    await metadata.commit([{type: 'tag-list.put', repository, names: list.names, at: list.checkedAt}]);
    return list;
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
  ) {
    try {
      const {value, collapsed} = await asking.run(`${keyOf(route)} ${caller.key}`, () => ask(route, caller));
      if (value)
        return {
          list: value,
          report: {...aged(route, value, how), collapsed, stored: true},
        };
    } catch (error) {
      if (error instanceof UpstreamFailure) return stale(route, list, error);
      throw error;
    }
    absences.remember(keyOf(route));
    throw unknown(route);
  }

  return {
    list: (route, query, caller, {noCache}) =>
      answering(route, async () => {
        const {tags: policy} = route.registry;
        const absentTtl = noCache ? Math.min(NO_CACHE_FLOOR, policy.absentTtl) : policy.absentTtl;
        if (absences.has(keyOf(route), absentTtl)) throw unknown(route);
        const known = await metadata.tagList(route.repository);
        const now = clock.now();
        const fresh = known && freshness({now, known, policy, upstream: 'unasked', noCache}) === 'fresh';
        const {list, report} = fresh
          ? {list: known, report: aged(route, known, 'hit')}
          : await renewed(route, caller, known, known ? (noCache ? 'request' : 'stale') : 'uri-miss');
        return {...pageOf(list.names, query), report};
      }),
  };
}

const unknown = ({registry, asked}: Route): OciError =>
  new OciError('NAME_UNKNOWN', {
    message: `${registry.upstream.host} has no repository ${asked}`,
    detail: {name: asked, upstream: registry.upstream.host},
  });
