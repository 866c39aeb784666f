import type {Caller} from '../../caller.ts';
import type {Events} from '../../events.ts';
import type {Digest} from '../../oci/digest.ts';
import {OciError} from '../../oci/errors.ts';
import {EMPTY_INDEX, type SkippedReferrer} from '../../oci/referrers.ts';
import {toOciErrors} from '../failure.ts';
import {type CacheReport, outcomeOf} from '../freshness.ts';
import type {Route} from '../namespace.ts';
import type {TagOptions} from '../tags/tags.ts';
import {skippedText} from './list-reports.ts';
import type {ReferrerLists, UnwrittenList} from './lists.ts';
import type {ReferrersPage, ReferrersPages, ReferrersQuery} from './pages.ts';

/** The upstream refuses these for good, so there is no hurry. */
const RETRY_AFTER_S = 60;

export interface ReferrersAnswer extends ReferrersPage {
  readonly report: CacheReport;
}

/** dist-spec, Listing Referrers, for registries with and without the API. */
export interface Referrers {
  /**
   * @throws OciError UNAVAILABLE, TOOMANYREQUESTS or DENIED when the list could not be had: never an empty list in
   * its place. UNSUPPORTED with 404 where the registry's `referrers.mode` is `off`.
   */
  list(
    route: Route,
    subject: Digest,
    query: ReferrersQuery,
    caller: Caller,
    options: TagOptions,
  ): Promise<ReferrersAnswer>;
  /** The whole list as one index, undefined when it is known to be empty. Throws as `list` does. */
  whole(
    route: Route,
    subject: Digest,
    caller: Caller,
  ): Promise<{body: Buffer; report: CacheReport} | undefined>;
}

export interface ReferrersParts {
  pages: ReferrersPages;
  lists: ReferrerLists;
  events: Events;
}

export function createReferrers({pages, lists, events}: ReferrersParts): Referrers {
  function served({repository: {registry, name: repository}}: Route, report: CacheReport): void {
    events.emit('referrers.served', {registry, repository, outcome: outcomeOf(report)});
  }

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

  return {
    list: (route, subject, query, caller, options) =>
      toOciErrors(route, async () => {
        if (route.registry.referrers.mode === 'off') throw switchedOff(route);
        const {report, unwritten, skipped} = await lists.answer(route, subject, caller, options);
        const page = await pageOf(route, subject, query, unwritten);
        if (isEmpty(page.body) && query.after === undefined) refuseUnlessWhole(route, subject, skipped);
        served(route, report);
        return {...page, report};
      }),

    whole: (route, subject, caller) =>
      toOciErrors(route, async () => {
        if (route.registry.referrers.mode === 'off') throw switchedOff(route);
        const {report, skipped} = await lists.ready(route, subject, caller);
        const body = await pages.whole(route.repository, subject);
        if (!body) throw tooLarge(route, subject);
        if (!isEmpty(body)) return {body, report};
        refuseUnlessWhole(route, subject, skipped);
        return undefined;
      }),
  };
}

const isEmpty = (index: Buffer): boolean => index.length === EMPTY_INDEX.length;

/** An empty list says that there are none, whatever warning comes with it. */
function refuseUnlessWhole({registry}: Route, subject: Digest, skipped: readonly SkippedReferrer[]): void {
  if (skipped.length === 0) return;
  throw new OciError('UNAVAILABLE', {
    message: `no referrer of ${subject} can be listed: ${skippedText(registry.upstream.host, skipped)}`,
    headers: {'Retry-After': String(RETRY_AFTER_S)},
  });
}

/** As from a registry without the API: clients then go on to the fallback tag (dist-spec, Backwards Compatibility). */
const switchedOff = ({registry}: Route): OciError =>
  new OciError('UNSUPPORTED', {
    status: 404,
    message: `the Referrers API is switched off for ${registry.name}: registries.${registry.name}.referrers.mode is "off"`,
  });

/** Neither a part of the list nor its absence is the answer: whoever asks by the tag would take it for all there is. */
const tooLarge = ({asked}: Route, subject: Digest): OciError =>
  new OciError('UNAVAILABLE', {
    message: `the referrers of ${subject} are more than one manifest can list; ask for them by GET /v2/${asked}/referrers/${subject}, which gives them in pages`,
  });
