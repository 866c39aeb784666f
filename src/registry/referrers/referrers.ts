import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {EMPTY_INDEX, type SkippedReferrer} from '../../oci/referrers.ts';
import {toOciErrors} from '../failure.ts';
import {type CacheReport, outcomeOf} from '../freshness.ts';
import type {Generations} from '../generations.ts';
import type {Route} from '../namespace.ts';
import {type Repeat, repeatOf} from '../repeat.ts';
import type {TagOptions} from '../tags/tags.ts';
import type {ListAnswer, ReferrerLists, UnwrittenList} from './lists.ts';
import type {ReferrersPage, ReferrersPages, ReferrersQuery} from './pages.ts';
import {skippedText} from './skipped.ts';

/** The upstream refuses the skipped referrers for good, so there is no hurry. */
const RETRY_AFTER_S = 60;

export interface ReferrersAnswer extends ReferrersPage {
  readonly report: CacheReport;
  /** Undefined where each request has to be looked at. */
  readonly repeat?: Repeat | undefined;
}

/** dist-spec, Listing Referrers, for registries with and without the API. */
export interface Referrers {
  /**
   * @throws OciError UNAVAILABLE, TOOMANYREQUESTS or DENIED when the list could not be obtained; never returns an empty
   * list instead. UNSUPPORTED with 404 where the registry's `referrers.mode` is `off`.
   */
  list(
    route: Route,
    subject: Digest,
    query: ReferrersQuery,
    caller: Caller,
    options: TagOptions,
  ): Promise<ReferrersAnswer>;
  /** The whole list as one index; undefined when it is known to be empty. Throws as `list` does. */
  whole(
    route: Route,
    subject: Digest,
    caller: Caller,
  ): Promise<{body: Buffer; report: CacheReport} | undefined>;
}

export interface ReferrersParts {
  pages: ReferrersPages;
  lists: ReferrerLists;
  generations: Pick<Generations, 'ofRepository' | 'ofQuota'>;
  events: Events;
}

export function createReferrers({pages, lists, generations, events}: ReferrersParts): Referrers {
  async function pageOf(
    {repository}: Route,
    subject: Digest,
    query: ReferrersQuery,
    unwritten: UnwrittenList | undefined,
  ): Promise<ReferrersPage> {
    const page = unwritten && pages.unwritten(unwritten.descriptors, query);
    if (page) return page;
    await unwritten?.written();
    return pages.page(repository, subject, query);
  }

  /** Asks for a list and reads it, again where its subject was evicted in between: what is left of it is not the list. */
  async function settled<Read>(
    route: Route,
    subject: Digest,
    {ask, read}: {ask(): Promise<ListAnswer>; read(answer: ListAnswer): Promise<Read>},
  ): Promise<{answer: ListAnswer; result: Read}> {
    for (let attempt = 1; ; attempt++) {
      const answer = await ask();
      const result = await read(answer);
      if (!answer.isDated || (await lists.isKnown(route, subject))) return {answer, result};
      if (attempt === MAX_ATTEMPTS) throw evictedMeanwhile(subject);
    }
  }

  return {
    list: (route, subject, query, caller, options) =>
      toOciErrors(route, async () => {
        if (route.registry.referrers.mode === 'off') throw switchedOff(route);
        const taken = {
          content: [generations.ofRepository(route.repository)],
          quota: generations.ofQuota(route.registry.upstream.host),
        };
        const {answer, result: page} = await settled(route, subject, {
          ask: () => lists.answer(route, subject, caller, options),
          read: ({unwritten}) => pageOf(route, subject, query, unwritten),
        });
        const {report, skipped} = answer;
        if (isEmpty(page.body) && query.after === undefined) refuseUnlessWhole(route, subject, skipped);
        const {registry, name: repository} = route.repository;
        events.emit('referrers.served', {registry, repository, outcome: outcomeOf(report)});
        const served = {kind: 'referrers', registry, repository} as const;
        return {...page, report, repeat: repeatOf(report, taken, served)};
      }),

    whole: (route, subject, caller) =>
      toOciErrors(route, async () => {
        if (route.registry.referrers.mode === 'off') throw switchedOff(route);
        const {answer, result: body} = await settled(route, subject, {
          ask: () => lists.ready(route, subject, caller),
          read: () => pages.whole(route.repository, subject),
        });
        const {report, skipped} = answer;
        if (!body) throw tooLarge(route, subject);
        if (!isEmpty(body)) return {body, report};
        refuseUnlessWhole(route, subject, skipped);
        return undefined;
      }),
  };
}

/** How often a list is asked for whose subject is evicted while it is read. */
const MAX_ATTEMPTS = 3;

const evictedMeanwhile = (subject: Digest): OciError =>
  new OciError('UNAVAILABLE', {
    message: `${subject} was evicted from the cache again and again while its referrers were read; try again`,
    headers: {'Retry-After': '1'},
  });

const isEmpty = (index: Buffer): boolean => index.length === EMPTY_INDEX.length;

/** An empty list would mean that there are no referrers, even with a warning. */
function refuseUnlessWhole({registry}: Route, subject: Digest, skipped: readonly SkippedReferrer[]): void {
  if (skipped.length === 0) return;
  throw new OciError('UNAVAILABLE', {
    message: `none of the referrers of ${subject} can be listed: ${skippedText(registry.upstream.host, skipped)}`,
    headers: {'Retry-After': String(RETRY_AFTER_S)},
  });
}

/** As from a registry without the API: clients then read the fallback tag (dist-spec, Backwards Compatibility). */
const switchedOff = ({registry}: Route): OciError =>
  new OciError('UNSUPPORTED', {
    status: 404,
    message: `the Referrers API is switched off for ${registry.name}: registries.${registry.name}.referrers.mode is "off"`,
  });

/** A client that reads the tag would take a part of the list, or its absence, for the whole list. */
const tooLarge = ({asked}: Route, subject: Digest): OciError =>
  new OciError('UNAVAILABLE', {
    message: `${subject} has more referrers than one manifest can list; use GET /v2/${asked}/referrers/${subject}, which returns them in pages`,
  });
